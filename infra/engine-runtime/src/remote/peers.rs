//! The asking side: hands a command to its owner and says what came of that, as exactly as it can be known.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use engine::decider::Decider;
use engine::message::{Answer, CommandId, Envelope, NoAnswer, Portable};
use engine::position::{LogId, Partition};
use engine::stream::Tenant;
use futures::FutureExt;
use futures::future::BoxFuture;
use metrics::{Gauge, counter, gauge, histogram};
use parking_lot::Mutex;
use prost::Message;
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Request, Response, Status};
use tracing::{debug, error, warn};

use super::convert::{self, Replied, Unreadable};
use super::link::{Links, Wire, WireFault};
use super::proto::shards_client::ShardsClient;
use super::proto::{self, refusal};
use super::{REPLY_BYTES_MAX, REQUEST_BYTES_MAX, RemoteOptions, name};
use crate::node::KnownCommand;
use crate::peers::{Owner, Peers};

/// A request that was never sent is sent again over a new connection, once.
const TRIES_MAX: usize = 2;
/// How often refusals are told at length.
const WARN_EVERY: Duration = Duration::from_secs(5);

/// Other nodes, reached over gRPC: one connection each, opened when first needed.
pub struct GrpcPeers<D> {
    asker: Arc<Asker>,
    terms: proto::Terms,
    business: PhantomData<fn() -> D>,
}

struct Asker {
    links: Links,
    in_flight: Gauge,
    /// When a refusal was last told at length.
    warned: Mutex<Option<Instant>>,
}

impl<D: Decider<Command: Portable>> GrpcPeers<D> {
    /// For commands of this log and this business.
    pub fn new(log: LogId, decider: &D, options: RemoteOptions) -> Self {
        metrics::describe_counter!("docket_forwarded_total", "Requests to other nodes, by node and outcome");
        metrics::describe_histogram!(
            "docket_forward_seconds",
            metrics::Unit::Seconds,
            "From a request to another node to its answer"
        );
        metrics::describe_gauge!("docket_forwards_in_flight", "Requests under way to other nodes");
        let in_flight = gauge!("docket_forwards_in_flight");
        let asker = Arc::new(Asker { links: Links::new(options), in_flight, warned: Mutex::new(None) });
        Self { asker, terms: convert::terms::<D::Command>(log, decider.version()), business: PhantomData }
    }
}

impl<D: Decider<Command: Portable>> Peers<D> for GrpcPeers<D> {
    fn submit(
        &self,
        owner: &Owner,
        partition: Partition,
        envelope: Envelope<D::Command>,
        within: Duration,
    ) -> BoxFuture<'static, Result<Answer<D::State>, NoAnswer>> {
        let (asker, owner, terms) = (self.asker.clone(), owner.clone(), self.terms.clone());
        async move {
            let id = envelope.id;
            let request = convert::submit_request(terms, partition, envelope).map_err(|wrong| {
                error!(fault.code = "command-unsendable", command.id = %id, error = wrong, "cannot send command {id}");
                NoAnswer::Unreachable
            })?;
            let submit: Call<_, _> = |mut client, request| async move { client.submit(request).await }.boxed();
            asker.ask(&owner, id, request, within, submit, convert::answer).await
        }
        .boxed()
    }

    fn inquire(
        &self,
        owner: &Owner,
        partition: Partition,
        tenant: Tenant,
        id: CommandId,
        within: Duration,
    ) -> BoxFuture<'static, Result<Vec<KnownCommand>, NoAnswer>> {
        let (asker, owner) = (self.asker.clone(), owner.clone());
        let request = proto::InquireRequest {
            terms: Some(self.terms.clone()),
            partition: u32::from(partition.0),
            tenant: tenant.as_str().to_owned(),
            command_id: convert::bytes_of(id.0),
        };
        async move {
            let inquire: Call<_, _> = |mut client, request| async move { client.inquire(request).await }.boxed();
            asker.ask(&owner, id, request, within, inquire, convert::known).await
        }
        .boxed()
    }
}

type Call<Q, R> = fn(ShardsClient<Wire>, Request<Q>) -> BoxFuture<'static, Result<Response<R>, Status>>;

