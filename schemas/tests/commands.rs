//! Commands as nodes send them to one another: each comes back as it went, each has a sample that is still read and still
//! written alike, and what is not known is refused rather than passed over.
#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing fails, as it should")]

use std::collections::BTreeSet;
use std::path::PathBuf;

use engine::position::{Offset, Partition, Position};
use engine::time::Timestamp;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use schemas::command::{GatewayAnswer, PaymentMeans, ReservationVerb, SagaDecision, ShopCommand, StepResult};
use schemas::event::order::{CancelReason, Line};
use schemas::event::payment::Method;
use schemas::event::reservation::ReservedLine;
use schemas::id::{CustomerId, LocationId, OrderId, PaymentId, ReservationId, Sku};
use schemas::money::{Currency, Money};
use serde_json::{Value, json};
use uuid::Uuid;

/// How many variants there are. The strategies below must make each of them, and each must have its sample.
const VARIANTS: usize = 22;

fn variant(command: &ShopCommand) -> String {
    let value = serde_json::to_value(command).unwrap();
    value.as_object().unwrap().keys().next().unwrap().clone()
}

fn samples() -> Vec<(String, Value)> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/golden/commands"));
    let mut samples = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            samples.push((name, serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap()));
        }
    }
    samples
}

#[test]
fn every_sample_is_read_and_written_alike() {
    let samples = samples();
    for (name, value) in &samples {
        let command: ShopCommand = serde_json::from_value(value.clone()).unwrap_or_else(|why| panic!("{name}: {why}"));
        assert_eq!(&serde_json::to_value(&command).unwrap(), value, "{name}");
        assert_eq!(name.split('.').next().unwrap(), variant(&command));
    }
}

#[test]
fn every_command_has_a_sample() {
    let there = samples().into_iter().map(|(name, _)| name.split('.').next().unwrap().to_owned()).collect();
    assert_eq!(all_variants(), there);
}

#[test]
fn what_was_left_out_is_none() {
    let lean = json!({"ShipOrder": {"order_id": Uuid::nil()}});
    let command: ShopCommand = serde_json::from_value(lean).unwrap();
    assert_eq!(command, ShopCommand::ShipOrder { order_id: OrderId(Uuid::nil()), carrier: None, tracking: None });
}

#[test]
fn a_member_or_command_that_is_not_known_is_refused() {
    for unknown in [
        json!({"DeliverOrder": {"order_id": Uuid::nil(), "to_the_neighbour": true}}),
        json!({"BurnOrder": {"order_id": Uuid::nil()}}),
        json!({"RefundPayment": {"payment_id": Uuid::nil(), "amount": {"amount": 1, "currency": "ZZZ"}, "reason": ""}}),
        json!({"CommitStock": {"location_id": "a~b", "reservation_id": Uuid::nil(), "lines": [], "order_id": null}}),
        json!({"DeliverOrder": {}}),
    ] {
        assert!(serde_json::from_value::<ShopCommand>(unknown.clone()).is_err(), "{unknown}");
    }
    for (name, mut value) in samples() {
        let inside = value.as_object_mut().unwrap().values_mut().next().unwrap().as_object_mut().unwrap();
        inside.insert("later".to_owned(), json!(1));
        assert!(serde_json::from_value::<ShopCommand>(value).is_err(), "{name} takes a member that it does not know");
    }
}

#[test]
fn every_variant_is_tried() {
    assert_eq!(all_variants().len(), VARIANTS);
}

/// All that the strategies make, in 2,000 tries: each is one of 22, so missing one is no accident.
fn all_variants() -> BTreeSet<String> {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    (0..2_000).map(|_| variant(&commands().new_tree(&mut runner).unwrap().current())).collect()
}

proptest! {
    #[test]
    fn every_command_survives_the_way_to_another_node(command in commands()) {
        let sent = serde_json::to_vec(&command).unwrap();
        prop_assert_eq!(serde_json::from_slice::<ShopCommand>(&sent).unwrap(), command);
    }
}

