//! What our chores and our tests share: a real Apache Kafka, a real PostgreSQL and nodes of the product on loopback, each in
//! a scratch directory of its own, started in seconds and ended by pid. Nothing here knows an order or is part of the
//! product. Everything blocks: who calls it from a runtime calls it before the interesting part begins, or from a thread.
//!
//! ```no_run
//! let kafka = xtask::kafka::Kafka::start(3);
//! println!("{}", kafka.bootstrap());
//! kafka.pause(kafka.leader_of("docket.log.shop", 0).expect("it has a leader"));
//! ```

pub mod cluster;
pub mod kafka;
pub mod node;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod set_up;
