//! What a load asks for: a pure function of the request's number, so that the checks know what was ordered without
//! keeping it.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{LoadArguments, Profile};
use crate::dice::Dice;

/// Cards that are good, and cards that are not.
const GOOD_CARD: &str = "tok_ok";
const BAD_CARD: &str = "tok_declined";
/// Reservations outlive any run: one that expired would look like one that was lost.
const RESERVED_FOR_S: u32 = 604_800;

/// A line of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Which SKU of the location.
    pub(super) sku: u64,
    /// How many.
    pub(super) quantity: u64,
    /// Minor units each.
    pub(super) price: u64,
}

/// What one request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// At which location.
    pub(super) location: u64,
    /// What.
    pub(super) lines: Vec<Line>,
    /// Whether its card is good.
    pub(super) good_card: bool,
}

impl Asked {
    /// What it costs, in minor units.
    pub(super) fn total(&self) -> u64 {
        self.lines.iter().map(|line| line.quantity * line.price).sum()
    }

    /// How many of each SKU: the same SKU on two lines counts together.
    pub(super) fn quantities(&self) -> BTreeMap<u64, u64> {
        let mut quantities = BTreeMap::new();
        for line in &self.lines {
            *quantities.entry(line.sku).or_default() += line.quantity;
        }
        quantities
    }
}

/// All that a run will ask for.
#[derive(Clone, Debug)]
pub(super) struct Workload {
    /// The run's name: its only customer, and how its locations begin.
    pub(super) run: String,
    /// What is asked of the server.
    pub(super) profile: Profile,
    /// How many locations.
    pub(super) locations: u64,
    /// How many SKUs each has.
    pub(super) skus: u64,
    declined: u64,
}

impl Workload {
    /// As asked for on the command line.
    pub(super) fn new(arguments: &LoadArguments, run: String) -> Self {
        let LoadArguments { profile, locations, skus, declined, .. } = *arguments;
        Self { run, profile, locations, skus, declined }
    }

    /// The name of a location.
    pub(super) fn location(&self, location: u64) -> String {
        format!("{}-{location}", self.run)
    }

    /// The name of a SKU.
    pub(super) fn sku(&self, sku: u64) -> String {
        format!("sku-{sku:04}")
    }

    /// The number of a SKU's name.
    pub(super) fn sku_number(&self, name: &str) -> Option<u64> {
        name.strip_prefix("sku-")?.parse().ok()
    }

    /// Where its requests go.
    pub(super) fn path(&self, asked: &Asked) -> String {
        match self.profile {
            Profile::Place | Profile::Checkout => "/v1/orders".to_owned(),
            Profile::HotStock => format!("/v1/stock/{}/reservations", self.location(asked.location)),
        }
    }

    /// What request `number` asks for.
    pub(super) fn asked(&self, number: u64) -> Asked {
        let mut dice = Dice::new(number);
        let location = dice.below(self.locations);
        let lines = match self.profile {
            Profile::HotStock => vec![Line { sku: dice.below(self.skus), quantity: 1, price: 0 }],
            Profile::Place | Profile::Checkout => {
                let line =
                    || Line { sku: dice.below(self.skus), quantity: 1 + dice.below(3), price: 100 + dice.below(9_900) };
                std::iter::repeat_with(line).take(if self.profile == Profile::Place { 3 } else { 2 }).collect()
            }
        };
        Asked { location, lines, good_card: self.declined == 0 || number % self.declined != self.declined - 1 }
    }