impl Asker {
    /// Asks, reads the reply and counts.
    async fn ask<Q: Message + Clone, R, T>(
        &self,
        owner: &Owner,
        id: CommandId,
        request: Q,
        within: Duration,
        call: Call<Q, R>,
        read: fn(R) -> Result<Replied<T>, Unreadable>,
    ) -> Result<T, NoAnswer> {
        let asked = Instant::now();
        let replied = match self.exchange(owner, request, asked + within, call).await {
            Ok(reply) => read(reply).unwrap_or_else(|wrong| {
                error!(
                    fault.code = "reply-unreadable", command.id = %id, peer.name = %owner.node, error = wrong,
                    "cannot read what {} answered to command {id}", owner.node
                );
                Replied::NoAnswer(NoAnswer::Unconfirmed)
            }),
            Err(no_answer) => Replied::NoAnswer(no_answer),
        };
        let (outcome, answer) = match replied {
            Replied::Answer(answer) => ("answered", Ok(answer)),
            Replied::NoAnswer(no_answer) => (name(no_answer), Err(no_answer)),
            Replied::Refused(refusal) => {
                let outcome = match refusal.reason() {
                    refusal::Reason::ForeignLog => "refused-foreign-log",
                    refusal::Reason::Unsupported => "refused-unsupported",
                    refusal::Reason::Malformed => "refused-malformed",
                    refusal::Reason::Unspecified => "refused",
                };
                if self.may_warn() {
                    warn!(
                        fault.code = "forward-refused", command.id = %id, peer.name = %owner.node,
                        error = refusal.detail, "{} would not decide command {id}", owner.node
                    );
                }
                (outcome, Err(NoAnswer::NotOwner))
            }
        };
        counter!("docket_forwarded_total", "peer" => owner.node.to_string(), "outcome" => outcome).increment(1);
        histogram!("docket_forward_seconds", "peer" => owner.node.to_string()).record(asked.elapsed());
        answer
    }

    /// Whether a refusal is told at length: all of them have one cause, and the counter has each.
    fn may_warn(&self) -> bool {
        let mut warned = self.warned.lock();
        let may = warned.is_none_or(|last| last.elapsed() >= WARN_EVERY);
        if may {
            *warned = Some(Instant::now());
        }
        may
    }

    /// One request and its reply. `Unreachable` and `Overloaded` only where nothing was sent.
    async fn exchange<Q: Message + Clone, R>(
        &self,
        owner: &Owner,
        request: Q,
        deadline: Instant,
        call: Call<Q, R>,
    ) -> Result<R, NoAnswer> {
        let node = &owner.node;
        if request.encoded_len() > REQUEST_BYTES_MAX {
            error!(fault.code = "command-unsendable", peer.name = %node, "a command is too large to be sent to {node}");
            return Err(NoAnswer::Unreachable);
        }
        let link = self.links.to(&owner.address);
        let Ok(_slot) = link.slots.clone().try_acquire_owned() else { return Err(NoAnswer::Overloaded) };
        let _under_way = UnderWay::new(&self.in_flight);
        for _ in 0..TRIES_MAX {
            let opened = timeout_at(deadline, async { Ok((link.wire().await?, link.origin()?)) });
            let (wire, origin) = match opened.await {
                Ok(Ok(opened)) => opened,
                Ok(Err::<_, super::link::Unreached>(fault)) => {
                    debug!(peer.name = %node, peer.address = %owner.address, error = %fault, "cannot reach {node}");
                    return Err(NoAnswer::Unreachable);
                }
                Err(_) => return Err(NoAnswer::Unreachable),
            };
            let now = Instant::now();
            if deadline <= now {
                return Err(NoAnswer::TimedOut);
            }
            let mut asking = Request::new(request.clone());
            asking.set_timeout(deadline - now);
            let client = ShardsClient::with_origin(wire, origin).max_decoding_message_size(REPLY_BYTES_MAX);
            let status = match timeout_at(deadline, call(client, asking)).await {
                Ok(Ok(reply)) => return Ok(reply.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => return Err(NoAnswer::TimedOut),
            };
            if !was_never_sent(&status) {
                debug!(peer.name = %node, error = %crate::chain(&status), "no reply from {node}");
                return Err(judged(&status));
            }
        }
        Err(NoAnswer::Unreachable)
    }
}

/// Counts a request for as long as it is under way, however it ends.
struct UnderWay<'a>(&'a Gauge);

impl<'a> UnderWay<'a> {
    fn new(gauge: &'a Gauge) -> Self {
        gauge.increment(1);
        Self(gauge)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

fn was_never_sent(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(fault) = source {
        if let Some(fault) = fault.downcast_ref::<WireFault>() {
            return matches!(fault, WireFault::NeverSent(_));
        }
        source = fault.source();
    }
    false
}

/// What a call that ended without a reply comes to. The statuses are made on both sides and by whatever stands between,
/// so only what cannot have been decided is told apart.
fn judged(status: &Status) -> NoAnswer {
    match status.code() {
        // The other side's own clock ran out.
        Code::Cancelled | Code::DeadlineExceeded => NoAnswer::TimedOut,
        // Whoever is there does not speak this protocol at all.
        Code::Unimplemented => NoAnswer::Unreachable,
        _ => NoAnswer::Unconfirmed,
    }
}
