//! The waiting half of an event-sourced system, for any business: shards as tasks, the state store, the saga runner with
//! its timers, and the projection runner. What is decided, folded and owed is `engine`'s affair; here things are sent,
//! kept, retried and woken.
//!
//! Start with [`node`] (the write side) and [`projection`] (the read side).

mod hash;
pub mod history;
pub mod node;
pub mod outside;
pub mod peers;
pub mod projection;
mod queue;
pub mod remote;
pub mod store;
pub mod system;
mod waiting;
pub mod wanted;
pub mod watch;

/// A fault and what caused it, in one line, for the place where it is handled and logged.
fn chain(fault: &dyn std::error::Error) -> String {
    let mut text = fault.to_string();
    let mut source = fault.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// What a panic said.
fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text").to_owned()
}
