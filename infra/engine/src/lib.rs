//! The thinking half of an event-sourced system: what a record is, who may write it, how commands are decided, what a
//! saga still owes and how a view is folded. Nothing here waits: no socket, no disk, no clock, no dice. Those come in as
//! values or through the ports that `log`, `read_store` and `ports` name, so every line can be tested by calling it.
//!
//! Start with [`decider`] (the business side), [`record`] and [`fold`] (the log side), then [`shard`], where both meet.

pub mod cache;
pub mod contract;
pub mod decider;
pub mod event;
pub mod fold;
pub mod harness;
pub mod json;
pub mod log;
pub mod memory;
pub mod message;
pub mod ports;
pub mod position;
pub mod read_store;
pub mod record;
pub mod saga;
pub mod shard;
pub mod simulated;
pub mod stream;
pub mod time;
pub mod upcast;
pub mod view;
