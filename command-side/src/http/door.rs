//! The one door through which every command of an API consumer goes: from a request that has been taken in to a recorded
//! outcome or the problem that tells why there is none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chassis::body::CommandRequest;
use chassis::headers::parse_uuid;
use chassis::problem::{Code, Problem, codes};
use chassis::respond::Timing;
use domain::payment::recording;
use domain::{Shop, ShopState};
use engine::message::{Answer, CommandId, Decided, Envelope, FieldError, Fingerprint, Precondition, Provenance};
use engine::position::Positions;
use engine::stream::{StreamId, StreamName, Tenant};
use engine::time::Timestamp;
use engine_runtime::node::Node;
use engine_runtime::watch::{Current, Watch};
use schemas::command::{GatewayAnswer, GatewayCall, ShopCommand};
use schemas::id::PaymentId;
use schemas::problem::ShopCode;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::fingerprint::Fingerprints;
use crate::gateway::Simulator;

/// How long what follows from a command is still waited for once the node drains. 1 s: most comes within, and it leaves
/// time to be told.
const DRAIN_WAIT: Duration = Duration::from_secs(1);

/// What the routes share. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Door {
    node: Node<Shop>,
    fingerprints: Fingerprints,
    draining: CancellationToken,
}

/// A command as it stands at the door.
pub(crate) struct Asked {
    /// The request.
    pub request: CommandRequest,
    /// What is done: `place`, `cancel`, …; part of the fingerprint.
    pub verb: &'static str,
    /// The stream it addresses.
    pub resource: StreamName,
    /// The command, or what is wrong with its body.
    pub command: Result<ShopCommand, Vec<FieldError>>,
}

/// A recorded acceptance.
pub(crate) struct Accepted {
    /// What was decided.
    pub decided: Decided<ShopState>,
    /// `Prefer: wait` of the request.
    pub wait: Option<Duration>,
    /// When it came to the door.
    came: Instant,
    came_at: Timestamp,
}

impl Accepted {
    /// Where its time went. The record's own time is when it was decided.
    pub(crate) fn timing(&self) -> Timing {
        let total = self.came.elapsed();
        let queue = Duration::from_micros(self.decided.recorded_at.micros_since(self.came_at)).min(total);
        Timing { queue, append: total - queue }
    }

    /// Where its record is.
    pub(crate) fn positions(&self) -> Positions {
        self.decided.position.into()
    }
}

impl Door {
    pub(crate) fn new(node: Node<Shop>, draining: CancellationToken) -> Self {
        let fingerprints = Fingerprints::new(&node.genesis().fingerprint_key);
        Self { node, fingerprints, draining }
    }

    pub(crate) fn node(&self) -> &Node<Shop> {
        &self.node
    }

    /// Asks the owner. A body that is not valid asks only whether its key is known: that is told first.
    pub(crate) async fn ask(&self, asked: Asked) -> Result<Accepted, Problem> {
        let Asked { request, verb, resource, command } = asked;
        let (came, came_at) = (Instant::now(), self.node.clock().now());
        let CommandRequest { id, precondition, wait, provenance, body, parameters: mut faults } = request;
        let command = match command {
            Ok(command) => faults.is_empty().then_some(command),
            Err(of_body) => {
                faults.extend(of_body);
                None
            }
        };
        let fingerprint = self.fingerprints.of(verb, body.root());
        // Not needed while it waits.
        drop(body);
        let tenant = Tenant::default();
        let answer = self
            .node
            .submit(Envelope { id, tenant, resource, fingerprint, precondition, provenance, command })
            .await
            .map_err(Problem::no_answer)?;
        match answer {
            Answer::Decided(decided) if decided.outcome.is_accepted() => Ok(Accepted { decided, wait, came, came_at }),
            Answer::Decided(decided) => Err(refused(&decided)),
            Answer::Invalid(faults) => Err(Problem::invalid_fields(faults)),
            Answer::Unheard => Err(Problem::invalid_fields(faults)),
            Answer::Reused => Err(Problem::idempotency_key_reused()),
            Answer::Expired => Err(Problem::command_expired()),
        }
    }

