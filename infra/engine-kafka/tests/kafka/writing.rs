//! Two nodes on one topic: what each appends both see at the same offsets, and the accept fold keeps them apart.

use engine::fold::Verdict;
use engine::log::Log;
use engine::position::{Checkpoint, Epoch, Nonce, Offset, Seq};
use engine::record::{Body, Claim, Header, Kind, Record};
use engine::time::Timestamp;
use engine_kafka::KafkaOptions;

use crate::support::{PATIENCE, Writer, all, fresh_name, genesis, needs_kafka, open, options};

fn claim(epoch: u64, nonce: u64) -> Vec<u8> {
    let header = Header { kind: Kind::Claim, epoch: Epoch(epoch), nonce: Nonce(nonce), seq: Seq(0) };
    let claim = Claim { node: "n".into(), address: "a".into(), claimed_at: Timestamp(1) };
    Record::new(header, Body::Claim(claim)).encode().to_vec()
}

fn barrier(epoch: u64, nonce: u64, seq: u64) -> Vec<u8> {
    let header = Header { kind: Kind::Barrier, epoch: Epoch(epoch), nonce: Nonce(nonce), seq: Seq(seq) };
    Record::new(header, Body::Barrier).encode().to_vec()
}

fn verdicts(log: &dyn Log) -> Vec<Verdict> {
    let mut checkpoint = Checkpoint::default();
    let headers = all(log, 0).into_iter().map(|bytes| Header::decode(&bytes).expect("a header"));
    headers.map(|header| checkpoint.accept(&header)).collect()
}

#[test]
fn a_writer_that_lost_its_term_writes_in_vain() {
    needs_kafka!();
    let (here, there) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let near = options(&fresh_name(), here.path());
    let far = KafkaOptions { directory: there.path().to_owned(), ..near.clone() };
    let (near, far) = (open(&near, Some(&genesis(1))), open(&far, None));
    let (mut old, mut new) = (Writer::new(&near, 0), Writer::new(&far, 0));
    assert_eq!(old.append_many(1, |_| claim(1, 7)), [Offset(1)]);
    assert_eq!(old.append_many(2, |seq| barrier(1, 7, seq as u64 + 1)), [Offset(2), Offset(3)]);
    assert_eq!(new.append_many(1, |_| claim(2, 8)), [Offset(4)]);
    // The old one does not know yet. Its offset has a gap before it: that is how it finds out.
    assert_eq!(old.append_many(1, |_| barrier(1, 7, 3)), [Offset(5)]);
    assert_eq!(new.append_many(1, |_| barrier(2, 8, 1)), [Offset(6)]);
    near.caught_up(PATIENCE).expect("it follows");
    far.caught_up(PATIENCE).expect("it follows");
    let expected: Vec<_> =
        (0..7).map(|offset| if offset == 5 { Verdict::Ignored } else { Verdict::Effective }).collect();
    assert_eq!(verdicts(&near), expected);
    assert_eq!(verdicts(&far), expected);
}

#[test]
fn reported_offsets_of_one_writer_are_contiguous() {
    needs_kafka!();
    let directory = tempfile::tempdir().expect("a directory");
    let log = open(&options(&fresh_name(), directory.path()), Some(&genesis(2)));
    let mut writers = [Writer::new(&log, 0), Writer::new(&log, 1)];
    let mut next = 1;
    for round in 1..=20 {
        for writer in &mut writers {
            let offsets = writer.append_many(50 * round, |number| format!("{round}/{number}").into_bytes());
            assert!(offsets.iter().zip(next..).all(|(offset, expected)| offset.0 == expected), "round {round}");
        }
        next += 50 * round as u64;
    }
}
