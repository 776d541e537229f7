//! What a record's bytes promise: they come back as they went, no damage goes unnoticed (LOG-7), and nothing that comes
//! from outside can make the reader panic.

#![allow(clippy::unwrap_used, reason = "a test stops where it is surprised")]

mod record_support {
    pub(super) mod arbitrary;
}

use bytes::Bytes;
use engine::record::{Body, Header, Record, UnreadableRecord};
use proptest::collection::vec;
use proptest::prelude::*;

use self::record_support::arbitrary::{any_record, header_of, sealed};

/// Refused as damage, whole and by its header alone.
fn is_damaged(bytes: Vec<u8>) -> bool {
    let by_header = matches!(Header::decode(&bytes), Err(UnreadableRecord::Damaged(_)));
    by_header && matches!(Record::decode(&bytes.into()), Err(UnreadableRecord::Damaged(_)))
}

fn needs_newer(bytes: &Bytes) -> bool {
    matches!(Record::decode(bytes), Err(UnreadableRecord::TooNew(_)))
}

proptest! {
    #[test]
    fn a_record_comes_back_as_it_went(record in any_record()) {
        let bytes = record.encode();
        prop_assert_eq!(Header::decode(&bytes).unwrap(), record.header);
        let decoded = Record::decode(&bytes).unwrap();
        prop_assert_eq!(&decoded, &record);
        prop_assert_eq!(decoded.encode(), bytes);
    }

    #[test]
    fn bytes_that_are_no_record_are_refused(bytes in vec(any::<u8>(), 0..300)) {
        prop_assert!(is_damaged(bytes));
    }

    #[test]
    fn sealed_nonsense_never_panics(kind in 0_u8..8, body in vec(any::<u8>(), 0..200)) {
        let mut bytes = header_of(kind);
        bytes.extend_from_slice(&body);
        let _ = Record::decode(&sealed(bytes));
    }

    #[test]
    fn what_can_be_read_can_be_written_again(
        record in any_record(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in option_of_index(),
    ) {
        // Bytes changed by someone who knows how to seal them: refused, or read as something that is itself a record.
        let mut bytes = record.encode().to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            let cut = 40 + cut.index(bytes.len() - 39);
            bytes.truncate(cut);
        }
        if let Ok(read) = Record::decode(&sealed(bytes)) {
            let again = Record::decode(&read.encode()).unwrap();
            prop_assert_eq!(again.encode(), read.encode());
        }
    }
}

fn option_of_index() -> impl Strategy<Value = Option<prop::sample::Index>> {
    proptest::option::of(any::<prop::sample::Index>())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_flipped_bit_is_noticed(record in any_record()) {
        let bytes = record.encode().to_vec();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(is_damaged(flipped), "bit {bit} of {} bytes", bytes.len());
        }
    }

    #[test]
    fn every_missing_end_is_noticed(record in any_record()) {
        let bytes = record.encode().to_vec();
        for length in 0..bytes.len() {
            prop_assert!(is_damaged(bytes[..length].to_vec()), "{length} of {} bytes", bytes.len());
        }
    }

    #[test]
    fn anything_behind_a_record_is_noticed(record in any_record(), behind in vec(any::<u8>(), 1..40)) {
        let mut bytes = record.encode().to_vec();
        bytes.extend_from_slice(&behind);
        prop_assert!(is_damaged(bytes));
    }
}

fn barrier() -> Vec<u8> {
    header_of(4)
}

fn with_section(mut bytes: Vec<u8>, tag: u8, content: &[u8]) -> Vec<u8> {
    bytes.extend_from_slice(&[tag, u8::try_from(content.len()).unwrap()]);
    bytes.extend_from_slice(content);
    bytes
}

#[test]
fn a_newer_format_stops_the_reader() {
    let mut bytes = barrier();
    bytes[4] = 2;
    let bytes = sealed(bytes);
    assert!(needs_newer(&bytes));
    assert!(matches!(Header::decode(&bytes), Err(UnreadableRecord::TooNew(_))));
}

#[test]
fn an_unknown_kind_stops_the_reader() {
    for kind in [0, 6, 255] {
        let bytes = sealed(header_of(kind));
        assert!(needs_newer(&bytes));
        assert!(matches!(Header::decode(&bytes), Err(UnreadableRecord::TooNew(_))));
    }
}

#[test]
fn an_unknown_flag_stops_the_reader() {
    for bit in 0..16 {
        let mut bytes = barrier();
        bytes[6 + bit / 8] = 1 << (bit % 8);
        assert!(needs_newer(&sealed(bytes)), "flag {bit}");
    }
}

#[test]
fn an_unknown_critical_section_stops_the_reader_but_not_the_fold() {
    let bytes = sealed(with_section(barrier(), 0x80 | 99, b"news"));
    assert!(needs_newer(&bytes));
    assert!(Header::decode(&bytes).is_ok());
}

#[test]
fn an_unknown_section_that_is_not_critical_is_kept() {
    let bytes = sealed(with_section(with_section(barrier(), 98, b"news"), 99, b""));
    let record = Record::decode(&bytes).unwrap();
    assert_eq!(record.body, Body::Barrier);
    let later = record.later.iter().map(|section| (section.number, section.content.as_ref())).collect::<Vec<_>>();
    assert_eq!(later, [(98, b"news".as_slice()), (99, b"")]);
    assert_eq!(record.encode(), bytes);
}

#[test]
fn sections_out_of_order_or_said_twice_are_damage() {
    let refused = |bytes| matches!(Record::decode(&sealed(bytes)), Err(UnreadableRecord::Damaged(_)));
    assert!(refused(with_section(with_section(barrier(), 99, b""), 98, b"")));
    assert!(refused(with_section(with_section(barrier(), 99, b""), 99, b"")));
    assert!(refused(with_section(with_section(barrier(), 99, b""), 0x80 | 99, b"")));
    assert!(refused(with_section(barrier(), 0, b"")));
}

#[test]
fn a_length_has_one_spelling() {
    let mut bytes = barrier();
    bytes.extend_from_slice(&[99, 0x80, 0x00]);
    assert!(matches!(Record::decode(&sealed(bytes)), Err(UnreadableRecord::Damaged(_))));
}

#[test]
fn lengths_that_lead_astray_are_damage() {
    for length in
        [&[1][..], &[0x7f], &[0xff; 9], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], &[0xff; 11]]
    {
        let mut bytes = barrier();
        bytes.push(99);
        bytes.extend_from_slice(length);
        assert!(matches!(Record::decode(&sealed(bytes)), Err(UnreadableRecord::Damaged(_))), "{length:?}");
    }
}

#[test]
fn payloads_are_slices_of_the_record() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    runner
        .run(&any_record(), |record| {
            let bytes = record.encode();
            let within = bytes.as_ptr_range();
            if let Body::Commit(commit) = Record::decode(&bytes).unwrap().body {
                for payload in commit.streams.iter().flat_map(|stream| &stream.events).map(|event| &event.payload) {
                    prop_assert!(payload.is_empty() || within.contains(&payload.as_ptr()));
                }
            }
            Ok(())
        })
        .unwrap();
}
