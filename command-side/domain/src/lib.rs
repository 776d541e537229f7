//! The shop's rules: what may happen to orders, payments, stock and reservations, and how a checkout carries an order across
//! them and back. Everything here is decided from arguments alone; [`Shop`] hands each command to the aggregate it
//! addresses and says what its streams still owe.
//!
//! Begin with [`shop`] (which streams a command names, and who decides it), then the aggregates, then [`checkout`].

pub mod checkout;
pub mod invariants;
pub mod order;
pub mod payment;
mod refusal;
pub mod reservation;
pub mod shop;
pub mod stock;

pub use shop::{Shop, ShopState};
