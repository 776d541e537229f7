//! Whole nodes in one thread from one seed: several partitions, each led by a real shard on a simulated log, with the sagas,
//! timers, calls to a gateway, feeders of a read store and caches that a node has around them. Everything that can go wrong
//! does for a while; then nothing does, and all must settle: everybody answered, every saga done or undone whole, money the
//! same in accounts and in the gateway's books, rows and caches the fold of the log.
//!
//! Real here are the shard, the accept fold, the record format, deciders, agendas, the view and the cache's gate. The
//! runners around them (errands, timers, saver, feeder) are mirrored, because the real ones wait. The referee knows only
//! the log, the gateway's books, the read store and what clients were told.

mod account;
mod business;
mod claiming;
mod clients;
mod committing;
mod crowding;
mod errands;
mod gateway;
mod mischief;
mod mistakes;
mod node;
mod projecting;
mod read_store;
mod reading;
mod referee;
mod report;
mod running;
mod saga;
mod settled;
mod view;
mod world;
mod writing;

pub use mistakes::Mistake;
pub use report::{Check, Plan, Report, Violation};
pub use world::simulate;
