//! What every HTTP service of this shape needs and no business knows: problems with a page each, the headers and bodies
//! of commands and reads, cursors, answers, a server that slow or hostile clients cannot hold up, telemetry, health and
//! shutdown. Routes and the business's own codes come from its users.
//!
//! A command's way in: [`server::Server`] → [`app::App`] → a route of its user → [`body::command_request`]; its way out:
//! [`respond::Reply`] or [`problem::Problem`].

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on has failed"))]

pub mod app;
pub mod body;
pub mod config;
pub mod context;
pub mod cursor;
pub mod gate;
pub mod headers;
pub mod health;
pub mod metrics;
pub mod problem;
pub mod query;
pub mod respond;
pub mod server;
pub mod shutdown;
pub mod telemetry;
