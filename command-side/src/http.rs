//! The routes that take commands, one file for each kind of resource. Every one of them reads the request, names the
//! command and the stream it addresses, goes through the one [`door`], and tells what the record made of the resource.

mod commands;
mod dev;
mod door;
mod orders;
mod payments;
mod sagas;
mod stock;

use axum::Router;
use domain::Shop;
use engine_runtime::node::Node;
use tokio_util::sync::CancellationToken;

use crate::gateway::Simulator;
use door::Door;

/// The command side's face to the world. Cheap to clone.
#[derive(Clone)]
pub struct CommandSide {
    door: Door,
    gateway: Simulator,
}

impl CommandSide {
    /// Commands for this node, whose payments go to this gateway. Once `draining` is cancelled, requests that wait for what
    /// follows from their command are soon answered with how it stands.
    pub fn new(node: Node<Shop>, gateway: Simulator, draining: CancellationToken) -> Self {
        door::hear_second_answers(&node, &gateway);
        Self { door: Door::new(node, draining), gateway }
    }

    /// All routes that take commands.
    pub fn routes(&self) -> Router {
        Router::new()
            .merge(orders::routes())
            .merge(stock::routes())
            .merge(payments::routes())
            .merge(sagas::routes())
            .merge(commands::routes())
            .with_state(self.door.clone())
    }

    /// `/dev/*`: only where everybody may see and do everything.
    pub fn dev_routes(&self) -> Router {
        dev::routes(self.door.node().clone(), self.gateway.clone())
    }
}
