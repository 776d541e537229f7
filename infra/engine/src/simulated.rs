//! One partition with its nodes and clients, run in one thread from one seed, with everything that can go wrong: the real
//! shard on a simulated log that delays, loses answers, writes twice, reorders, lands late, crashes and runs full, while
//! nodes crash, pause, duel and forget. Then all heals, and everybody must have been answered. A referee folds the log
//! as every reader does and judges each answer at once: accepted is effective exactly once, what was decided on is the
//! accepted prefix, the same id gets the same answer, and nobody is told of a past that is over.
//!
//! Nothing here is a log to build on; it is a liar, on purpose. The same seed gives the same run to the bit.

pub mod bank;
mod clients;
mod dice;
pub mod house;
mod log;
mod mischief;
mod node;
mod referee;
mod running;
mod store;
mod world;
mod writing;

pub use dice::Dice;
pub use world::{Mistake, Plan, Report, Violation, simulate};
