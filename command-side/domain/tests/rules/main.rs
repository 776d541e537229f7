//! The shop's rules, one file per aggregate, told as given, when, then; and its sagas, run in a small world where any step
//! can fail, come twice or land late.
#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing fails, as it should")]

mod checkout;
mod invariants;
mod kit;
mod order;
mod payment;
mod properties;
mod reservation;
mod sagas;
mod stock;
