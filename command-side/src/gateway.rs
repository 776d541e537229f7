//! The payment gateway's side of the house. The port is `Outside<GatewayCall, GatewayAnswer>`: a call is made under a key,
//! the same key asks for the same thing and takes effect once, and `Void` promises to bar its payment for ever. The
//! [`Simulator`] is the one gateway there is so far: it keeps books of its own, apart from Docket's log, and misbehaves
//! by token. Nodes that share a log share its books too.

mod books;
mod journal;
mod shared;
mod simulator;

pub use books::{Books, BooksFault};
pub use simulator::{SecondAnswer, Simulator};
