//! Who comes to the demo shop, what they want, and what goes wrong: the same at every start.

use crate::dice::Dice;

/// Something to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Product {
    /// Its SKU.
    pub(super) sku: &'static str,
    /// Minor units of a euro each.
    pub(super) price_minor: u32,
    /// How many there are when the shop opens, at each location.
    pub(super) on_hand: u32,
}

const fn product(sku: &'static str, price_minor: u32, on_hand: u32) -> Product {
    Product { sku, price_minor, on_hand }
}

/// The catalogue.
pub(super) const CATALOGUE: [Product; 12] = [
    product("beans-1kg", 1999, 120),
    product("beans-250g", 649, 200),
    product("decaf-250g", 699, 80),
    product("filter-papers", 449, 150),
    product("grinder", 8900, 25),
    product("kettle", 5490, 25),
    product("mug-blue", 1250, 60),
    product("mug-green", 1250, 60),
    product("press", 3490, 30),
    product("scale", 2990, 30),
    product("server-600ml", 2150, 40),
    product("tamper", 1790, 40),
];
/// Where it is kept.
pub(super) const LOCATIONS: [&str; 2] = ["shop-1", "shop-2"];
/// Who comes.
pub(super) const CUSTOMERS: [&str; 3] = ["c-ada", "c-grace", "c-edsger"];

/// More than any shelf ever holds.
const TOO_MANY: u32 = 500;

/// Every product at every location.
pub(super) fn shelves() -> impl Iterator<Item = (&'static str, Product)> {
    LOCATIONS.into_iter().flat_map(|location| CATALOGUE.into_iter().map(move |product| (location, product)))
}

/// How a customer pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Card {
    /// As it should be.
    Good,
    /// The bank says no.
    Declined,
    /// There is not enough on it.
    Empty,
    /// The gateway stumbles once, then takes it.
    Flaky,
}

impl Card {
    /// The token that stands for it.
    pub(super) fn token(self) -> &'static str {
        match self {
            Self::Good => "tok_ok",
            Self::Declined => "tok_declined",
            Self::Empty => "tok_insufficient_funds",
            Self::Flaky => "tok_flaky_1",
        }
    }
}

/// One customer at the counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Visit {
    /// Which, from 0.
    pub(super) number: u64,
    /// Who.
    pub(super) customer: &'static str,
    /// Where.
    pub(super) location: &'static str,
    /// What, and how many.
    pub(super) lines: Vec<(Product, u32)>,
    /// How they pay.
    pub(super) card: Card,
    /// Whether they cancel before the parcel leaves.
    pub(super) changes_mind: bool,
    /// Whether a piece of it comes back.
    pub(super) sends_back: bool,
}

/// All visits, one after the other.
pub(super) struct Script {
    dice: Dice,
    number: u64,
}

impl Script {
    /// From the beginning.
    pub(super) fn new() -> Self {
        Self { dice: Dice::new(2026), number: 0 }
    }

    /// The next customer.
    pub(super) fn next(&mut self) -> Visit {
        let number = self.number;
        self.number += 1;
        let mut pick = |limit: usize| self.dice.below(limit as u64) as usize;
        let (customer, location) = (CUSTOMERS[pick(CUSTOMERS.len())], LOCATIONS[pick(LOCATIONS.len())]);
        let first = pick(CATALOGUE.len());
        let mut lines = vec![(CATALOGUE[first], 1 + pick(3) as u32)];
        if pick(2) == 0 {
            lines.push((CATALOGUE[(first + 1 + pick(CATALOGUE.len() - 1)) % CATALOGUE.len()], 1));
        }
        if number % 25 == 18 {
            lines[0].1 = TOO_MANY;
        }
        // One payment in ten fails for good, by turns for either reason.
        let card = match (number % 10, number % 20) {
            (4, 4) => Card::Declined,
            (4, _) => Card::Empty,
            (7, _) => Card::Flaky,
            _ => Card::Good,
        };
        Visit { number, customer, location, lines, card, changes_mind: number % 12 == 5, sends_back: number % 15 == 2 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_start_tells_the_same_story() {
        let (mut one, mut other) = (Script::new(), Script::new());
        assert!((0..200).all(|_| one.next() == other.next()));
    }

    #[test]
    fn one_payment_in_ten_fails_on_purpose_and_the_rest_is_lively() {
        let mut script = Script::new();
        let visits = (0..600).map(|_| script.next()).collect::<Vec<_>>();
        let count = |what: fn(&Visit) -> bool| visits.iter().filter(|visit| what(visit)).count();
        assert_eq!(count(|visit| matches!(visit.card, Card::Declined | Card::Empty)), 60);
        assert_eq!(count(|visit| visit.card == Card::Declined), 30);
        assert_eq!(count(|visit| visit.card == Card::Flaky), 60);
        assert_eq!(count(|visit| visit.lines[0].1 == TOO_MANY), 24);
        assert!(count(|visit| visit.changes_mind) > 0 && count(|visit| visit.sends_back) > 0);
        for customer in CUSTOMERS {
            assert!(visits.iter().any(|visit| visit.customer == customer));
        }
        assert!(visits.iter().all(|visit| visit.lines.len() < 2 || visit.lines[0].0 != visit.lines[1].0));
    }

    #[test]
    fn the_catalogue_fits_the_contract() {
        assert_eq!((CATALOGUE.len(), LOCATIONS.len(), CUSTOMERS.len()), (12, 2, 3));
        assert_eq!(shelves().count(), 24);
        let names = CATALOGUE.iter().map(|product| product.sku).chain(LOCATIONS).chain(CUSTOMERS);
        assert!(names.into_iter().all(schemas::id::is_name));
    }
}
