//! Signed requests: one fixed profile of RFC 9421 over Ed25519.
//!
//! The signature covers `@method`, `@authority`, `@path`, `@query` and `content-digest` (RFC 9530,
//! SHA-256). Its parameters are `created`, the server's `nonce`, `keyid` (the public key in
//! hexadecimal), `alg="ed25519"` and `tag="tidegate-v1"`. Freshness comes from the nonce, so that a
//! device needs no clock; `created` is informative. A verifier rebuilds the whole parameter list
//! from the few values that may vary: anything else in the header does not match.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::Digest as _;

use crate::{PublicKey, SecretKey};

/// Parts of a request that are signed.
#[derive(Debug, Clone, Copy)]
pub struct RequestFacts<'a> {
    /// Upper-case method.
    pub method: &'a str,
    /// Host, with the port if it is not the default.
    pub authority: &'a str,
    /// Absolute path.
    pub path: &'a str,
    /// Query string without the question mark; empty when there is none.
    pub query: &'a str,
    /// The whole body.
    pub body: &'a [u8],
}

/// The three headers that a signed request carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureHeaders {
    /// `Content-Digest`.
    pub content_digest: String,
    /// `Signature-Input`.
    pub signature_input: String,
    /// `Signature`.
    pub signature: String,
}

/// Reason a signed request was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The digest does not match the body.
    #[error("content-digest does not match the body")]
    Digest,
    /// The header does not follow the profile.
    #[error("signature-input does not follow the profile tidegate-v1")]
    Profile,
    /// The signature does not match.
    #[error("the request's signature does not match")]
    Signature,
}

/// Signer of a verified request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    /// The key that signed.
    pub key: PublicKey,
    /// The nonce that was signed; the caller checks that it is its own and fresh.
    pub nonce: String,
}

fn content_digest(body: &[u8]) -> String {
    format!("sha-256=:{}:", BASE64.encode(sha2::Sha256::digest(body)))
}

fn parameters(created: i64, nonce: &str, key: &PublicKey) -> String {
    format!(
        "(\"@method\" \"@authority\" \"@path\" \"@query\" \"content-digest\");\
         created={created};nonce=\"{nonce}\";keyid=\"{key}\";alg=\"ed25519\";tag=\"tidegate-v1\""
    )
}

/// Signature base, RFC 9421 section 2.5: one line per component, the parameters last.
fn base(request: &RequestFacts<'_>, digest: &str, parameters: &str) -> String {
    format!(
        "\"@method\": {}\n\"@authority\": {}\n\"@path\": {}\n\"@query\": ?{}\n\
         \"content-digest\": {digest}\n\"@signature-params\": {parameters}",
        request.method,
        request.authority.to_ascii_lowercase(),
        request.path,
        request.query,
    )
}

/// Signs a request. `created` is in seconds since the epoch.
pub fn sign_request(
    key: &SecretKey,
    request: &RequestFacts<'_>,
    created: i64,
    nonce: &str,
) -> SignatureHeaders {
    let content_digest = content_digest(request.body);
    let parameters = parameters(created, nonce, &key.public());
    let signature = key.sign(base(request, &content_digest, &parameters).as_bytes());
    SignatureHeaders {
        content_digest,
        signature_input: format!("tg={parameters}"),
        signature: format!("tg=:{}:", BASE64.encode(signature)),
    }
}

/// Checks a signed request. Judging the nonce and the key is up to the caller.
pub fn verify_request(
    headers: &SignatureHeaders,
    request: &RequestFacts<'_>,
) -> Result<Signer, SignatureError> {
    if headers.content_digest != content_digest(request.body) {
        return Err(SignatureError::Digest);
    }
    let (created, nonce, key) = parse(&headers.signature_input).ok_or(SignatureError::Profile)?;
    let parameters = parameters(created, nonce, &key);
    if headers.signature_input != format!("tg={parameters}") {
        return Err(SignatureError::Profile);
    }
    let signature = headers
        .signature
        .strip_prefix("tg=:")
        .and_then(|rest| rest.strip_suffix(':'))
        .and_then(|text| BASE64.decode(text).ok())
        .ok_or(SignatureError::Signature)?;
    key.verify(
        base(request, &headers.content_digest, &parameters).as_bytes(),
        &signature,
    )
    .map_err(|_| SignatureError::Signature)?;
    Ok(Signer {
        key,
        nonce: nonce.to_owned(),
    })
}

/// Extracts the values that may vary; the caller rebuilds the header from them and compares.
fn parse(input: &str) -> Option<(i64, &str, PublicKey)> {
    let value = |name: &str, end: &str| {
        let rest = &input[input.find(name)? + name.len()..];
        Some(&rest[..rest.find(end)?])
    };
    let created = value(";created=", ";")?.parse().ok()?;
    let nonce = value(";nonce=\"", "\"")?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if nonce.is_empty() || nonce.len() > 200 || !nonce.chars().all(plain) {
        return None;
    }
    Some((created, nonce, value(";keyid=\"", "\"")?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(body: &[u8]) -> RequestFacts<'_> {
        RequestFacts {
            method: "POST",
            authority: "tidegate.example:8420",
            path: "/device/v1/session",
            query: "",
            body,
        }
    }

    fn signed(body: &[u8]) -> SignatureHeaders {
        sign_request(
            &SecretKey::from_seed([5; 32]),
            &facts(body),
            1_700_000_000,
            "n-1",
        )
    }

    #[test]
    fn a_signed_request_names_its_key_and_nonce() {
        let signer = verify_request(&signed(b"{}"), &facts(b"{}")).unwrap();
        assert_eq!(signer.key, SecretKey::from_seed([5; 32]).public());
        assert_eq!(signer.nonce, "n-1");
    }

    #[test]
    fn any_change_of_the_request_is_refused() {
        let headers = signed(b"{}");
        let original = facts(b"{}");
        assert_eq!(
            verify_request(&headers, &facts(b"{ }")),
            Err(SignatureError::Digest)
        );
        for changed in [
            RequestFacts {
                method: "PUT",
                ..original
            },
            RequestFacts {
                authority: "other.example",
                ..original
            },
            RequestFacts {
                path: "/device/v1/enroll",
                ..original
            },
            RequestFacts {
                query: "a=1",
                ..original
            },
        ] {
            assert_eq!(
                verify_request(&headers, &changed),
                Err(SignatureError::Signature)
            );
        }
    }

    #[test]
    fn parameters_cannot_be_added_dropped_or_repeated() {
        let good = signed(b"{}");
        for (from, to) in [
            (";tag=", ";x=1;tag="),
            (";alg=\"ed25519\"", ""),
            (" \"content-digest\"", ""),
            (";created=", ";created=1;created="),
        ] {
            let mut bad = good.clone();
            bad.signature_input = bad.signature_input.replace(from, to);
            assert_ne!(bad.signature_input, good.signature_input);
            assert!(
                verify_request(&bad, &facts(b"{}")).is_err(),
                "{from} -> {to}"
            );
        }
    }
}
