//! What the embedded log promises, on real files: the contract every log is held to, and then whatever can happen to a
//! disk and to the process that writes on it.

mod contract;
mod crashes;
mod damage;
mod disks;
mod golden;
mod locking;
mod offline;
mod reading;
mod support;
mod torn;
