//! Commands in, events out: the HTTP routes that take commands, and the payment gateway that the checkout calls. What is
//! decided is the `domain`'s affair; how it becomes certain is the engine's.

mod fingerprint;
pub mod gateway;
mod http;

pub use http::CommandSide;
