//! What this machine can do at best: one durable write, a file with group commit, and a minimal HTTP handler on it.

pub(crate) mod disk;
pub(crate) mod http;
pub(crate) mod log;
