//! The contract, held against the real binary over HTTP: each file is a story that a user could have lived through, each
//! test a sentence of it. Tests share one server and keep out of each other's way by locations, customers and ids of their
//! own; those that stop, kill or count on a whole server start one for themselves.

mod platform;

/// Everything in one process.
const GROUND: platform::Ground = platform::Ground::Dev;

mod a_key_is_a_command;
mod a_log_is_looked_into;
mod a_process_behaves;
mod a_read_model_is_rebuilt;
mod a_saga_obeys_its_operator;
mod an_order_lives;
mod events_are_told_in_order;
mod every_fault_is_told;
mod follow_one_order;
mod money_moves_once;
mod reads_are_never_stale;
mod rows_are_what_the_log_makes;
mod stock_is_promised_and_kept;
mod the_readme_is_true;
mod values_have_bounds;
