//! Requests that the device signs.

use std::time::Duration;

use tidegate_protocol::{NONCE_HEADER, SIGNED_FOR_HEADER};
use tidegate_trust::SecretKey;
use tidegate_trust::http_signature::{RequestFacts, sign_request};

use super::client::{Answer, Client};
use super::error::TransportError;
use crate::host::platform;

/// Sends a request signed by the device: an empty one fetches a nonce, the second is signed with it.
/// The first has no body, so that nothing secret goes out before the server has shown to be one.
pub(crate) async fn send_signed(
    client: &mut Client,
    key: &SecretKey,
    path: &str,
    body: Vec<u8>,
) -> Result<Answer, TransportError> {
    const LIMIT: usize = 256 << 10;
    const DEADLINE: Duration = Duration::from_secs(30);
    let post = hyper::Method::POST;
    let first = client
        .send(post.clone(), path, &[], Vec::new(), LIMIT, DEADLINE)
        .await?;
    let Some(nonce) = first
        .headers
        .get(NONCE_HEADER)
        .and_then(|v| v.to_str().ok())
    else {
        return Ok(first);
    };
    let authority = client.authority().to_owned();
    let facts = RequestFacts {
        method: "POST",
        authority: &authority,
        path,
        query: "",
        body: &body,
    };
    let signed = sign_request(key, &facts, platform::now().as_secs(), nonce);
    let headers = [
        ("content-type", "application/json"),
        ("content-digest", signed.content_digest.as_str()),
        ("signature-input", signed.signature_input.as_str()),
        ("signature", signed.signature.as_str()),
        (SIGNED_FOR_HEADER, authority.as_str()),
    ];
    client
        .send(post, path, &headers, body, LIMIT, DEADLINE)
        .await
}