fn ids() -> impl Strategy<Value = Uuid> + Clone {
    any::<[u8; 16]>().prop_map(Uuid::from_bytes)
}

fn orders() -> impl Strategy<Value = OrderId> + Clone {
    ids().prop_map(OrderId)
}

fn payments() -> impl Strategy<Value = PaymentId> + Clone {
    ids().prop_map(PaymentId)
}

fn locations() -> impl Strategy<Value = LocationId> + Clone {
    "[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}".prop_filter_map("a reserved word", |text| LocationId::new(&text).ok())
}

fn skus() -> impl Strategy<Value = Sku> + Clone {
    "[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}".prop_filter_map("a reserved word", |text| Sku::new(&text).ok())
}

fn texts() -> impl Strategy<Value = String> + Clone {
    any::<String>()
}

fn money() -> impl Strategy<Value = Money> + Clone {
    let currency = prop::sample::select(vec!["EUR", "USD", "JPY", "KWD", "CLF"]);
    (any::<i64>(), currency).prop_map(|(amount, code)| Money::new(amount, code.parse::<Currency>().unwrap()))
}

fn means() -> impl Strategy<Value = PaymentMeans> + Clone {
    texts().prop_map(|token| PaymentMeans { method: Method::Card, token })
}

fn reserved_lines() -> impl Strategy<Value = Vec<ReservedLine>> + Clone {
    vec((skus(), any::<u32>()).prop_map(|(sku, quantity)| ReservedLine { sku, quantity }), 0..4)
}

fn verbs() -> impl Strategy<Value = ReservationVerb> + Clone {
    (locations(), ids(), reserved_lines(), option::of(orders())).prop_map(|(location_id, id, lines, order_id)| {
        ReservationVerb { location_id, reservation_id: ReservationId(id), lines, order_id }
    })
}

fn answers() -> impl Strategy<Value = GatewayAnswer> {
    // Years 1 to 9999: times beyond are told but not read, and no clock gives them.
    let times = option::of((-62_135_596_800_000_000..=253_402_207_199_999_999_i64).prop_map(Timestamp));
    prop_oneof![
        times.prop_map(|expires_at| GatewayAnswer::Done { expires_at }),
        texts().prop_map(|reason| GatewayAnswer::Refused { reason }),
        (any::<u32>(), texts()).prop_map(|(attempt, error)| GatewayAnswer::Unreachable { attempt, error }),
    ]
}

fn results() -> impl Strategy<Value = StepResult> {
    let positions = (0..1_024_u16, 0..(1_u64 << 53))
        .prop_map(|(partition, offset)| Position { partition: Partition(partition), offset: Offset(offset) });
    prop_oneof![
        positions.clone().prop_map(StepResult::Done),
        (texts(), positions).prop_map(|(code, at)| StepResult::Refused(code, at)),
        texts().prop_map(StepResult::Broken),
    ]
}

fn commands() -> impl Strategy<Value = ShopCommand> {
    prop_oneof![order_commands(), stock_commands(), payment_commands(), saga_commands()]
}

fn order_commands() -> impl Strategy<Value = ShopCommand> {
    let customers = "[a-z0-9]{1,64}".prop_filter_map("a reserved word", |text| CustomerId::new(&text).ok());
    let lines = (skus(), any::<u32>(), money(), locations())
        .prop_map(|(sku, quantity, unit_price, location_id)| Line { sku, quantity, unit_price, location_id });
    let reasons = prop::sample::select(vec![
        CancelReason::StockInsufficient,
        CancelReason::PaymentDeclined,
        CancelReason::PaymentUnreachable,
        CancelReason::Customer,
        CancelReason::Operator,
        CancelReason::Fraud,
        CancelReason::Other,
    ]);
    prop_oneof![
        (orders(), customers, locations(), vec(lines, 0..4), option::of(means())).prop_map(
            |(order_id, customer_id, location_id, lines, payment)| ShopCommand::PlaceOrder {
                order_id,
                customer_id,
                location_id,
                lines,
                payment
            }
        ),
        (orders(), means()).prop_map(|(order_id, payment)| ShopCommand::StartCheckout { order_id, payment }),
        (orders(), reasons, option::of(texts())).prop_map(|(order_id, reason, detail)| ShopCommand::CancelOrder {
            order_id,
            reason,
            detail
        }),
        (orders(), option::of(texts()), option::of(texts()))
            .prop_map(|(order_id, carrier, tracking)| ShopCommand::ShipOrder { order_id, carrier, tracking }),
        orders().prop_map(|order_id| ShopCommand::DeliverOrder { order_id }),
        (orders(), money(), texts()).prop_map(|(order_id, amount, reason)| ShopCommand::RefundOrder {
            order_id,
            amount,
            reason
        }),
    ]
}

