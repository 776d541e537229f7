//! What this machine can do at best: one durable write, a file with group commit, a topic, and a minimal HTTP handler on
//! either.

pub(crate) mod disk;
pub(crate) mod http;
pub(crate) mod log;
pub(crate) mod topic;
