//! How a node and its partitions stand, for those who look: readiness, the console, tests.

use engine::position::Epoch;

use crate::peers::Owner;

/// How one partition stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartitionStatus {
    /// Being folded and claimed: commands wait.
    Claiming,
    /// Commands are decided.
    Leading(Epoch),
    /// Not to be led here: led by this node, to which commands are forwarded, or by nobody that the log knows of.
    Following(Option<Owner>),
    /// To be led here, but this node took it: commands are forwarded to it, and it is claimed again soon.
    Contested(Owner),
    /// There is no room: for the log, or on this node's disk for what follows from it. Tried again every second.
    Full,
    /// The log's writer has stopped for good.
    Stopped,
    /// Log, state or shard are wrong; why. Stays so until a person looks.
    Damaged(String),
    /// Given back: this node is shutting down.
    Released,
}

/// How a node stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// Whether it is shutting down.
    pub draining: bool,
    /// Each partition, by number.
    pub partitions: Vec<PartitionStatus>,
}

impl NodeStatus {
    /// Why commands are not all taken; `None` if they are: every partition is led by somebody known, and those that this
    /// node should lead by this node.
    pub fn unready(&self) -> Option<String> {
        if self.draining {
            return Some("shutting down".to_owned());
        }
        let is_led = |status: &PartitionStatus| {
            matches!(status, PartitionStatus::Leading(_) | PartitionStatus::Following(Some(_)))
        };
        let (partition, status) = self.partitions.iter().enumerate().find(|(_, status)| !is_led(status))?;
        Some(match status {
            PartitionStatus::Leading(_) | PartitionStatus::Following(Some(_)) => return None,
            PartitionStatus::Following(None) => format!("partition {partition} is led by nobody"),
            PartitionStatus::Contested(owner) => format!("partition {partition} was taken by {}", owner.node),
            PartitionStatus::Claiming => format!("partition {partition} is being claimed"),
            PartitionStatus::Full => format!("there is no room for partition {partition}: the log or the disk is full"),
            PartitionStatus::Stopped => "the log has stopped".to_owned(),
            PartitionStatus::Damaged(why) => format!("partition {partition} is damaged: {why}"),
            PartitionStatus::Released => format!("partition {partition} is given back"),
        })
    }
}
