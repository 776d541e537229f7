//! One node with everything in it, however it was asked for: `dev` and `serve` make a [`Plan`], and the house opens what it
//! names in the order in which one thing rests on another, serves the routes of its roles, and closes in reverse.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{any, get};
use chassis::app::turned_away;
use chassis::body::BodyLimits;
use chassis::cursor::CursorKey;
use chassis::gate::{GateLimits, Gates};
use chassis::health::Health;
use chassis::metrics::Metrics;
use chassis::problem::{Code, Pages, Problem};
use chassis::respond::Reply;
use chassis::server::Server;
use command_side::CommandSide;
use command_side::gateway::Simulator;
use domain::Shop;
use engine::ports::Clock;
use engine_runtime::node::{Node, NodeOptions, Parts};
use engine_runtime::projection::{Projection, ProjectionStatus};
use engine_runtime::store::{StateStore, StoreOptions};
use engine_runtime::system::{SystemChance, SystemClock};
use engine_sql::SqlReadStore;
use http::{Method, StatusCode};
use query_side::QuerySide;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;

pub(crate) mod data;
#[cfg(feature = "kafka")]
pub(crate) mod kafka;
pub(crate) mod log;
mod opening;
mod operations;
mod others;
pub(crate) mod rows;

use data::{Data, Rows};
use log::{Kept, LogPlan, Opened};
use opening::Opening;
use others::Others;
pub(crate) use others::{Hint, OthersPlan};
use rows::{Followed, RowsPlan};

/// What a node is to be.
pub(crate) struct Plan {
    /// What claims call it.
    pub(crate) name: String,
    /// Where other nodes reach it, as claims say.
    pub(crate) address: String,
    /// What it does.
    pub(crate) roles: Roles,
    /// Which log.
    pub(crate) log: LogPlan,
    /// How other nodes are reached; none where this one is alone.
    pub(crate) others: Option<OthersPlan>,
    /// Partitions of a log that is not there yet.
    pub(crate) partitions: u16,
    /// Where everything else is.
    pub(crate) data: Data,
    /// How many requests are worked on at once, and how long others wait for their turn.
    pub(crate) gates: GateLimits,
    /// What the write side bounds.
    pub(crate) node: NodeOptions,
    /// What of a request's body is read.
    pub(crate) bodies: BodyLimits,
    /// What the state store bounds.
    pub(crate) states: StoreOptions,
    /// What it bounds in its read models.
    pub(crate) rows: RowsPlan,
    /// Whether `/dev/*` is served: everybody may see and do everything there.
    pub(crate) dev_routes: bool,
    /// How long a drain of the shards may take before the rest is left as if the process had died, which loses nothing.
    pub(crate) drain_within: Duration,
}

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Roles {
    /// Leads partitions.
    pub(crate) command: bool,
    /// Keeps the read models current.
    pub(crate) projection: bool,
    /// Answers reads.
    pub(crate) query: bool,
}

impl Roles {
    /// Everything.
    pub(crate) const ALL: Self = Self { command: true, projection: true, query: true };
}

/// Everything that runs behind the server.
pub(crate) struct House {
    plan: Plan,
    kept: Arc<Kept>,
    others: Option<Others>,
    node: Node<Shop>,
    states: Arc<StateStore<Shop>>,
    followed: Followed,
    operations: projections::Operations,
    gateway: Simulator,
    cursors: CursorKey,
}

