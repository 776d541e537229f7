//! A line of an order as it is typed: `SKU:QUANTITY:PRICE[:CURRENCY]`, the price in minor units as everywhere in the API,
//! so that no currency needs special thought. A decimal point is refused with the number that was probably meant.

use std::str::FromStr;

use schemas::id::Sku;
use schemas::money::{Currency, Money};
use serde_json::{Value, json};

/// What is ordered unless a line says otherwise.
const DEFAULT_CURRENCY: &str = "EUR";

/// One line of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    sku: Sku,
    quantity: u32,
    unit_price: Money,
}

impl Line {
    /// As a request has it.
    pub(super) fn to_json(&self) -> Value {
        json!({"sku": self.sku, "quantity": self.quantity, "unit_price": self.unit_price})
    }
}

impl FromStr for Line {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split(':').collect::<Vec<_>>();
        let (sku, quantity, price, currency) = match parts[..] {
            [sku, quantity, price] => (sku, quantity, price, DEFAULT_CURRENCY),
            [sku, quantity, price, currency] => (sku, quantity, price, currency),
            _ => return Err("write SKU:QUANTITY:PRICE[:CURRENCY], such as beans-1kg:2:1999:EUR".to_owned()),
        };
        let sku = Sku::new(sku).map_err(|error| error.to_string())?;
        let quantity = quantity.parse().map_err(|_| format!("{quantity:?} is no quantity"))?;
        let currency = currency.parse::<Currency>().map_err(|error| error.to_string())?;
        let amount = price.parse::<u64>().ok().and_then(|amount| i64::try_from(amount).ok());
        let amount = amount.ok_or_else(|| match price.replace('.', "").parse::<u64>() {
            Ok(minor) if price.contains('.') => {
                format!("prices are in minor units: write {minor} for {price} {currency}")
            }
            _ => format!("{price:?} is no price in minor units"),
        })?;
        Ok(Self { sku, quantity, unit_price: Money::new(amount, currency) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_is_typed() {
        let line = "beans-1kg:2:1999".parse::<Line>().unwrap();
        assert_eq!(
            line.to_json(),
            json!({"sku": "beans-1kg", "quantity": 2, "unit_price": {"amount": 1999, "currency": "EUR"}})
        );
        let line = "rice:1:500:JPY".parse::<Line>().unwrap();
        assert_eq!(line.to_json()["unit_price"], json!({"amount": 500, "currency": "JPY"}));
    }

    #[test]
    fn a_decimal_price_is_refused_with_what_was_probably_meant() {
        let refusal = "beans-1kg:2:19.99".parse::<Line>().unwrap_err();
        assert_eq!(refusal, "prices are in minor units: write 1999 for 19.99 EUR");
    }

    #[test]
    fn what_is_no_line_is_refused_with_the_reason() {
        for (wrong, why) in [
            ("beans", "SKU:QUANTITY:PRICE"),
            ("beans:2", "SKU:QUANTITY:PRICE"),
            ("beans:2:3:EUR:x", "SKU:QUANTITY:PRICE"),
            ("be ans:2:3", "64"),
            ("beans:two:3", "no quantity"),
            ("beans:-2:3", "no quantity"),
            ("beans:2:-3", "no price"),
            ("beans:2:3:EURO", "ISO 4217"),
        ] {
            let refusal = wrong.parse::<Line>().unwrap_err();
            assert!(refusal.contains(why), "{wrong}: {refusal}");
        }
    }
}
