//! Signed requests and join tokens. Input: a byte that says which; then
//!
//! 0. `method`, `authority`, `path`, `query`, the three headers and the body, with a byte `ff`
//!    (which is in no text) after each but the last;
//! 1. which header, which byte and which bit of it to damage, when (8 bytes), then `method`,
//!    `authority`, `path`, `query`, nonce and body: signed here, then damaged;
//! 2. a join token.

use tidegate_protocol::{JoinTokenId, Sha256};
use tidegate_trust::http_signature::{
    RequestFacts, SignatureError, SignatureHeaders, sign_request, verify_request,
};
use tidegate_trust::{Backstop, JoinToken, SecretKey};

use crate::Seed;
use crate::world::key;

/// The device's key.
const DEVICE: u8 = 5;

/// One input.
pub fn run(data: &[u8]) {
    match data.split_first() {
        Some((0, rest)) => drop(received(rest)),
        Some((1, rest)) => drop(damaged(rest)),
        Some((2, rest)) => drop(token(rest)),
        _ => {}
    }
}

/// The next text up to `ff`; `None` also when it is no text.
fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let end = rest.iter().position(|b| *b == 0xff)?;
    let (text, after) = rest.split_at(end);
    *rest = &after[1..];
    std::str::from_utf8(text).ok()
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*taken)
}

/// An accepted request is, to the last byte, the one that the device would have sent.
fn received(mut rest: &[u8]) -> Option<()> {
    let rest = &mut rest;
    let (method, authority, path, query) = (text(rest)?, text(rest)?, text(rest)?, text(rest)?);
    let headers = SignatureHeaders {
        content_digest: text(rest)?.to_owned(),
        signature_input: text(rest)?.to_owned(),
        signature: text(rest)?.to_owned(),
    };
    let request = RequestFacts {
        method,
        authority,
        path,
        query,
        body: rest,
    };
    let signer = verify_request(&headers, &request).ok()?;
    let device = key(DEVICE);
    assert_eq!(signer.key, device.public(), "a key that has signed nothing");
    let (_, created) = headers.signature_input.split_once(";created=")?;
    let created = created
        .split(';')
        .next()?
        .parse()
        .expect("it was read before");
    let again = sign_request(&device, &request, created, &signer.nonce);
    assert_eq!(headers, again);
    Some(())
}

/// The device's signature is accepted, and nothing else.
fn damaged(mut rest: &[u8]) -> Option<()> {
    let rest = &mut rest;
    let [which, low, high, bit] = take(rest)?;
    let created = i64::from_le_bytes(take(rest)?);
    let (method, authority, path, query) = (text(rest)?, text(rest)?, text(rest)?, text(rest)?);
    let nonce = text(rest)?;
    let request = RequestFacts {
        method,
        authority,
        path,
        query,
        body: rest,
    };
    let device = key(DEVICE);
    let mut headers = sign_request(&device, &request, created, nonce);
    match verify_request(&headers, &request) {
        Ok(signer) => assert!(signer.key == device.public() && signer.nonce == nonce),
        Err(error) => {
            assert_eq!(
                error,
                SignatureError::Profile,
                "only the nonce can be amiss"
            );
            return None;
        }
    }
    let header = match which % 3 {
        0 => &mut headers.content_digest,
        1 => &mut headers.signature_input,
        _ => &mut headers.signature,
    };
    let mut bytes = std::mem::take(header).into_bytes();
    let at = usize::from(u16::from_le_bytes([low, high])) % bytes.len();
    bytes[at] ^= 1 << (bit % 7);
    *header = String::from_utf8(bytes).expect("an accepted header is ASCII and stays so");
    assert!(
        verify_request(&headers, &request).is_err(),
        "one bit was changed"
    );
    Some(())
}

/// A token that can be read survives being written, and shows its secret to nobody.
fn token(text: &[u8]) -> Option<()> {
    let token: JoinToken = std::str::from_utf8(text).ok()?.parse().ok()?;
    assert_eq!(token.to_string().parse().as_ref(), Ok(&token));
    assert_eq!(format!("{token:?}"), format!("JoinToken({})", token.id));
    Some(())
}

/// Requests of a device, and a token.
pub fn seeds() -> Vec<Seed> {
    let request = RequestFacts {
        method: "POST",
        authority: "tidegate.example:8420",
        path: "/device/v1/session",
        query: "a=1",
        body: b"{\"device\":1}",
    };
    let line = [
        request.method,
        request.authority,
        request.path,
        request.query,
    ];
    let of = |device: &SecretKey, created| sign_request(device, &request, created, "n-1");
    let token = JoinToken {
        id: JoinTokenId::from_random([1; 16]),
        secret: [2; 32],
        root: Sha256::from_bytes([3; 32]),
        backstop: Backstop {
            targets: 4,
            roles: [1, 2, 30],
        },
    };
    let mut seeds = vec![(
        "token".to_owned(),
        [vec![2], token.to_string().into_bytes()].concat(),
    )];
    for (name, created) in [("now", 1_700_000_000), ("before-1970", -1)] {
        let SignatureHeaders {
            content_digest,
            signature_input,
            signature,
        } = of(&key(DEVICE), created);
        let texts = [&content_digest[..], &signature_input, &signature];
        let mut input = vec![0];
        for text in line.iter().chain(&texts) {
            input.extend([text.as_bytes(), &[0xff]].concat());
        }
        input.extend(request.body);
        seeds.push((format!("received-{name}"), input));
    }
    for which in 0..3 {
        let mut input = vec![1, which, 40, 0, 0];
        input.extend(1_700_000_000_i64.to_le_bytes());
        for text in line.iter().chain(&["n-1"]) {
            input.extend([text.as_bytes(), &[0xff]].concat());
        }
        input.extend(request.body);
        seeds.push((format!("damaged-{which}"), input));
    }
    seeds
}
