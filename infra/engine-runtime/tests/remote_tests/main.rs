//! Commands between nodes: what arrives, what comes back, and what is said when something on the way breaks.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test that fails may panic, and tests are told by their names"
)]

#[allow(dead_code, reason = "the node's own tests use the rest")]
#[path = "../node_tests/business.rs"]
mod business;
mod door;
mod foreign;
mod forwarding;
#[allow(dead_code, reason = "the node's own tests use the rest")]
#[path = "../node_tests/house.rs"]
mod house;
#[allow(dead_code, reason = "its own main is for who runs it by hand")]
#[path = "../../examples/forwarding.rs"]
mod measurement;
mod nodes;
mod troubles;
mod versions;
