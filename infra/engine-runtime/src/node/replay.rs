//! Answering a repeat from the record that answered the first time, to the letter.

use std::sync::Arc;

use engine::message::{Answer, CommandId, Decided, Fingerprint, NoAnswer};
use engine::position::{Offset, Partition, Position, Version};
use engine::record::Commit;
use engine::saga::Reactor;
use engine::stream::{StreamId, StreamName, Tenant};
use tracing::error;

use super::shared::{Shared, blocking, no_answer};

/// Which record answers.
pub(crate) enum Which {
    /// The one at this offset.
    At(Offset),
    /// The one that holds this version of this stream.
    Version(StreamId, Version),
}

/// The answer of the record, if it is the answer to this command.
pub(crate) async fn replay<R: Reactor>(
    shared: &Arc<Shared<R>>,
    partition: Partition,
    id: CommandId,
    which: Which,
    fingerprint: Fingerprint,
) -> Result<Answer<R::State>, NoAnswer> {
    let offset = match which {
        Which::At(offset) => offset,
        Which::Version(stream, version) => offset_of(shared, partition, stream, version).await?,
    };
    let position = Position { partition, offset };
    let commit = shared.history.record_at(position).await.map_err(|fault| damaged(position, &fault))?;
    if commit.command_id != id {
        error!(fault.code = "log-damaged", position = %position, "the record remembered for command {id} is another's");
        return Err(NoAnswer::LogDamaged);
    }
    if commit.fingerprint != fingerprint {
        return Ok(Answer::Reused);
    }
    let says_all = !commit.outcome.is_accepted() || commit.outcome.answer.is_some();
    let state = if says_all || commit.resource_version == Version(0) {
        None
    } else {
        Some(state_at(shared, position, &commit.tenant, &commit.resource, commit.resource_version).await?)
    };
    let Commit { outcome, recorded_at, resource_version, .. } = commit;
    Ok(Answer::Decided(Decided { outcome, position, recorded_at, version: resource_version, state, replayed: true }))
}

async fn offset_of<R: Reactor>(
    shared: &Arc<Shared<R>>,
    partition: Partition,
    stream: StreamId,
    version: Version,
) -> Result<Offset, NoAnswer> {
    // The record may be effective and not yet saved.
    shared.saver.flush().await.map_err(|fault| no_answer(&fault))?;
    let looking = shared.clone();
    let name = stream.name.clone();
    let found = blocking(move || looking.store.offset_of(&stream.tenant, &stream.name, version)).await;
    match found {
        Ok(Some(offset)) => Ok(offset),
        Ok(None) => {
            error!(
                fault.code = "log-damaged",
                partition = partition.0,
                "no record is known for version {version} of {name}"
            );
            Err(NoAnswer::LogDamaged)
        }
        Err(fault) => {
            error!(fault.code = "state-store-unreadable", error = %crate::chain(&fault), "cannot find a record");
            Err(NoAnswer::LogDamaged)
        }
    }
}

/// The stream's state at `version`, which is reflected by the state store or by the shard here.
pub(crate) async fn state_at<R: Reactor>(
    shared: &Arc<Shared<R>>,
    position: Position,
    tenant: &Tenant,
    name: &StreamName,
    version: Version,
) -> Result<Arc<R::State>, NoAnswer> {
    // Most repeats come soon: the stream often stands where it stood.
    let stream = StreamId { tenant: tenant.clone(), name: name.clone() };
    let now = shared.current(&stream).await.map_err(|fault| match no_answer(&fault) {
        NoAnswer::LogDamaged => damaged(position, &fault),
        no => no,
    })?;
    if let Some(current) = now
        && current.version == version
    {
        return Ok(current.state);
    }
    shared.saver.flush().await.map_err(|fault| no_answer(&fault))?;
    match shared.history.state_at(tenant, name, version).await {
        Ok(Some(state)) => Ok(state),
        Ok(None) => {
            error!(fault.code = "log-damaged", position = %position, "{name} never had version {version}");
            Err(NoAnswer::LogDamaged)
        }
        Err(fault) => Err(damaged(position, &fault)),
    }
}

fn damaged(position: Position, fault: &dyn std::error::Error) -> NoAnswer {
    error!(fault.code = "log-damaged", position = %position, error = %crate::chain(fault), "cannot answer a repeat");
    NoAnswer::LogDamaged
}
