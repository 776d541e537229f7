//! Being laid.

pub mod history;
pub mod store;
