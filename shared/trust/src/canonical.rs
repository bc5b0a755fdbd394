//! Canonical form of what is signed and hashed: sorted keys, no spaces, whole numbers.

use serde::Serialize;

use crate::TrustError;

/// Canonical bytes of `what`. A failure is an error, never fewer bytes: a signature over them
/// would cover any document that failed the same way.
pub(crate) fn to_bytes<T: Serialize + ?Sized>(
    what: &str,
    value: &T,
) -> Result<Vec<u8>, TrustError> {
    let value = serde_json::to_value(value).map_err(|e| TrustError::field(what, e.to_string()))?;
    sigstore_tuf::canonical_json::to_canonical_bytes(&value).map_err(|source| {
        TrustError::Metadata {
            file: what.into(),
            source,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Unwritable;

    impl Serialize for Unwritable {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("it has no form"))
        }
    }

    #[test]
    fn what_cannot_be_written_is_an_error_and_not_an_empty_text() {
        let error = to_bytes("report", &Unwritable).unwrap_err();
        assert!(error.to_string().contains("it has no form"), "{error}");
        let error = to_bytes("report", &0.5).unwrap_err();
        assert!(matches!(error, TrustError::Metadata { .. }), "{error}");
    }
}