    /// What follows from a command that is done, if it comes by `deadline`, and soon if the node drains: whoever waits is
    /// answered before the connection is closed.
    pub(crate) async fn by<T>(&self, deadline: tokio::time::Instant, what: impl Future<Output = T>) -> Option<T> {
        // What follows is the sagas' work, not this request's.
        chassis::gate::leave();
        let drained = async {
            self.draining.cancelled().await;
            tokio::time::sleep(DRAIN_WAIT).await;
        };
        tokio::select! {
            biased;
            what = what => Some(what),
            () = tokio::time::sleep_until(deadline) => None,
            () = drained => None,
        }
    }

    /// A stream as it stands; `None` where nobody wrote it.
    pub(crate) async fn current(&self, stream: StreamName) -> Result<Option<Arc<ShopState>>, Problem> {
        Ok(self.watch(stream).await?.current().map(|current: Current<ShopState>| current.state))
    }

    pub(crate) async fn watch(&self, stream: StreamName) -> Result<Watch<ShopState>, Problem> {
        self.node.watch(StreamId { tenant: Tenant::default(), name: stream }).await.map_err(Problem::no_answer)
    }
}

/// A recorded refusal as it is told.
fn refused(decided: &Decided<ShopState>) -> Problem {
    let name = decided.outcome.code.as_deref().unwrap_or_default();
    let code = match schemas::problem::code(name) {
        Some(code) => Code::new(code.name, code.status, code.title, code.page),
        None if name == codes::VERSION_MISMATCH.name => codes::VERSION_MISMATCH,
        // Recorded by a newer version under a code this one does not know.
        None => {
            tracing::error!(code = name, position = %decided.position, "a recorded refusal has a code without a page");
            return Problem::internal();
        }
    };
    let problem = Problem::recorded(code, &decided.outcome).positions(&decided.position.into());
    if decided.replayed {
        problem.header(chassis::headers::IDEMPOTENCY_REPLAYED, http::HeaderValue::from_static("true"))
    } else {
        problem
    }
}

/// Takes the gateway's second answers: they come through the same door as the first, under the same id, and so change
/// nothing more.
pub(super) fn hear_second_answers(node: &Node<Shop>, gateway: &Simulator) {
    let node = node.clone();
    gateway.on_second_answer(Arc::new(move |key, call, answer| {
        let node = node.clone();
        tokio::spawn(async move { hear_again(&node, key, call, answer).await });
    }));
}

async fn hear_again(node: &Node<Shop>, key: CommandId, call: GatewayCall, answer: GatewayAnswer) {
    let (GatewayCall::Authorize { payment_id, .. }
    | GatewayCall::Capture { payment_id, .. }
    | GatewayCall::Void { payment_id, .. }
    | GatewayCall::Refund { payment_id, .. }) = &call;
    let stream = PaymentId::stream(*payment_id);
    let id = StreamId { tenant: Tenant::default(), name: stream.clone() };
    let Some(payment) = node.watch(id).await.ok().and_then(|watch| watch.current()) else { return };
    let Some(payment) = payment.state.payment() else { return };
    let Some((id, command)) = recording(payment, key, answer) else { return };
    let envelope = Envelope {
        id,
        tenant: Tenant::default(),
        resource: stream,
        // The same as the runner's own: such an id always asks the same.
        fingerprint: Fingerprint(*id.0.as_bytes()),
        precondition: Precondition::None,
        provenance: Provenance::default(),
        command: Some(command),
    };
    if let Err(why) = node.submit(envelope).await {
        tracing::debug!(%why, payment.id = %payment_id, "a second answer was not taken");
    }
}

/// A problem of the shop, in its own words.
pub(super) fn shop_problem(code: ShopCode) -> Problem {
    Problem::new(Code::new(code.name, code.status, code.title, code.page), code.title)
}

/// An id in a path, in its usual form, any case.
pub(super) fn path_uuid(text: &str) -> Option<Uuid> {
    parse_uuid(text.as_bytes())
}
