//! The same stories as in `main.rs`, lived on what operators run: `docket serve` with its log on a real Kafka and its rows
//! in a real PostgreSQL. What is only `docket dev`'s (its greeting, its directory, the README that shows it) is told there alone.
#![allow(dead_code, reason = "the stories that are not told here use the rest of the platform")]

mod platform;

/// One node.
const GROUND: platform::Ground = platform::Ground::Kafka;

mod a_key_is_a_command;
mod a_log_is_looked_into;
mod a_read_model_is_rebuilt;
mod a_saga_obeys_its_operator;
mod an_order_lives;
mod events_are_told_in_order;
mod every_fault_is_told;
mod follow_one_order;
mod money_moves_once;
mod reads_are_never_stale;
mod stock_is_promised_and_kept;
mod values_have_bounds;
