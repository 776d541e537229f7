//! The accept rule: what counts, for every reader and for ever, and what never will.

#![allow(clippy::unwrap_used, reason = "a test stops where it is surprised")]

use engine::fold::Verdict::{self, Effective, Ignored};
use engine::position::{Checkpoint, Epoch, Nonce, Offset, Seq};
use engine::record::{Header, Kind};
use proptest::collection::vec;
use proptest::prelude::*;

const GENESIS: Header = Header { kind: Kind::Genesis, epoch: Epoch(0), nonce: Nonce(0), seq: Seq(0) };

fn claim(epoch: u64, nonce: u64) -> Header {
    Header { kind: Kind::Claim, epoch: Epoch(epoch), nonce: Nonce(nonce), seq: Seq(0) }
}

fn says(kind: Kind) -> impl Fn(u64, u64, u64) -> Header {
    move |epoch, nonce, seq| Header { kind, epoch: Epoch(epoch), nonce: Nonce(nonce), seq: Seq(seq) }
}

fn commit(epoch: u64, nonce: u64, seq: u64) -> Header {
    says(Kind::Commit)(epoch, nonce, seq)
}

fn barrier(epoch: u64, nonce: u64, seq: u64) -> Header {
    says(Kind::Barrier)(epoch, nonce, seq)
}

fn release(epoch: u64, nonce: u64, seq: u64) -> Header {
    says(Kind::Release)(epoch, nonce, seq)
}

fn fold(headers: &[Header]) -> (Checkpoint, Vec<Verdict>) {
    let mut checkpoint = Checkpoint::default();
    let verdicts = headers.iter().map(|header| checkpoint.accept(header)).collect();
    (checkpoint, verdicts)
}

/// Asserts what becomes of each record after a genesis.
fn judged<const N: usize>(records: [(Header, Verdict); N]) {
    let headers = [GENESIS].into_iter().chain(records.map(|(header, _)| header)).collect::<Vec<_>>();
    let expected = [Effective].into_iter().chain(records.map(|(_, verdict)| verdict)).collect::<Vec<_>>();
    assert_eq!(fold(&headers).1, expected);
}

#[test]
fn a_term_counts_from_its_claim_to_its_release() {
    judged([
        (claim(1, 7), Effective),
        (commit(1, 7, 1), Effective),
        (barrier(1, 7, 2), Effective),
        (commit(1, 7, 3), Effective),
        (release(1, 7, 4), Effective),
        (claim(2, 8), Effective),
        (commit(2, 8, 1), Effective),
    ]);
}

#[test]
fn a_zombie_is_ignored() {
    judged([
        (claim(1, 7), Effective),
        (commit(1, 7, 1), Effective),
        (claim(2, 8), Effective),
        (commit(1, 7, 2), Ignored),
        (barrier(1, 7, 2), Ignored),
        (release(1, 7, 2), Ignored),
        (commit(2, 8, 1), Effective),
    ]);
}

#[test]
fn a_namesake_of_the_same_epoch_is_ignored() {
    judged([
        (claim(1, 7), Effective),
        (claim(1, 8), Ignored),
        (commit(1, 8, 1), Ignored),
        (commit(1, 7, 1), Effective),
        (commit(1, 8, 2), Ignored),
        (release(1, 8, 2), Ignored),
        (commit(1, 7, 2), Effective),
    ]);
}

#[test]
fn a_duplicate_is_ignored() {
    judged([
        (claim(1, 7), Effective),
        (claim(1, 7), Ignored),
        (commit(1, 7, 1), Effective),
        (commit(1, 7, 1), Ignored),
        (commit(1, 7, 2), Effective),
        (commit(1, 7, 1), Ignored),
    ]);
}

#[test]
fn what_comes_before_its_predecessor_is_ignored_where_it_lies() {
    judged([
        (claim(1, 7), Effective),
        (commit(1, 7, 2), Ignored),
        (commit(1, 7, 1), Effective),
        (commit(1, 7, 3), Ignored),
        // Sent again it counts: nothing has taken its place.
        (commit(1, 7, 2), Effective),
    ]);
}

#[test]
fn nothing_counts_after_a_release_until_somebody_claims() {
    judged([
        (claim(1, 7), Effective),
        (release(1, 7, 1), Effective),
        (commit(1, 7, 2), Ignored),
        (release(1, 7, 2), Ignored),
        (claim(1, 7), Ignored),
        (claim(2, 7), Effective),
        (commit(2, 7, 1), Effective),
    ]);
}

#[test]
fn a_claim_need_not_wait_for_a_release() {
    judged([(claim(1, 7), Effective), (claim(2, 8), Effective), (claim(3, 7), Effective)]);
}

#[test]
fn a_claim_that_skips_an_epoch_is_ignored() {
    judged([
        (claim(2, 7), Ignored),
        (claim(0, 7), Ignored),
        (claim(u64::MAX, 7), Ignored),
        (commit(2, 7, 1), Ignored),
        (claim(1, 7), Effective),
        (claim(3, 8), Ignored),
    ]);
}

#[test]
fn a_claim_begins_the_count_of_its_term() {
    judged([(says(Kind::Claim)(1, 7, 1), Ignored), (claim(1, 7), Effective), (commit(1, 7, 0), Ignored)]);
}

