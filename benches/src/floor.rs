//! What this machine can do at best: one durable write, a file with group commit, a topic, a minimal HTTP handler on
//! either, and rows in SQLite.

pub(crate) mod disk;
pub(crate) mod http;
pub(crate) mod log;
pub(crate) mod rows;
pub(crate) mod topic;
