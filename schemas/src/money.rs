//! Money as integers of the minor unit and an ISO 4217 code: `{"amount": 1999, "currency": "EUR"}`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The largest amount a request may name: 10¹² minor units.
pub const AMOUNT_MAX: i64 = 1_000_000_000_000;
/// An order's total stays below 2⁵³, so that JSON numbers carry it exactly.
pub const TOTAL_LIMIT: i64 = 1 << 53;

/// An ISO 4217 currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Currency(iso_currency::Currency);

impl Currency {
    /// The three-letter code.
    pub fn code(self) -> &'static str {
        self.0.code()
    }
}

impl FromStr for Currency {
    type Err = UnknownCurrency;

    fn from_str(code: &str) -> Result<Self, Self::Err> {
        iso_currency::Currency::from_code(code).map(Self).ok_or_else(|| UnknownCurrency(code.to_owned()))
    }
}

impl PartialOrd for Currency {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Currency {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.code().cmp(other.code())
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl Serialize for Currency {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        engine::json::read_text(deserializer, str::parse)
    }
}

/// A code that is no ISO 4217 currency.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not an ISO 4217 code")]
pub struct UnknownCurrency(pub String);

/// An amount in minor units of a currency. Never negative in this product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Money {
    /// Minor units (cents of a euro, yen).
    pub amount: i64,
    /// Of which currency.
    pub currency: Currency,
}

impl Money {
    /// So much of that.
    pub fn new(amount: i64, currency: Currency) -> Self {
        Self { amount, currency }
    }

    /// Nothing of that.
    pub fn zero(currency: Currency) -> Self {
        Self { amount: 0, currency }
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.currency.0.exponent().map_or(0, u32::from);
        let unit = 10_i64.pow(digits);
        if digits == 0 {
            return write!(f, "{} {}", self.amount, self.currency);
        }
        let (whole, part) = (self.amount / unit, (self.amount % unit).abs());
        write!(f, "{whole}.{part:0width$} {}", self.currency, width = digits as usize)
    }
}
