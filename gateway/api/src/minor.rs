//! Amounts on the wire.

use std::fmt;

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An amount in minor units as the HTTP API writes it: a JSON string, exact at any size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, pattern = "^-?[0-9]+$", example = "-1099"))]
pub struct Minor(pub i128);

/// An amount in minor units as the CLI writes it: a JSON integer, exact at any size for readers that take it so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MinorNumber(pub i128);

impl From<i128> for Minor {
    fn from(minor: i128) -> Self {
        Self(minor)
    }
}

impl From<i128> for MinorNumber {
    fn from(minor: i128) -> Self {
        Self(minor)
    }
}

impl fmt::Display for Minor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for MinorNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Minor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Minor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Digits;

        impl Visitor<'_> for Digits {
            type Value = Minor;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string of digits, with a leading minus where negative")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Minor, E> {
                text.parse().map(Minor).map_err(|_| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_str(Digits).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_over_http_and_a_number_in_the_cli() {
        let beyond = i128::from(i64::MAX) * 4;
        assert_eq!(serde_json::to_string(&Minor(-beyond)).unwrap(), "\"-36893488147419103228\"");
        assert_eq!(serde_json::to_string(&MinorNumber(-beyond)).unwrap(), "-36893488147419103228");
        assert_eq!(serde_json::from_str::<Minor>("\"-36893488147419103228\"").unwrap(), Minor(-beyond));
        assert_eq!(serde_json::from_str::<MinorNumber>("-36893488147419103228").unwrap(), MinorNumber(-beyond));
        for not_digits in ["1", "\"1.5\"", "\"1e3\"", "\"\"", "null"] {
            assert!(serde_json::from_str::<Minor>(not_digits).is_err(), "{not_digits}");
        }
    }
}
