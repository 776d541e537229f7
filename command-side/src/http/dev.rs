//! `/dev/*`: the simulator's books and its healing, and what must hold over the whole log. For dev and tests only; no key
//! is asked for.

use std::collections::{BTreeMap, BTreeSet};

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use chassis::problem::Problem;
use chassis::respond::Reply;
use domain::Shop;
use domain::invariants::Checker;
use engine::event::Recorded;
use engine::position::{Checkpoint, Offset, Partition, Position};
use engine_runtime::history::HistoryFault;
use engine_runtime::node::Node;
use http::StatusCode;
use schemas::event::ShopEvent;
use schemas::id::{PaymentId, Subject};
use serde_json::json;

use crate::gateway::Simulator;

/// Bytes read from a partition at once.
const READ_BYTES: usize = 1 << 20;

#[derive(Clone)]
struct Dev {
    gateway: Simulator,
    node: Node<Shop>,
}

pub(super) fn routes(node: Node<Shop>, gateway: Simulator) -> Router {
    Router::new()
        .route("/dev/gateway/ledger", get(ledger))
        .route("/dev/gateway/heal", post(heal))
        .route("/dev/invariants", get(check))
        .with_state(Dev { gateway, node })
}

async fn ledger(State(dev): State<Dev>) -> Result<Response, Problem> {
    let items = dev.gateway.ledger().await.map_err(closed)?;
    Ok(Reply::json(StatusCode::OK, &json!({"items": items})).into_response())
}

async fn heal(State(dev): State<Dev>) -> Result<Response, Problem> {
    dev.gateway.heal().await.map_err(closed)?;
    Ok(Reply::json(StatusCode::OK, &json!({"healed": true})).into_response())
}

/// The gateway's books are in a database that does not answer: for a while, so nothing broke here.
fn closed(why: String) -> Problem {
    tracing::warn!(why, "the gateway's books cannot be reached");
    Problem::overloaded()
}

/// Checks the log up to where it ends now. The gateway goes on meanwhile, so its books are taken after that, and payments
/// that something has happened to since are left out of the comparison: whatever the gateway did was asked for in the log
/// before.
async fn check(State(dev): State<Dev>) -> Result<Response, Problem> {
    let partitions = (0..dev.node.genesis().partitions).map(Partition);
    let mut cursors: BTreeMap<Partition, Checkpoint> = partitions.map(|it| (it, Checkpoint::default())).collect();
    let mut checker = Checker::new();
    dev.read_on(&mut cursors, |event| checker.observe(event)).await.map_err(unreadable)?;
    let positions: BTreeMap<Partition, Offset> = cursors
        .iter()
        .filter_map(|(&partition, cursor)| Some((partition, Offset(cursor.next_offset.0.checked_sub(1)?))))
        .collect();
    for (&partition, &offset) in &positions {
        checker.scanned(Position { partition, offset });
    }
    let ledger = dev.gateway.ledger().await.map_err(closed)?;
    let mut moving: BTreeSet<PaymentId> = BTreeSet::new();
    dev.read_on(&mut cursors, |event| {
        if let Some(Subject::Payment(payment)) = Subject::of(&event.meta.stream) {
            moving.insert(payment);
        }
    })
    .await
    .map_err(unreadable)?;
    checker.leave_out(moving);
    let report = checker.finish(Some(&ledger));
    let body = json!({"positions": positions, "checked": report.checked, "violations": report.violations});
    Ok(Reply::json(StatusCode::OK, &body).into_response())
}

impl Dev {
    /// Shows `seen` every event from the cursors on, per partition in order, up to where each partition ends.
    async fn read_on(
        &self,
        cursors: &mut BTreeMap<Partition, Checkpoint>,
        mut seen: impl FnMut(&Recorded<ShopEvent>),
    ) -> Result<(), HistoryFault> {
        for (&partition, cursor) in cursors {
            loop {
                let (events, next) = self.node.history().read_partition(partition, *cursor, READ_BYTES).await?;
                if next == *cursor {
                    break;
                }
                events.iter().for_each(&mut seen);
                *cursor = next;
            }
        }
        Ok(())
    }
}

fn unreadable(fault: HistoryFault) -> Problem {
    tracing::error!(error = &fault as &dyn std::error::Error, "the log cannot be read");
    Problem::no_answer(engine::message::NoAnswer::LogDamaged)
}
