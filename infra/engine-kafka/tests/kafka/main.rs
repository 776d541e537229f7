//! The log on a real Apache Kafka.

mod between;
mod contract;
mod faults;
mod following;
mod owners;
mod stranded;
mod support;
mod truth;
mod writing;
