//! What is said in the shop: ids and money, the events in their stored form, the commands, the resources that API
//! consumers see and the requests they send. Every room that knows an order shares these words and no other code.

pub mod command;
pub mod event;
pub mod id;
pub mod ledger;
pub mod money;
pub mod problem;
pub mod request;
pub mod resource;
