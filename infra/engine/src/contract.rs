//! What every adapter promises, as cases that its own tests call: [`log`] for any [`Log`](crate::log::Log),
//! [`read_store`] for any [`ReadStore`](crate::read_store::ReadStore). Each case has a name, runs on a fixture of its
//! own and panics if the promise is broken; the suite runs them all and then says which failed.
//!
//! This is test support: it panics, starts threads and waits, which nothing else here does.

pub mod log;
pub mod read_store;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use self::log::{LogFixture, log};
pub use self::read_store::{StoreFixture, read_store};

/// One promise.
#[derive(Clone, Copy)]
pub struct Case<F> {
    /// The promise, as a sentence.
    pub name: &'static str,
    /// Panics if it is broken.
    pub run: F,
}

/// Runs every case, so that one failure does not hide the others.
///
/// # Panics
/// If a case did, with the names of those.
fn run_all<F: Copy>(cases: &[Case<F>], run: impl Fn(F)) {
    let fails = |case: &&Case<F>| catch_unwind(AssertUnwindSafe(|| run(case.run))).is_err();
    let failed = cases.iter().filter(fails).map(|case| case.name).collect::<Vec<_>>();
    let (broken, all) = (failed.len(), cases.len());
    assert!(failed.is_empty(), "{broken} of {all} promises are broken:\n  {}", failed.join("\n  "));
}

/// Cases named as their functions are.
macro_rules! cases {
    ($($name:ident),* $(,)?) => { [$($crate::contract::Case { name: stringify!($name), run: $name }),*] };
}
use cases;
