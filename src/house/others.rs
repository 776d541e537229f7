//! The other nodes of a log: where this one takes commands from them, how it hands theirs over, and which partitions it
//! should lead. A node that is alone leads everything and knows nobody.

use std::sync::Arc;
use std::time::Duration;

use domain::Shop;
use engine::position::Partition;
use engine::record::Genesis;
use engine_runtime::node::Node;
use engine_runtime::peers::{Alone, Peers};
use engine_runtime::remote::{GrpcPeers, RemoteOptions, Serving, serve};
use engine_runtime::wanted::{self, Wanted};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Plan;
use crate::failure::Failure;

/// How long what other nodes have handed over may take once this one ends. Its shards have settled by then.
const DRAIN_WAIT: Duration = Duration::from_secs(1);
/// How long leaving the group may hold up the end: the brokers notice by themselves.
#[cfg(feature = "kafka")]
const LEAVE_WAIT: Duration = Duration::from_secs(2);

/// How other nodes are met.
pub(crate) struct OthersPlan {
    /// Where they hand commands over.
    pub(crate) listener: TcpListener,
    /// What says which partitions are this node's to lead.
    pub(crate) hint: Hint,
    /// Commands under way to one other node.
    pub(crate) in_flight_max: usize,
}

/// What says which partitions a node should lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hint {
    /// Nothing: it is not to lead.
    Nothing,
    /// The configuration.
    Only(Vec<u16>),
    /// The consumer group of those who lead.
    Group,
}

/// The other nodes, met.
pub(super) struct Others {
    listener: Option<TcpListener>,
    stop: CancellationToken,
    serving: Option<Serving>,
    #[cfg(feature = "kafka")]
    group: Option<engine_kafka::KafkaGroup>,
}

/// Learns what this node should lead and how others are reached.
pub(super) async fn meet(
    plan: &mut Plan,
    genesis: &Genesis,
    decider: &Arc<Shop>,
) -> Result<(Option<Others>, Wanted, Arc<dyn Peers<Shop>>), Failure> {
    let Some(OthersPlan { listener, hint, in_flight_max }) = plan.others.take() else {
        return Ok((None, wanted::all(genesis.partitions), Arc::new(Alone)));
    };
    let options = RemoteOptions { in_flight_max, ..RemoteOptions::default() };
    let peers = GrpcPeers::new(genesis.log, decider.as_ref(), options);
    let mut others = Others {
        listener: Some(listener),
        stop: CancellationToken::new(),
        serving: None,
        #[cfg(feature = "kafka")]
        group: None,
    };
    let wanted = match hint {
        Hint::Nothing => wanted::nothing(),
        Hint::Only(partitions) => {
            if let Some(beyond) = partitions.iter().find(|number| **number >= genesis.partitions) {
                let most = genesis.partitions - 1;
                return Err(Failure::plain(format!(
                    "ownership.partitions names partition {beyond}; this log's last is {most}"
                )));
            }
            wanted::only(partitions.into_iter().map(Partition))
        }
        Hint::Group => others.join(plan, genesis.partitions).await?,
    };
    Ok((Some(others), wanted, Arc::new(peers)))
}

impl Others {
    #[cfg(feature = "kafka")]
    async fn join(&mut self, plan: &Plan, partitions: u16) -> Result<Wanted, Failure> {
        let super::log::LogPlan::Kafka(options) = &plan.log else {
            return Err(Failure::plain("only a log on Kafka has a group of owners"));
        };
        let options = options.clone();
        let group = super::log::blocking(move || super::kafka::join(&options, partitions)).await?;
        let hint = group.hint();
        self.group = Some(group);
        Ok(hint)
    }

    #[cfg(not(feature = "kafka"))]
    async fn join(&mut self, _plan: &Plan, _partitions: u16) -> Result<Wanted, Failure> {
        Err(Failure::plain("this build has no Kafka, so no group of owners"))
    }

    /// Takes commands from others from now on.
    pub(super) fn take_in(mut self, node: &Node<Shop>) -> Result<Self, Failure> {
        if let Some(listener) = self.listener.take() {
            let options = RemoteOptions { drain_wait: DRAIN_WAIT, ..RemoteOptions::default() };
            let serving = serve(listener, Arc::new(node.clone()), options, self.stop.clone());
            self.serving = Some(serving.map_err(|fault| Failure::of("cannot take commands from other nodes", &fault))?);
        }
        Ok(self)
    }

    /// Takes nothing more from them, and lets them have the partitions.
    pub(super) async fn leave(self) {
        self.stop.cancel();
        #[cfg(feature = "kafka")]
        if let Some(group) = self.group {
            let leaving = tokio::task::spawn_blocking(move || group.leave());
            if tokio::time::timeout(LEAVE_WAIT, leaving).await.is_err() {
                tracing::warn!("the owners' group was not left in time; the brokers will notice");
            }
        }
        if let Some(serving) = self.serving {
            serving.ended().await;
        }
    }
}
