//! The owner's side: takes commands from other nodes and puts them through this process' own door. Each runs in a task of
//! its own, so that a caller that hangs up cancels nothing half-way; one whose time has passed is not begun.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use engine::decider::Decider;
use engine::message::{CommandId, NoAnswer, Portable};
use engine::stream::Tenant;
use futures::FutureExt;
use futures::future::BoxFuture;
use metrics::counter;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tracing::{error, warn};

use super::convert::{self, Unreadable};
use super::proto::refusal::Reason;
use super::proto::shards_server::{Shards, ShardsServer};
use super::proto::{self, inquire_reply, submit_reply};
use super::{KEEP_ALIVE_EVERY, KEEP_ALIVE_WAIT, LocalDoor, REPLY_BYTES_MAX, REQUEST_BYTES_MAX, RemoteOptions, name};

/// Bytes of one request, and of all requests on a connection, that may be on their way before they are read.
const WINDOW_BYTES: (u32, u32) = (1 << 20, 4 << 20);
/// Streams a peer may have open on one connection: twice what one asks for at once, so that the peer's own bound counts.
const STREAMS_PER_CONNECTION_MAX: u32 = 2_048;

/// A server that runs until it is told to end.
pub struct Serving {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Serving {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until it has ended: after `shutdown` was cancelled, what was taken is answered first, within
    /// [`RemoteOptions::drain_wait`].
    pub async fn ended(self) {
        // A panic is told by the panic hook.
        let _ = self.task.await;
    }
}

/// Takes other nodes' requests on `listener` until `shutdown` is cancelled.
///
/// # Errors
/// If the listener does not know its own address.
pub fn serve<D: Decider<Command: Portable>>(
    listener: TcpListener,
    door: Arc<dyn LocalDoor<D>>,
    options: RemoteOptions,
    shutdown: CancellationToken,
) -> io::Result<Serving> {
    metrics::describe_counter!("docket_forwarded_taken_total", "Requests from other nodes, by outcome");
    let address = listener.local_addr()?;
    let slots = Arc::new(Semaphore::new(options.taken_in_flight_max));
    let service = ShardsServer::new(Reception { door, slots, wait_max: options.wait_max })
        .max_decoding_message_size(REQUEST_BYTES_MAX)
        .max_encoding_message_size(REPLY_BYTES_MAX);
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE_EVERY))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_WAIT))
        .initial_stream_window_size(WINDOW_BYTES.0)
        .initial_connection_window_size(WINDOW_BYTES.1)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let task = tokio::spawn(async move {
        let told = shutdown.clone();
        let serving = server.serve_with_incoming_shutdown(service, incoming, shutdown.cancelled_owned());
        let too_late = async {
            told.cancelled().await;
            tokio::time::sleep(options.drain_wait).await;
        };
        tokio::select! {
            ended = serving => if let Err(fault) = ended {
                error!(fault.code = "forwarding-stopped", error = %crate::chain(&fault), "no longer taking commands from other nodes");
            },
            () = too_late => warn!("ended with requests of other nodes under way"),
        }
    });
    Ok(Serving { address, task })
}

struct Reception<D: Decider> {
    door: Arc<dyn LocalDoor<D>>,
    slots: Arc<Semaphore>,
    wait_max: Duration,
}

#[tonic::async_trait]
impl<D: Decider<Command: Portable>> Shards for Reception<D> {
    async fn submit(&self, request: Request<proto::SubmitRequest>) -> Result<Response<proto::SubmitReply>, Status> {
        let taken = self.take(request, |door, request, deadline| submit(door, request, deadline).boxed());
        let reply = taken.await.unwrap_or_else(|no_answer| convert::submit_reply::<D>(Err(no_answer), false));
        count(match &reply.result {
            Some(submit_reply::Result::NoAnswer(number)) => name(convert::no_answer(*number)),
            Some(submit_reply::Result::Refusal(_)) => "refused",
            _ => "answered",
        });
        Ok(Response::new(reply))
    }

    async fn inquire(&self, request: Request<proto::InquireRequest>) -> Result<Response<proto::InquireReply>, Status> {
        let taken = self.take(request, |door, request, deadline| inquire(door, request, deadline).boxed());
        let reply = taken.await.unwrap_or_else(|no_answer| convert::inquire_reply(Err(no_answer)));
        count(match &reply.result {
            Some(inquire_reply::Result::NoAnswer(number)) => name(convert::no_answer(*number)),
            Some(inquire_reply::Result::Refusal(_)) => "refused",
            _ => "answered",
        });
        Ok(Response::new(reply))
    }
}

impl<D: Decider> Reception<D> {
    /// Runs a request to its end in a task of its own, whether or not anybody still waits for it.
    async fn take<Q: Send + 'static, R: Send + 'static>(
        &self,
        request: Request<Q>,
        run: fn(Arc<dyn LocalDoor<D>>, Q, Instant) -> BoxFuture<'static, R>,
    ) -> Result<R, NoAnswer> {
        let wait = asked_wait(request.metadata()).map_or(self.wait_max, |asked| asked.min(self.wait_max));
        let deadline = Instant::now() + wait;
        let slot = self.slots.clone().try_acquire_owned().map_err(|_| NoAnswer::Overloaded)?;
        let running = run(self.door.clone(), request.into_inner(), deadline);
        let task = tokio::spawn(async move {
            let reply = running.await;
            drop(slot);
            reply
        });
        // It panicked, or the runtime ends: nobody knows how far it came.
        task.await.map_err(|_| NoAnswer::Unconfirmed)
    }
}

