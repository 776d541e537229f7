//! The log on a real Apache Kafka.

mod contract;
mod faults;
mod following;
mod owners;
mod support;
mod truth;
mod writing;
