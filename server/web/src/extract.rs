//! Extractors for the caller and the contents of a request. Their refusals are problem documents
//! like all others.

use std::sync::Arc;

use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, MatchedPath, Path, Query, Request};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;
use tidegate_core::memory::access::{Need, Operator};
use tidegate_core::{App, CoreError};
use tidegate_protocol::{DeviceId, ProblemCode, SESSION_SCHEME};

use crate::ApiError;
use crate::connections::{Connection, Who};

/// Notes on the connection that its client has shown who it is.
fn prove(parts: &Parts, who: Who) -> Result<(), CoreError> {
    match parts.extensions.get::<Arc<Connection>>() {
        Some(connection) => connection.prove(who),
        None => Ok(()),
    }
}

/// Rights of a request, and whether a token for emergencies may make it.
#[derive(Clone, Copy)]
struct Door {
    need: Need,
    in_emergencies: bool,
}

async fn authorize(parts: &Parts, app: &App, door: Door) -> Result<Operator, ApiError> {
    let need = door.need;
    let bearer = credentials(&parts.headers, BEARER);
    let operator = app
        .authenticate(bearer.unwrap_or_default())
        .ok_or_else(|| {
            CoreError::refuse(
                ProblemCode::Unauthenticated,
                "send a valid operator token: Authorization: Bearer tgo_...",
            )
        })?;
    prove(parts, Who::Person)?;
    // Before it is refused: whoever tries what it is not for has it all the same.
    if operator.break_glass {
        let route = parts.extensions.get::<MatchedPath>();
        let route = route.map_or("?", MatchedPath::as_str);
        let request = format!("{} {route}", parts.method);
        app.note_break_glass(&operator, &request).await;
    }
    if !operator.role.may(need) {
        let text = format!(
            "this requires the right to {need}; your token has the role {}",
            operator.role
        );
        return Err(CoreError::refuse(ProblemCode::Forbidden, text).into());
    }
    if operator.break_glass && !door.in_emergencies {
        let text = "a token for emergencies stops and rolls back, and reads incidents alone";
        return Err(CoreError::refuse(ProblemCode::Forbidden, text).into());
    }
    Ok(operator)
}

macro_rules! operators {
    ($($(#[$doc:meta])* $name:ident => $need:ident, in_emergencies: $glass:literal;)*) => {$(
        $(#[$doc])*
        pub struct $name(pub Operator);

        impl FromRequestParts<Arc<App>> for $name {
            type Rejection = ApiError;
            async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
                let door = Door { need: Need::$need, in_emergencies: $glass };
                authorize(parts, app, door).await.map($name)
            }
        }
    )*};
}

operators! {
    /// Operator with the right to read.
    Reader => Read, in_emergencies: false;
    /// Operator with the right to read, also with a token for emergencies.
    AnyReader => Read, in_emergencies: true;
    /// Operator with the right to respond: stop and roll back.
    Responder => Respond, in_emergencies: true;
    /// Operator with the right to release: publish and roll out.
    Releaser => Release, in_emergencies: false;
    /// Operator with the right to administer: manage tokens and devices.
    Administrator => Administer, in_emergencies: false;
}

/// Scheme of operators' tokens.
const BEARER: &str = "Bearer";

/// Credentials of a request under a scheme; `None` if it has none. The name of a scheme is
/// case-insensitive, and spaces follow it (RFC 9110 section 11.4).
fn credentials<'a>(headers: &'a HeaderMap, scheme: &str) -> Option<&'a str> {
    let text = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (name, credentials) = text.split_once(' ')?;
    name.eq_ignore_ascii_case(scheme)
        .then(|| credentials.trim_matches(' '))
}

fn ticket(parts: &Parts) -> &str {
    credentials(&parts.headers, SESSION_SCHEME).unwrap_or_default()
}

/// Notes on a connection that a request shows a valid ticket or token, whatever it may do. Refuses where
/// there is no place for its like.
pub fn recognise(connection: &Connection, headers: &HeaderMap, app: &App) -> Result<(), ApiError> {
    if let Some(ticket) = credentials(headers, SESSION_SCHEME) {
        if app.authenticate_waiting(ticket).is_ok() {
            connection.prove(Who::Device)?;
        }
    } else if let Some(bearer) = credentials(headers, BEARER)
        && app.authenticate(bearer).is_some()
    {
        connection.prove(Who::Person)?;
    }
    Ok(())
}

/// Address of the client of a request, for people.
pub fn address(connection: Option<&Connection>, headers: &HeaderMap) -> String {
    let address = connection.map(|c| c.client(headers).to_string());
    address.unwrap_or_else(|| "unknown".into())
}

