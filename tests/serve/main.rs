//! `docket serve` and what operators type around it, on the real binary: configuration, roles, stopping, the doctor, and
//! a log that outgrows its machine and is moved into a real Kafka. Where this machine has no Kafka, the tests that need one
//! fail and say what to install.

mod a_disk_fills;
mod a_log_moves;
mod a_node_catches_up;
mod a_topic_is_lost;
mod an_operator_asks;
mod limits_are_told;
mod nodes_hand_over;
mod roles;

#[allow(dead_code, reason = "the trials of broken disks use the rest")]
#[path = "../faults/disk.rs"]
mod disk;

#[allow(dead_code, reason = "the tests of logs of another version use the rest")]
#[path = "../faults/forge.rs"]
mod forge;
