//! Whole partitions run in one thread, from one seed, with everything that can go wrong: the real shard on a simulated
//! log. What comes of it is judged from the final log alone.

pub mod bank;