/// Answers at once, opens the house, and serves it until `stop`; then settles what is under way and closes. Ends by itself
/// if it cannot be opened, or the log stops for good. `greet` is called when it is open.
pub(crate) async fn run(
    plan: Plan,
    server: Server,
    metrics: &Metrics,
    stop: CancellationToken,
    greet: impl FnOnce(&Plan),
) -> Result<(), Failure> {
    let opening = Opening::new();
    let app = opening.app(Gates::new(&plan.gates), metrics, &stop).bounding_bodies(plan.bodies);
    let serving = tokio::spawn(server.run(app.clone(), stop.clone()));
    let opened = tokio::select! {
        opened = House::open(plan, &opening) => opened.map(Some),
        never = opening.tell() => match never {},
        () = stop.cancelled() => Ok(None),
    };
    let (house, mut ended) = match opened {
        Ok(house) => (house, Ok(())),
        Err(failure) => (None, Err(failure)),
    };
    if let Some(house) = &house {
        app.open(house.routes(metrics, &stop));
        greet(&house.plan);
        ended = tokio::select! {
            () = stop.cancelled() => Ok(()),
            failure = house.kept.failed() => Err(failure),
        };
    }
    stop.cancel();
    if serving.await.is_err() {
        tracing::error!("the server's task ended badly");
    }
    // What was half open is left as if the process had died: nobody was told yes by it.
    let Some(house) = house else { return ended };
    let kept = Arc::clone(&house.kept);
    house.close().await;
    ended.and_then(|()| kept.ended_well())
}

impl House {
    /// Opens everything, one on top of the other, and says what it is at.
    async fn open(mut plan: Plan, opening: &Opening) -> Result<Self, Failure> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let Opened { log, kept, genesis, states } = log::open(&plan, clock.as_ref(), opening).await?;
        let gateway = open_gateway(&plan, &clock)?;
        let (others, wanted, peers) = others::meet(&mut plan, &genesis, states.decider()).await?;
        opening.begin_counted("catching up with the log", log::folded(&log, &kept, &states));
        let node = Node::start(Parts {
            log: Arc::clone(&log),
            genesis,
            store: Arc::clone(&states),
            decider: Arc::clone(states.decider()),
            outside: Arc::new(gateway.clone()),
            clock: Arc::clone(&clock),
            chance: Arc::new(SystemChance),
            node_name: plan.name.clone(),
            address: plan.address.clone(),
            wanted,
            peers,
            options: plan.node.clone(),
        })
        .await
        .map_err(|fault| {
            let failure = Failure::of("cannot lead the log", &fault);
            if !states.is_condemned() {
                return failure;
            }
            failure.next("start again: the state store is of no use, and is folded afresh from the log then")
        })?;
        let others = others.map(|others| others.take_in(&node)).transpose()?;
        opening.begin("opening the read models");
        let followed = rows::open(&plan, &log, &kept, &genesis, &clock).await?;
        let operations = projections::operations(
            Arc::clone(&log),
            &genesis,
            Arc::clone(&followed.rows),
            Arc::clone(&clock),
            followed.projection.clone(),
            plan.data.check(),
            plan.rows.batch_events_max,
        );
        // Cursors outlive a restart and hold on every node: their key follows from the log's own.
        let cursors = CursorKey::new(&[&genesis.fingerprint_key[..], b"cursors"].concat());
        Ok(Self { plan, kept, others, node, states, followed, operations, gateway, cursors })
    }

    /// The routes of its roles, and those that every node has.
    fn routes(&self, metrics: &Metrics, stop: &CancellationToken) -> Router {
        let commands = CommandSide::new(self.node.clone(), self.gateway.clone(), stop.clone());
        let mut routes = Router::new().merge(commands.routes());
        if self.plan.dev_routes {
            routes = routes.merge(commands.dev_routes());
        }
        if self.plan.roles.query {
            let reads = QuerySide {
                node: self.node.clone(),
                streams: Arc::clone(&self.states),
                projection: self.followed.projection.clone(),
                store: Arc::clone(&self.followed.rows),
                cursors: self.cursors.clone(),
                draining: stop.clone(),
            };
            routes = routes.merge(reads.routes());
        } else {
            routes = routes.route("/v1/{*rest}", any(nothing_here)).method_not_allowed_fallback(nothing_here);
        }
        routes
            .merge(operations::routes(&self.operations, &self.cursors))
            .merge(pages().routes())
            .merge(self.health(stop).routes())
            .merge(metrics.routes().layer(from_fn_with_state(self.measured(), measuring)))
            .route("/version", get(version))
    }

    fn measured(&self) -> Measured {
        let (node, projection) = (self.node.clone(), self.followed.projection.clone());
        Measured { node, projection, rows: Arc::clone(&self.followed.rows), kept: Arc::clone(&self.kept) }
    }

    fn health(&self, stop: &CancellationToken) -> Health {
        let node = self.node.clone();
        let projection = self.followed.projection.clone();
        let kept = Arc::clone(&self.kept);
        Health::builder(stop.clone())
            .check("log", move || kept.reachable())
            .check("commands", move || node.status().unready().map_or(Ok(()), Err))
            .check("read models", move || following(&projection))
            .build()
    }

    /// Settles what is under way, then closes everything in the order in which it rests on one another.
    async fn close(self) {
        let within = self.plan.drain_within;
        if !self.node.drain(within).await {
            tracing::warn!("not everything settled in {} s; it will after the next start", within.as_secs());
        }
        // Only now: who is given the partitions next finds them given back. The others need not wait for our rows.
        let leave = async {
            if let Some(others) = self.others {
                others.leave().await;
            }
        };
        self.operations.stop().await;
        tokio::join!(leave, self.followed.close());
        let kept = self.kept;
        let states = self.states;
        let closed = tokio::task::spawn_blocking(move || {
            if let Err(fault) = states.persist() {
                tracing::warn!(error = &fault as &dyn std::error::Error, "the state store will be folded afresh");
            }
            kept.close();
        });
        if closed.await.is_err() {
            tracing::error!("closing the log failed; it is recovered at the next start");
        }
    }
}