/// Device with a session.
pub struct Session(pub DeviceId);

impl FromRequestParts<Arc<App>> for Session {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let device = app.authenticate_device(ticket(parts))?;
        prove(parts, Who::Device)?;
        Ok(Self(device))
    }
}

/// Device with a session that may still wait to be accepted, the number of the signed request that
/// opened it, and the address of this request.
pub struct WaitingSession(pub DeviceId, pub u64, pub String);

impl FromRequestParts<Arc<App>> for WaitingSession {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let (device, session) = app.authenticate_waiting(ticket(parts))?;
        prove(parts, Who::Device)?;
        let connection = parts.extensions.get::<Arc<Connection>>();
        let from = address(connection.map(AsRef::as_ref), &parts.headers);
        Ok(Self(device, session, from))
    }
}

/// Whoever may fetch blobs and metadata: everybody, unless the settings close them to all but enrolled
/// devices and operators.
pub struct Fetcher {
    /// Cache directive for bytes that only such a client may have.
    pub cache: &'static str,
}

impl FromRequestParts<Arc<App>> for Fetcher {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        if !app.settings().devices.closed {
            return Ok(Self { cache: "public" });
        }
        if credentials(&parts.headers, BEARER).is_some() {
            let door = Door {
                need: Need::Read,
                in_emergencies: false,
            };
            authorize(parts, app, door).await?;
        } else if credentials(&parts.headers, SESSION_SCHEME).is_some() {
            app.authenticate_reader(ticket(parts))?;
            prove(parts, Who::Device)?;
        } else {
            let text = "blobs and metadata are served to enrolled devices and operators alone here: send the \
                        ticket of a session, or a token";
            return Err(CoreError::refuse(ProblemCode::Unauthenticated, text).into());
        }
        // No cache on the way may give it to others.
        Ok(Self { cache: "private" })
    }
}

/// Refusal of a body that is too large, or was cut off.
pub fn unread(error: &BytesRejection) -> ApiError {
    let code = if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
        ProblemCode::TooLarge
    } else {
        ProblemCode::InvalidRequest
    };
    CoreError::refuse(code, error.body_text()).into()
}

/// A JSON body.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        use axum::extract::rejection::JsonRejection;
        match axum::Json::<T>::from_request(request, state).await {
            Ok(axum::Json(value)) => Ok(Self(value)),
            Err(JsonRejection::BytesRejection(error)) => Err(unread(&error)),
            Err(error) => Err(CoreError::invalid(error.body_text()).into()),
        }
    }
}

/// Query parameters.
pub struct Params<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(Self(value)),
            Err(error) => Err(CoreError::invalid(error.body_text()).into()),
        }
    }
}

/// Path segments as text: the handler parses them into types that can refuse.
pub struct Segments<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Segments<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(Self(value)),
            Err(error) => Err(CoreError::invalid(error.body_text()).into()),
        }
    }
}

/// Parses a value sent as text.
pub fn parse<T>(text: &str) -> Result<T, ApiError>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    text.parse().map_err(|e| CoreError::invalid(e).into())
}

/// Parses a value that may be absent.
pub fn parse_opt<T>(text: Option<&str>) -> Result<Option<T>, ApiError>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    text.filter(|t| !t.is_empty()).map(parse).transpose()
}

/// Checks the reason of an order that needs one; a long one is cut.
pub fn needed_reason(text: &str) -> Result<String, ApiError> {
    let reason: String = text.trim().chars().take(300).collect();
    if reason.is_empty() {
        return Err(CoreError::invalid("give a reason: others will want to know").into());
    }
    Ok(reason)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn the_name_of_a_scheme_has_no_case_and_any_number_of_spaces_follow_it() {
        let found = |text: &'static str, scheme| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_static(text));
            credentials(&headers, scheme).map(str::to_owned)
        };
        for text in ["Bearer x", "bearer x", "BEARER   x", "bEaReR x "] {
            assert_eq!(found(text, BEARER).as_deref(), Some("x"), "{text}");
        }
        for text in ["Bearer", "Bearerx", "Bearer\tx", "Basic x", "x", ""] {
            assert_eq!(found(text, BEARER), None, "{text:?}");
        }
        let session = "tidegate-SESSION  t";
        assert_eq!(found(session, SESSION_SCHEME).as_deref(), Some("t"));
        assert_eq!(found("Tidegate-Sessions t", SESSION_SCHEME), None);
        // What is secret has a case.
        assert_eq!(found("bearer Tgo_X", BEARER).as_deref(), Some("Tgo_X"));
    }
}