fn stock_commands() -> impl Strategy<Value = ShopCommand> {
    prop_oneof![
        (locations(), skus(), any::<i64>(), option::of(texts())).prop_map(|(location_id, sku, on_hand, reason)| {
            ShopCommand::CountStock { location_id, sku, on_hand, reason }
        }),
        (locations(), skus(), any::<u32>()).prop_map(|(location_id, sku, quantity)| ShopCommand::ReceiveStock {
            location_id,
            sku,
            quantity
        }),
        (locations(), skus(), any::<i64>(), texts()).prop_map(|(location_id, sku, delta, reason)| {
            ShopCommand::AdjustStock { location_id, sku, delta, reason }
        }),
        (verbs(), any::<u32>()).prop_map(|(verb, expires_in_s)| ShopCommand::ReserveStock {
            location_id: verb.location_id,
            reservation_id: verb.reservation_id,
            lines: verb.lines,
            expires_in_s,
            order_id: verb.order_id,
        }),
        verbs().prop_map(ShopCommand::CommitStock),
        verbs().prop_map(ShopCommand::ReleaseStock),
        verbs().prop_map(ShopCommand::ReturnStock),
        verbs().prop_map(ShopCommand::ExpireReservation),
    ]
}

fn payment_commands() -> impl Strategy<Value = ShopCommand> {
    prop_oneof![
        (payments(), option::of(orders()), money(), means()).prop_map(|(payment_id, order_id, amount, means)| {
            ShopCommand::AuthorizePayment { payment_id, order_id, amount, means }
        }),
        (payments(), option::of(money()))
            .prop_map(|(payment_id, amount)| ShopCommand::CapturePayment { payment_id, amount }),
        payments().prop_map(|payment_id| ShopCommand::VoidPayment { payment_id }),
        (payments(), option::of(orders()), money(), texts()).prop_map(|(payment_id, checkout_of, amount, reason)| {
            ShopCommand::RefundPayment { payment_id, checkout_of, amount, reason }
        }),
        (payments(), option::of(orders()), any::<u64>(), answers()).prop_map(
            |(payment_id, checkout_of, intent, answer)| ShopCommand::RecordGateway {
                payment_id,
                checkout_of,
                intent,
                answer
            }
        ),
        (payments(), any::<u64>())
            .prop_map(|(payment_id, armed_at)| ShopCommand::ExpirePayment { payment_id, armed_at }),
    ]
}

fn saga_commands() -> impl Strategy<Value = ShopCommand> {
    let decisions = prop::sample::select(vec![
        SagaDecision::Retry,
        SagaDecision::Skip,
        SagaDecision::Compensate,
        SagaDecision::Park,
        SagaDecision::Resume,
    ]);
    prop_oneof![
        (orders(), texts(), any::<bool>(), results())
            .prop_map(|(order_id, step, undo, result)| { ShopCommand::RecordStep { order_id, step, undo, result } }),
        (orders(), decisions, texts()).prop_map(|(order_id, decision, reason)| ShopCommand::DecideSaga {
            order_id,
            decision,
            reason
        }),
    ]
}