async fn submit<D: Decider<Command: Portable>>(
    door: Arc<dyn LocalDoor<D>>,
    request: proto::SubmitRequest,
    deadline: Instant,
) -> proto::SubmitReply {
    let (partition, terms) = (request.partition, request.terms.clone());
    // A node of another version reads other states. It is told all the rest, and folds the state itself.
    let reads_states = terms.as_ref().is_some_and(|terms| terms.decider_version == door.decider_version());
    let envelope = agreed(&*door, terms).and_then(|()| {
        let envelope = convert::envelope::<D::Command>(request).map_err(malformed)?;
        // Both sides must place alike, or the command would be decided where nobody looks for it.
        let placed = door.partition_of(&envelope.tenant, &envelope.resource);
        if u32::from(placed.0) != partition {
            let detail = format!("{} is in partition {placed} here, not {partition}", envelope.resource.category());
            return Err(convert::refusal(Reason::ForeignLog, detail));
        }
        Ok(envelope)
    });
    let envelope = match envelope {
        Ok(envelope) => envelope,
        Err(refusal) => return proto::SubmitReply { result: Some(submit_reply::Result::Refusal(refusal)) },
    };
    // As late as can be: what its sender no longer waits for is not begun.
    let left = deadline.saturating_duration_since(Instant::now());
    let answer = match left {
        Duration::ZERO => Err(NoAnswer::TimedOut),
        left => door.submit_here(envelope, left).await,
    };
    convert::submit_reply::<D>(answer, reads_states)
}

async fn inquire<D: Decider<Command: Portable>>(
    door: Arc<dyn LocalDoor<D>>,
    request: proto::InquireRequest,
    deadline: Instant,
) -> proto::InquireReply {
    let asked = agreed(&*door, request.terms).and_then(|()| {
        let partition = convert::partition(request.partition).map_err(malformed)?;
        let tenant = Tenant::new(&request.tenant).map_err(|_| malformed("no tenant's name".to_owned()))?;
        let id = CommandId(convert::uuid(&request.command_id).map_err(malformed)?);
        Ok((partition, tenant, id))
    });
    let (partition, tenant, id) = match asked {
        Ok(asked) => asked,
        Err(refusal) => return proto::InquireReply { result: Some(inquire_reply::Result::Refusal(refusal)) },
    };
    let left = deadline.saturating_duration_since(Instant::now());
    convert::inquire_reply(match left {
        Duration::ZERO => Err(NoAnswer::TimedOut),
        left => door.inquire_here(partition, tenant, id, left).await,
    })
}

/// Whether the two sides understand each other.
fn agreed<D: Decider<Command: Portable>>(
    door: &dyn LocalDoor<D>,
    theirs: Option<proto::Terms>,
) -> Result<(), proto::Refusal> {
    let ours = convert::terms::<D::Command>(door.log_id(), door.decider_version());
    let theirs = theirs.ok_or_else(|| malformed("no terms".to_owned()))?;
    if theirs.log_id != ours.log_id {
        return Err(convert::refusal(Reason::ForeignLog, format!("this node is of log {}", door.log_id())));
    }
    // Older formats are read too; 0 is none.
    if theirs.format == 0 || theirs.format > ours.format {
        let detail = format!("command format {}, but this node has {}", theirs.format, ours.format);
        return Err(convert::refusal(Reason::Unsupported, detail));
    }
    Ok(())
}

fn malformed(wrong: Unreadable) -> proto::Refusal {
    convert::refusal(Reason::Malformed, wrong)
}

fn count(outcome: &'static str) {
    counter!("docket_forwarded_taken_total", "outcome" => outcome).increment(1);
}

/// What `grpc-timeout` says: up to eight digits and a unit. `None` if it says nothing that can be read.
fn asked_wait(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let count = digits.parse::<u64>().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3_600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(text: &str) -> Option<Duration> {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", text.parse().expect("visible ASCII"));
        asked_wait(&metadata)
    }

    #[test]
    fn a_deadline_is_read_in_all_its_units() {
        assert_eq!(wait("2H"), Some(Duration::from_secs(7_200)));
        assert_eq!(wait("3M"), Some(Duration::from_secs(180)));
        assert_eq!(wait("99999999S"), Some(Duration::from_secs(99_999_999)));
        assert_eq!(wait("0m"), Some(Duration::ZERO));
        assert_eq!(wait("1500u"), Some(Duration::from_micros(1_500)));
        assert_eq!(wait("7n"), Some(Duration::from_nanos(7)));
        for nothing in ["", "S", "5", "5s", "-5S", "123456789S", "5.5S"] {
            assert_eq!(wait(nothing), None, "{nothing}");
        }
    }
}