    /// The body of a request, under an id of our choice.
    pub(super) fn body(&self, asked: &Asked, id: Uuid) -> Vec<u8> {
        use std::io::Write;
        let mut body = Vec::with_capacity(512);
        // A vector takes whatever is written to it.
        let mut put = |text: std::fmt::Arguments<'_>| body.write_fmt(text).expect("memory takes all");
        match self.profile {
            Profile::HotStock => {
                let sku = self.sku(asked.lines[0].sku);
                put(format_args!(
                    r#"{{"reservation_id":"{id}","lines":[{{"sku":"{sku}","quantity":1}}],"expires_in_s":{RESERVED_FOR_S}}}"#
                ));
            }
            Profile::Place | Profile::Checkout => {
                let (run, location) = (&self.run, asked.location);
                put(format_args!(
                    r#"{{"order_id":"{id}","customer_id":"{run}","location_id":"{run}-{location}","lines":["#
                ));
                for (at, Line { sku, quantity, price }) in asked.lines.iter().enumerate() {
                    let comma = if at == 0 { "" } else { "," };
                    put(format_args!(
                        r#"{comma}{{"sku":"sku-{sku:04}","quantity":{quantity},"unit_price":{{"amount":{price},"currency":"EUR"}}}}"#
                    ));
                }
                if self.profile == Profile::Checkout {
                    let token = if asked.good_card { GOOD_CARD } else { BAD_CARD };
                    put(format_args!(r#"],"payment":{{"method":"card","token":"{token}"}}}}"#));
                } else {
                    put(format_args!("]}}"));
                }
            }
        }
        body
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn workload(profile: Profile) -> Workload {
        Workload { run: "load-00c0ffee".to_owned(), profile, locations: 4, skus: 10, declined: 10 }
    }

    #[test]
    fn what_is_asked_follows_from_the_number() {
        let workload = workload(Profile::Checkout);
        assert_eq!(workload.asked(7), workload.asked(7));
        assert!((0..100).any(|number| workload.asked(number).lines != workload.asked(0).lines));
        assert_eq!((0..100).filter(|number| !workload.asked(*number).good_card).count(), 10);
        assert!((0..1000).all(|number| workload.asked(number).location < 4));
    }

    #[test]
    fn the_body_says_what_is_asked() {
        for profile in [Profile::Place, Profile::Checkout] {
            let workload = workload(profile);
            for number in 0..50 {
                let (asked, id) = (workload.asked(number), Uuid::now_v7());
                let body = serde_json::from_slice::<Value>(&workload.body(&asked, id)).unwrap();
                assert_eq!(body["order_id"], id.to_string());
                assert_eq!(body["location_id"], workload.location(asked.location));
                let lines = body["lines"].as_array().unwrap();
                assert_eq!(lines.len(), asked.lines.len());
                let cost =
                    |line: &Value| line["quantity"].as_u64().unwrap() * line["unit_price"]["amount"].as_u64().unwrap();
                assert_eq!(lines.iter().map(cost).sum::<u64>(), asked.total());
                assert_eq!(body["payment"].is_null(), profile == Profile::Place);
            }
        }
    }

    #[test]
    fn an_order_placed_has_three_lines_and_about_400_bytes() {
        let workload = workload(Profile::Place);
        let body = workload.body(&workload.asked(1), Uuid::now_v7());
        assert!((300..=450).contains(&body.len()), "{}", body.len());
    }

    #[test]
    fn a_reservation_is_of_one_piece() {
        let workload = workload(Profile::HotStock);
        let asked = workload.asked(3);
        let body = serde_json::from_slice::<Value>(&workload.body(&asked, Uuid::now_v7())).unwrap();
        assert_eq!(body["lines"][0]["quantity"], 1);
        assert_eq!(workload.sku_number(body["lines"][0]["sku"].as_str().unwrap()), Some(asked.lines[0].sku));
        assert!(workload.path(&asked).starts_with("/v1/stock/load-00c0ffee-"));
    }

    #[test]
    fn the_same_sku_on_two_lines_counts_together() {
        let line = |sku, quantity| Line { sku, quantity, price: 1 };
        let asked = Asked { location: 0, lines: vec![line(1, 2), line(2, 1), line(1, 3)], good_card: true };
        assert_eq!(asked.quantities(), BTreeMap::from([(1, 5), (2, 1)]));
    }
}
