//! What the engine says and how it travels, both ways. Reading a request can fail in words that name the cause and nothing
//! of the content; reading a reply that makes no sense leaves the outcome unknown.

use std::sync::Arc;

use bytes::Bytes;
use engine::decider::Decider;
use engine::message::{
    Answer, CommandId, Decided, Envelope, Fingerprint, NoAnswer, Portable, Precondition, Provenance,
};
use engine::position::{Epoch, LogId, Nonce, Offset, Partition, Position, Seq, Version};
use engine::record::{Body, Commit, Header, Kind, Record};
use engine::stream::{StreamName, Tenant};
use engine::time::Timestamp;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::proto::{self, inquire_reply, precondition, refusal, submit_reply};
use crate::node::KnownCommand;

/// What is wrong with a message, for the log.
pub(super) type Unreadable = String;

/// What both sides look at before one decides for the other, as one of them sees it.
pub(super) fn terms<C: Portable>(log: LogId, decider_version: u32) -> proto::Terms {
    proto::Terms { log_id: bytes_of(log.0), format: C::FORMAT, decider_version }
}

pub(super) fn submit_request<C: Portable>(
    mut terms: proto::Terms,
    partition: Partition,
    envelope: Envelope<C>,
) -> Result<proto::SubmitRequest, Unreadable> {
    // What has not changed since an older format is sent in that one. A question without a command is of the first.
    terms.format = envelope.command.as_ref().map_or(1, Portable::format);
    let command = envelope.command.map(|command| json(&command)).transpose()?;
    Ok(proto::SubmitRequest {
        terms: Some(terms),
        partition: u32::from(partition.0),
        command_id: bytes_of(envelope.id.0),
        tenant: envelope.tenant.as_str().to_owned(),
        resource: envelope.resource.as_str().to_owned(),
        fingerprint: Bytes::copy_from_slice(&envelope.fingerprint.0),
        precondition: demanded(envelope.precondition),
        provenance: Some(proto::Provenance {
            actor: text(envelope.provenance.actor.as_ref()),
            reason: text(envelope.provenance.reason.as_ref()),
            correlation_id: envelope.provenance.correlation_id.map(|id| bytes_of(id.0)),
            causation_id: envelope.provenance.causation_id.map(|id| bytes_of(id.0)),
            traceparent: text(envelope.provenance.traceparent.as_ref()),
        }),
        command,
    })
}

pub(super) fn envelope<C: Portable>(request: proto::SubmitRequest) -> Result<Envelope<C>, Unreadable> {
    let provenance = request.provenance.unwrap_or_default();
    let id = |bytes: Option<Bytes>| bytes.map(|bytes| uuid(&bytes).map(CommandId)).transpose();
    Ok(Envelope {
        id: CommandId(uuid(&request.command_id)?),
        tenant: Tenant::new(&request.tenant).map_err(|_| "no tenant's name".to_owned())?,
        resource: StreamName::new(&request.resource).map_err(|_| "no stream's name".to_owned())?,
        fingerprint: Fingerprint(sixteen(&request.fingerprint)?),
        precondition: precondition(request.precondition)?,
        provenance: Provenance {
            actor: provenance.actor.map(Arc::from),
            reason: provenance.reason.map(Arc::from),
            correlation_id: id(provenance.correlation_id)?,
            causation_id: id(provenance.causation_id)?,
            traceparent: provenance.traceparent.map(Arc::from),
        },
        command: request.command.map(|json| parsed(&json)).transpose()?,
    })
}

fn demanded(precondition: Precondition) -> Option<proto::Precondition> {
    let demand = match precondition {
        Precondition::None => return None,
        Precondition::Exists => precondition::Demand::Exists(true),
        Precondition::Absent => precondition::Demand::Absent(true),
        Precondition::AnyOf(versions) => {
            let version = versions.into_iter().map(|version| version.0).collect();
            precondition::Demand::AnyOf(proto::Versions { version })
        }
    };
    Some(proto::Precondition { demand: Some(demand) })
}

fn precondition(demanded: Option<proto::Precondition>) -> Result<Precondition, Unreadable> {
    let Some(demanded) = demanded else { return Ok(Precondition::None) };
    match demanded.demand {
        Some(precondition::Demand::Exists(true)) => Ok(Precondition::Exists),
        Some(precondition::Demand::Absent(true)) => Ok(Precondition::Absent),
        Some(precondition::Demand::AnyOf(versions)) => {
            Ok(Precondition::AnyOf(versions.version.into_iter().map(Version).collect()))
        }
        // A demand of a later version: to ignore it would be to decide what was not asked.
        Some(_) | None => Err("a precondition that is not known".to_owned()),
    }
}

