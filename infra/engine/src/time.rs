//! Points in time as the log keeps them: microseconds since 1970, UTC. Told as RFC 3339 with microseconds.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Microseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// This many milliseconds later.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add_unsigned(ms.saturating_mul(1_000)))
    }

    /// Microseconds from `earlier` to this; 0 if it is not earlier.
    pub fn micros_since(self, earlier: Self) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(text) = usual::write(self.0) {
            return f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?);
        }
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(time) => write!(f, "{time:.6}"),
            // Outside years -9999…9999: told as it is rather than not at all.
            Err(_) => write!(f, "@{}us", self.0),
        }
    }
}

impl FromStr for Timestamp {
    type Err = InvalidTimestamp;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(micros) = usual::read(text.as_bytes()) {
            return Ok(Self(micros));
        }
        let time: jiff::Timestamp = text.parse().map_err(|_| InvalidTimestamp(text.to_owned()))?;
        Ok(Self(time.as_microsecond()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::json::read_text(deserializer, str::parse)
    }
}

/// Text that is no RFC 3339 time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a time such as 2026-11-21T10:00:00Z")]
pub struct InvalidTimestamp(pub String);

/// The one form that this program writes, `2026-11-21T10:00:00.000000Z`, for years of four digits: every event, state,
/// row and answer holds some, so it is worth the arithmetic. All else is the library's affair.
mod usual {
    const MICROS_PER_DAY: i64 = 86_400_000_000;
    /// Days from 0000-03-01 to 1970-01-01. Years are counted from March here, so that a leap day ends one.
    const DAYS_TO_1970: i64 = 719_468;
    /// Of 400 years, after which the calendar repeats.
    const DAYS_PER_ERA: i64 = 146_097;
    const LENGTH: usize = 27;

    pub(super) fn write(micros: i64) -> Option<[u8; LENGTH]> {
        let (days, of_day) = (micros.div_euclid(MICROS_PER_DAY), micros.rem_euclid(MICROS_PER_DAY));
        let day = days + DAYS_TO_1970;
        let (era, day_of_era) = (day.div_euclid(DAYS_PER_ERA), day.rem_euclid(DAYS_PER_ERA));
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = era * 400 + year_of_era + i64::from(month <= 2);
        if !(0..=9_999).contains(&year) {
            return None;
        }
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        let seconds = of_day / 1_000_000;
        for (digits, value) in [
            (0..4, year),
            (5..7, month),
            (8..10, day_of_month),
            (11..13, seconds / 3_600),
            (14..16, seconds / 60 % 60),
            (17..19, seconds % 60),
            (20..26, of_day % 1_000_000),
        ] {
            let mut rest = value;
            for digit in text[digits].iter_mut().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
        }
        Some(text)
    }

    pub(super) fn read(text: &[u8]) -> Option<i64> {
        let text: &[u8; LENGTH] = text.try_into().ok()?;
        for (place, sign) in [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'.'), (26, b'Z')] {
            if text[place] != sign {
                return None;
            }
        }
        let number = |digits: std::ops::Range<usize>| {
            text[digits]
                .iter()
                .try_fold(0_i64, |number, digit| digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0')))
        };
        let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
        let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
        // The last days of months, and leap seconds, are left to the library.
        if !(1..=12).contains(&month) || !(1..=28).contains(&day) || hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let year = year - i64::from(month <= 2);
        let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let month_from_march = if month > 2 { month - 3 } else { month + 9 };
        let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = era * DAYS_PER_ERA + day_of_era - DAYS_TO_1970;
        Some(days * MICROS_PER_DAY + (hour * 3_600 + minute * 60 + second) * 1_000_000 + number(20..26)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_form_is_what_the_library_writes_and_reads() {
        // Every 11 days and some, through all years of four digits and some beyond.
        let (first, last) = (-70_000_000_000_000_000_i64, 260_000_000_000_000_000_i64);
        let mut micros = first;
        while micros < last {
            let Ok(time) = jiff::Timestamp::from_microsecond(micros) else { break };
            let text = format!("{time:.6}");
            assert_eq!(Timestamp(micros).to_string(), text);
            assert_eq!(text.parse(), Ok(Timestamp(micros)), "{text}");
            micros += 999_999_999_937;
        }
    }

    #[test]
    fn every_day_of_two_centuries_is_itself() {
        for day in -36_600..73_200_i64 {
            let micros = day * 86_400_000_000 + 86_399_999_999;
            let text = format!("{:.6}", jiff::Timestamp::from_microsecond(micros).expect("a time"));
            assert_eq!(Timestamp(micros).to_string(), text);
            assert_eq!(text.parse(), Ok(Timestamp(micros)), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "2026-02-30T10:00:00.000000Z",
            "2026-13-01T10:00:00.000000Z",
            "2026-00-01T10:00:00.000000Z",
            "2026-11-21T24:00:00.000000Z",
            "2026-11-21T10:60:00.000000Z",
            "2026-11-21T10:00:0a.000000Z",
            "2026-11-21T10:00:00,000000Z",
            "2026-11-21T10:00:00.00000 Z",
        ] {
            assert!(text.parse::<Timestamp>().is_err() || text.contains(','), "{text}");
        }
        assert_eq!("2026-11-21T10:00:00Z".parse(), Ok(Timestamp(1_795_255_200_000_000)));
        assert_eq!("2026-11-21T12:00:00.000000+02:00".parse(), Ok(Timestamp(1_795_255_200_000_000)));
    }
}