#[test]
fn nothing_counts_before_the_first_claim() {
    judged([(commit(0, 0, 0), Ignored), (barrier(0, 0, 0), Ignored), (release(0, 0, 1), Ignored)]);
}

#[test]
fn a_genesis_at_any_other_offset_is_ignored() {
    judged([(GENESIS, Ignored), (claim(1, 7), Effective), (GENESIS, Ignored), (commit(1, 7, 1), Effective)]);
}

#[test]
fn nothing_but_a_genesis_counts_at_the_start() {
    for header in [claim(1, 7), commit(0, 0, 0), barrier(0, 0, 0), release(0, 0, 0)] {
        let (checkpoint, verdicts) = fold(&[header]);
        assert_eq!(verdicts, [Ignored]);
        assert_eq!(checkpoint, Checkpoint { next_offset: Offset(1), ..Checkpoint::default() });
    }
}

/// What counts, told from the whole history instead of a state: for comparison.
fn by_history(headers: &[Header]) -> Vec<Verdict> {
    let mut effective: Vec<Header> = Vec::new();
    let mut verdicts = Vec::new();
    for (offset, header) in headers.iter().enumerate() {
        let last_claim = effective.iter().rposition(|earlier| earlier.kind == Kind::Claim);
        let term = last_claim.map_or(&[][..], |at| &effective[at..]);
        let counts = match header.kind {
            Kind::Genesis => offset == 0,
            _ if offset == 0 => false,
            Kind::Claim => header.epoch.0 == 1 + term.first().map_or(0, |claim| claim.epoch.0) && header.seq == Seq(0),
            _ => {
                let held = term.iter().all(|earlier| earlier.kind != Kind::Release);
                let same = term.first().is_some_and(|claim| (claim.epoch, claim.nonce) == (header.epoch, header.nonce));
                held && same && header.seq.0 == term.len() as u64
            }
        };
        if counts {
            effective.push(*header);
        }
        verdicts.push(if counts { Effective } else { Ignored });
    }
    verdicts
}

/// Headers from few values, so that they meet; mostly after a genesis, and often what would count next.
fn headers() -> impl Strategy<Value = Vec<Header>> {
    let kind = prop_oneof![
        1 => Just(Kind::Genesis),
        4 => Just(Kind::Claim),
        8 => Just(Kind::Commit),
        2 => Just(Kind::Barrier),
        2 => Just(Kind::Release),
    ];
    let wild = (kind.clone(), 0..4_u64, 0..3_u64, 0..4_u64);
    let step = prop_oneof![
        1 => wild.prop_map(|(kind, epoch, nonce, seq)| Ok(says(kind)(epoch, nonce, seq))),
        2 => (kind, 0..3_u64).prop_map(Err),
    ];
    (proptest::bool::weighted(0.9), vec(step, 0..40)).prop_map(|(begins_well, steps)| {
        let mut headers = if begins_well { vec![GENESIS] } else { Vec::new() };
        for step in steps {
            let (now, _) = fold(&headers);
            headers.push(step.unwrap_or_else(|(kind, nonce)| match kind {
                Kind::Claim => claim(now.epoch.0 + 1, nonce),
                kind => Header { kind, epoch: now.epoch, nonce: now.nonce, seq: now.next_seq },
            }));
        }
        headers
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_fold_says_what_the_whole_history_says(headers in headers()) {
        prop_assert_eq!(fold(&headers).1, by_history(&headers));
    }

    #[test]
    fn a_fold_goes_on_from_a_stored_checkpoint_as_if_it_had_not_stopped(headers in headers(), at in any::<prop::sample::Index>()) {
        let at = at.index(headers.len() + 1);
        let (checkpoint, mut verdicts) = fold(&headers[..at]);
        let stored = serde_json::to_string(&checkpoint).unwrap();
        let mut restored: Checkpoint = serde_json::from_str(&stored).unwrap();
        verdicts.extend(headers[at..].iter().map(|header| restored.accept(header)));
        prop_assert_eq!((restored, verdicts), fold(&headers));
    }

    #[test]
    fn a_checkpoint_counts_every_record(headers in headers()) {
        prop_assert_eq!(fold(&headers).0.next_offset, Offset(headers.len() as u64));
    }

    #[test]
    fn what_is_ignored_changes_nothing(headers in headers()) {
        let (mut checkpoint, verdicts) = (Checkpoint::default(), fold(&headers).1);
        for (header, verdict) in headers.iter().zip(verdicts) {
            let before = checkpoint;
            checkpoint.accept(header);
            if verdict == Ignored {
                prop_assert_eq!(checkpoint, Checkpoint { next_offset: before.next_offset.next(), ..before });
            }
        }
    }

    #[test]
    fn a_record_that_counted_never_counts_again(headers in headers(), later in headers()) {
        let (mut checkpoint, verdicts) = fold(&headers);
        for header in &later {
            checkpoint.accept(header);
        }
        let counted = headers.iter().zip(verdicts).filter(|(_, verdict)| *verdict == Effective);
        for (header, _) in counted {
            // By then the log is not empty, so a second genesis is no exception.
            prop_assert_eq!(checkpoint.clone().accept(header), Ignored);
        }
    }
}