/// `with_state`: whether the asker can read this program's states. One that cannot folds it itself.
pub(super) fn submit_reply<D: Decider>(
    answer: Result<Answer<D::State>, NoAnswer>,
    with_state: bool,
) -> proto::SubmitReply {
    use submit_reply::Result as To;
    let result = match answer {
        Ok(Answer::Decided(decided)) => match told(decided, with_state) {
            Ok(decided) => To::Decided(decided),
            Err(_) => To::NoAnswer(proto::NoAnswer::Unconfirmed.into()),
        },
        Ok(Answer::Invalid(errors)) => match json(&errors) {
            Ok(errors) => To::Invalid(errors),
            Err(_) => To::NoAnswer(proto::NoAnswer::Unconfirmed.into()),
        },
        Ok(Answer::Reused) => To::Reused(true),
        Ok(Answer::Expired) => To::Expired(true),
        Ok(Answer::Unheard) => To::Unheard(true),
        Err(no_answer) => To::NoAnswer(unanswered(no_answer).into()),
    };
    proto::SubmitReply { result: Some(result) }
}

fn told<S: serde::Serialize>(decided: Decided<S>, with_state: bool) -> Result<proto::Decided, Unreadable> {
    let state = decided.state.as_deref().filter(|_| with_state);
    Ok(proto::Decided {
        outcome: json(&decided.outcome)?,
        partition: u32::from(decided.position.partition.0),
        offset: decided.position.offset.0,
        recorded_at: decided.recorded_at.0,
        version: decided.version.0,
        state: state.map(json).transpose()?,
        replayed: decided.replayed,
    })
}

/// What an owner's reply comes to.
pub(super) enum Replied<T> {
    /// That.
    Answer(T),
    /// It gave no definite answer.
    NoAnswer(NoAnswer),
    /// It did not decide.
    Refused(proto::Refusal),
}

pub(super) fn answer<S: DeserializeOwned>(reply: proto::SubmitReply) -> Result<Replied<Answer<S>>, Unreadable> {
    use submit_reply::Result as From;
    Ok(Replied::Answer(match reply.result.ok_or("a result that is not known")? {
        From::Decided(decided) => Answer::Decided(Decided {
            outcome: parsed(&decided.outcome)?,
            position: position(decided.partition, decided.offset)?,
            recorded_at: Timestamp(decided.recorded_at),
            version: Version(decided.version),
            state: decided.state.map(|state| parsed(&state).map(Arc::new)).transpose()?,
            replayed: decided.replayed,
        }),
        From::Invalid(errors) => Answer::Invalid(parsed(&errors)?),
        From::Reused(_) => Answer::Reused,
        From::Expired(_) => Answer::Expired,
        From::Unheard(_) => Answer::Unheard,
        From::NoAnswer(number) => return Ok(Replied::NoAnswer(no_answer(number))),
        From::Refusal(refusal) => return Ok(Replied::Refused(refusal)),
    }))
}

pub(super) fn inquire_reply(known: Result<Vec<KnownCommand>, NoAnswer>) -> proto::InquireReply {
    let result = match known {
        Ok(known) => {
            let command = known.into_iter().map(known_out).collect();
            inquire_reply::Result::Known(proto::Known { command })
        }
        Err(no_answer) => inquire_reply::Result::NoAnswer(unanswered(no_answer).into()),
    };
    proto::InquireReply { result: Some(result) }
}

pub(super) fn known(reply: proto::InquireReply) -> Result<Replied<Vec<KnownCommand>>, Unreadable> {
    match reply.result.ok_or("a result that is not known")? {
        inquire_reply::Result::Known(known) => {
            known.command.into_iter().map(known_in).collect::<Result<_, _>>().map(Replied::Answer)
        }
        inquire_reply::Result::NoAnswer(number) => Ok(Replied::NoAnswer(no_answer(number))),
        inquire_reply::Result::Refusal(refusal) => Ok(Replied::Refused(refusal)),
    }
}

fn known_out(known: KnownCommand) -> proto::KnownCommand {
    // The record's own format keeps every member of a commit, in every version; of its header nothing is meant.
    let header = Header { kind: Kind::Commit, epoch: Epoch(1), nonce: Nonce(0), seq: Seq(1) };
    let record = known.commit.map(|(position, commit)| proto::KnownRecord {
        partition: u32::from(position.partition.0),
        offset: position.offset.0,
        commit: Record::new(header, Body::Commit(Box::new(Commit::clone(&commit)))).encode(),
    });
    proto::KnownCommand { resource: known.resource.as_str().to_owned(), record }
}

fn known_in(known: proto::KnownCommand) -> Result<KnownCommand, Unreadable> {
    let commit = known.record.map(|record| {
        let position = position(record.partition, record.offset)?;
        match Record::decode(&record.commit).map_err(|unreadable| unreadable.to_string())?.body {
            Body::Commit(commit) => Ok((position, Arc::from(commit))),
            _ => Err("a record that is no commit".to_owned()),
        }
    });
    let resource = StreamName::new(&known.resource).map_err(|_| "no stream's name".to_owned())?;
    Ok(KnownCommand { resource, commit: commit.transpose()? })
}

