//! Values that JSON files write as numbers or as texts.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

/// A number, or a text.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scalar {
    /// Whole.
    Whole(i64),
    /// With a fraction, or too big for [`Scalar::Whole`].
    Float(f64),
    /// A text.
    Text(String),
}

impl Scalar {
    /// A whole number of 32 bits, also as a text in decimal or `0x…`.
    pub(super) fn bits(&self) -> Result<u32, String> {
        let wrong = || format!("{self} is no number of 32 bits, nor its text in decimal or 0x…");
        match self {
            Self::Whole(number) => u32::try_from(*number).map_err(|_range| wrong()),
            Self::Float(_) => Err(wrong()),
            Self::Text(text) => {
                let hex = text.strip_prefix("0x").map(|hex| u32::from_str_radix(hex, 16));
                hex.unwrap_or_else(|| text.parse()).map_err(|_not_one| wrong())
            }
        }
    }

    /// A number, also as a text.
    pub(super) fn number(&self) -> Option<f64> {
        let number = match self {
            // A text of digits is read without loss or rounds as JSON's own numbers do.
            Self::Whole(number) => number.to_string().parse().ok(),
            Self::Float(number) => Some(*number),
            Self::Text(text) => text.parse().ok(),
        };
        number.filter(|number: &f64| number.is_finite())
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(number) => write!(f, "{number}"),
            Self::Float(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyScalar)
    }
}

struct AnyScalar;

impl Visitor<'_> for AnyScalar {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number or its text")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Scalar, E> {
        Ok(Scalar::Whole(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Scalar, E> {
        i64::try_from(number).map(Scalar::Whole).map_err(|_big| E::custom("is too big a number"))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Scalar, E> {
        Ok(Scalar::Float(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Scalar, E> {
        Ok(Scalar::Text(text.to_owned()))
    }
}

/// `number` in hundredths, rounded; `None` if that is outside of `u32`.
pub(super) fn hundredths(number: f64) -> Option<u32> {
    // Rounded by its text: a cast of a float would need an exception, and cuts off.
    format!("{:.0}", number * 100.0).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hundredths_are_rounded_and_never_below_zero() {
        for (number, expected) in [
            (0.0, Some(0)),
            (0.1, Some(10)),
            (0.29, Some(29)),
            (1.5, Some(150)),
            (2.0 / 3.0, Some(67)),
            (-0.1, None),
            (1e12, None),
        ] {
            assert_eq!(hundredths(number), expected, "{number}");
        }
    }
}
