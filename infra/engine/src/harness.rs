//! Tests of a business in three words: *given* what happened, *when* this is asked, *then* that. And a small world to run
//! sagas in, where any errand can fail, be answered twice, be lost or land late. Nothing here waits or draws dice; events
//! are folded as read back from their stored form, states as read back from the state store's.
//!
//! ```
//! use engine::harness::given;
//! use engine::simulated::bank::{Bank, BankCommand, BankEvent, account};
//!
//! let (ann, bob) = (account("shop", 1), account("shop", 2));
//! given(Bank, [(ann.clone(), BankEvent::Opened), (bob.clone(), BankEvent::Opened)])
//!     .and([(ann.clone(), BankEvent::Deposited(5))])
//!     .when(BankCommand::Transfer(ann.clone(), bob.clone(), 3))
//!     .then([(ann.clone(), BankEvent::Withdrawn(3)), (bob.clone(), BankEvent::Deposited(3))])
//!     .when(BankCommand::Withdraw(ann, 3))
//!     .then_refused("balance-too-low");
//! ```

mod given;
mod history;
mod rows;
mod world;

pub use given::{Given, Then, given};
pub use history::{Folded, History, START, history};
pub use rows::{Rows, rows};
pub use world::{Fault, NotRecorded, Outside, Owed, World, breaks_every_step, repeats_every_step};