/// The gateway's books are where the nodes that share them reach them, else with this node's own data.
fn open_gateway(plan: &Plan, clock: &Arc<dyn Clock>) -> Result<Simulator, Failure> {
    let opened = match (&plan.others, plan.data.rows(), plan.data.gateway()) {
        (Some(_), Rows::Shared(url), _) => Simulator::shared(url, Arc::clone(clock)),
        (others, _, Some(books)) => {
            if others.is_some() {
                tracing::warn!(
                    "the payment gateway's books are this node's own: several nodes need a PostgreSQL read store"
                );
            }
            Simulator::open(&books, Arc::clone(clock))
        }
        (_, _, None) => return Ok(Simulator::in_memory(Arc::clone(clock))),
    };
    opened.map_err(|fault| Failure::of("cannot open the payment gateway simulator", &fault))
}

/// Turns reads away that this node has no role for. They come here because no route takes them: a route for commands
/// would call them a wrong method, and no route at all would deny that there is such a thing.
async fn nothing_here(matched: MatchedPath, request: Request) -> Problem {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let known = !matched.as_str().contains("{*");
    let problem = match (reads, known) {
        // What became of a command is asked where commands are taken.
        (true, _) if request.uri().path().starts_with("/v1/") => {
            Problem::not_served_here("this node answers no reads: it has no query role")
        }
        (_, true) => Problem::method_not_allowed(),
        (_, false) => Problem::no_such_route(),
    };
    turned_away(request, problem).await
}

/// What is only looked at when somebody scrapes.
#[derive(Clone)]
struct Measured {
    node: Node<Shop>,
    projection: Projection,
    rows: Arc<SqlReadStore>,
    kept: Arc<Kept>,
}

/// Looks how full everything is, and how many sagas stand where, before the metrics are told: nobody needs to know between
/// two scrapes.
async fn measuring(State(measured): State<Measured>, request: Request, next: Next) -> Response {
    let Measured { node, projection, rows, kept } = measured;
    kept.measure();
    node.measure();
    projection.measure();
    rows.measure();
    projections::count_sagas(&rows).await;
    next.run(request).await
}

/// Whether the read models are kept current.
fn following(projection: &Projection) -> Result<(), String> {
    match projection.status() {
        ProjectionStatus::Running => Ok(()),
        ProjectionStatus::Waiting(why) => Err(why),
        ProjectionStatus::Stopped => Err("stopped".to_owned()),
        ProjectionStatus::Failed(fault) => Err(fault.to_string()),
    }
}

/// The pages of all problems, generic and the shop's.
pub(crate) fn pages() -> Pages {
    Pages::with(schemas::problem::ALL.iter().map(|code| Code::new(code.name, code.status, code.title, code.page)))
}

async fn version() -> Reply {
    Reply::json(StatusCode::OK, &json!({"name": "docket", "version": env!("CARGO_PKG_VERSION")}))
}
