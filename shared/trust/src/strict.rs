//! JSON that can be read in one way only: no duplicate names, no fractions, no deep nesting.
//!
//! A parser that takes the last of two equal names and another that takes the first would see two
//! documents under one signature.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::TrustError;

/// Limit on nesting. The deepest of our files needs 6.
const MAX_DEPTH: u8 = 32;

/// Refuses bytes that are not such strict JSON.
pub(crate) fn check(file: &str, bytes: &[u8]) -> Result<(), TrustError> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    Strict(MAX_DEPTH)
        .deserialize(&mut reader)
        .and_then(|()| reader.end())
        .map_err(|e| TrustError::field(file, e.to_string()))
}

#[derive(Clone, Copy)]
struct Strict(u8);

impl Strict {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        self.0
            .checked_sub(1)
            .map(Self)
            .ok_or_else(|| E::custom("it is nested too deeply"))
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without fractional numbers")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Err(E::custom("numbers must be integers"))
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        while items.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        let mut names = BTreeSet::new();
        while let Some(name) = entries.next_key::<String>()? {
            if !names.insert(name) {
                return Err(A::Error::custom("a name appears twice in one object"));
            }
            entries.next_value_seed(inner)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_that_reads_in_one_way_is_taken() {
        let good: [&[u8]; 4] = [
            b"{}",
            b" [1, -2, \"a\", null, true] ",
            b"0",
            b"{\"a\":{\"a\":1}}",
        ];
        for text in good {
            check("x", text).unwrap();
        }
        let deep = format!("{}1{}", "[".repeat(40), "]".repeat(40));
        let bad: [&[u8]; 9] = [
            b"{\"a\":1,\"a\":1}",
            b"{\"a\":1,\"\\u0061\":2}",
            b"1.5",
            b"1e3",
            b"NaN",
            b"{} {}",
            b"\xef\xbb\xbf{}",
            b"\"\xff\"",
            deep.as_bytes(),
        ];
        for text in bad {
            assert!(
                check("x", text).is_err(),
                "{}",
                String::from_utf8_lossy(text)
            );
        }
    }
}
