//! The shard fed by hand: dedup, pipelining, answers, reading back, stepping down. Faults by seed are in `sim_*`.

mod bench;
mod deciding;
mod known;
mod term;