pub(super) fn refusal(reason: refusal::Reason, detail: String) -> proto::Refusal {
    proto::Refusal { reason: reason.into(), detail }
}

fn unanswered(no_answer: NoAnswer) -> proto::NoAnswer {
    match no_answer {
        NoAnswer::Overloaded => proto::NoAnswer::Overloaded,
        NoAnswer::NotOwner => proto::NoAnswer::NotOwner,
        NoAnswer::Unreachable => proto::NoAnswer::Unreachable,
        NoAnswer::Draining => proto::NoAnswer::Draining,
        NoAnswer::Unconfirmed => proto::NoAnswer::Unconfirmed,
        NoAnswer::LogFull => proto::NoAnswer::LogFull,
        NoAnswer::LogStopped => proto::NoAnswer::LogStopped,
        NoAnswer::LogDamaged => proto::NoAnswer::LogDamaged,
        NoAnswer::TimedOut => proto::NoAnswer::TimedOut,
    }
}

pub(super) fn no_answer(number: i32) -> NoAnswer {
    match proto::NoAnswer::try_from(number) {
        Ok(proto::NoAnswer::Overloaded) => NoAnswer::Overloaded,
        Ok(proto::NoAnswer::NotOwner) => NoAnswer::NotOwner,
        Ok(proto::NoAnswer::Unreachable) => NoAnswer::Unreachable,
        Ok(proto::NoAnswer::Draining) => NoAnswer::Draining,
        Ok(proto::NoAnswer::LogFull) => NoAnswer::LogFull,
        Ok(proto::NoAnswer::LogStopped) => NoAnswer::LogStopped,
        Ok(proto::NoAnswer::LogDamaged) => NoAnswer::LogDamaged,
        Ok(proto::NoAnswer::TimedOut) => NoAnswer::TimedOut,
        // One of a later version may mean anything.
        Ok(proto::NoAnswer::Unconfirmed | proto::NoAnswer::Unspecified) | Err(_) => NoAnswer::Unconfirmed,
    }
}

pub(super) fn partition(number: u32) -> Result<Partition, Unreadable> {
    u16::try_from(number).map(Partition).map_err(|_| "no partition's number".to_owned())
}

fn position(number: u32, offset: u64) -> Result<Position, Unreadable> {
    Ok(Position { partition: partition(number)?, offset: Offset(offset) })
}

pub(super) fn bytes_of(id: Uuid) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

pub(super) fn uuid(bytes: &[u8]) -> Result<Uuid, Unreadable> {
    sixteen(bytes).map(Uuid::from_bytes)
}

fn sixteen(bytes: &[u8]) -> Result<[u8; 16], Unreadable> {
    bytes.try_into().map_err(|_| format!("{} bytes where 16 belong", bytes.len()))
}

fn text(text: Option<&Arc<str>>) -> Option<String> {
    text.map(|text| text.as_ref().to_owned())
}

fn json<T: serde::Serialize>(value: &T) -> Result<Bytes, Unreadable> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|fault| fault.to_string())
}

/// Without the error's own words, which may cite the content: only its kind and place.
fn parsed<T: DeserializeOwned>(json: &[u8]) -> Result<T, Unreadable> {
    serde_json::from_slice(json).map_err(|fault| {
        let kind = if fault.is_data() { "JSON of a form that is not known" } else { "broken JSON" };
        format!("{kind} at column {}", fault.column())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_later_owner_answers_is_unknown() {
        assert!(answer::<()>(proto::SubmitReply { result: None }).is_err());
        assert!(known(proto::InquireReply { result: None }).is_err());
        assert_eq!(no_answer(0), NoAnswer::Unconfirmed);
        assert_eq!(no_answer(99), NoAnswer::Unconfirmed);
    }

    #[test]
    fn an_answer_that_cannot_be_read_is_unknown() {
        let decided = proto::Decided { outcome: Bytes::from_static(b"{\"status\":200}"), ..proto::Decided::default() };
        let replied =
            |decided| answer::<u32>(proto::SubmitReply { result: Some(submit_reply::Result::Decided(decided)) });
        assert!(replied(decided.clone()).is_ok());
        assert!(replied(proto::Decided { outcome: Bytes::new(), ..decided.clone() }).is_err());
        assert!(replied(proto::Decided { partition: 1 << 16, ..decided.clone() }).is_err());
        assert!(replied(proto::Decided { state: Some(Bytes::from_static(b"\"no number\"")), ..decided }).is_err());
        let record = proto::KnownRecord { commit: Bytes::from_static(b"no record"), ..proto::KnownRecord::default() };
        let command = proto::KnownCommand { resource: "note-1".to_owned(), record: Some(record) };
        let result = inquire_reply::Result::Known(proto::Known { command: vec![command] });
        assert!(known(proto::InquireReply { result: Some(result) }).is_err());
    }
}
