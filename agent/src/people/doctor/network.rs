//! Checks of the path to the server, over a connection of their own.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::Method;
use rustls::pki_types::ServerName;
use tidegate_protocol::{Finding, Verdict, paths};
use tokio::net::TcpStream;

use super::{bad_unless, certificate, notice_unless};
use crate::host::platform;
use crate::log;
use crate::net::TransportError;
use crate::net::address::Address;
use crate::net::client::Client;
use crate::net::line::{self, Line};
use crate::net::proxy::{self, Proxy};
use crate::net::tls::{self, TlsClock};
use crate::people::config::Config;

/// Timeout of one step.
const STEP: Duration = Duration::from_secs(10);
/// Longest time for a name to resolve without a notice.
const SLOW_NAME: Duration = Duration::from_secs(2);
/// Number of requests from which the link is judged.
const REQUESTS: usize = 12;
/// Days left of a certificate at or below which a notice is given.
const DAYS: i64 = 90;
/// Upper bound on lost segments, in percent.
const LOSS: f64 = 5.0;
/// Upper bound on the mean deviation of the round trip, in milliseconds.
const JITTER: f64 = 200.0;
/// Minimum path MTU, in bytes: what IPv6 requires of every link.
#[cfg(target_os = "linux")]
const MTU: u32 = 1280;
/// Upper bound on the clock skew, in seconds.
const SKEW: i64 = 300;

/// Checks the path to one server, step by step; stops at the first step that fails.
pub(super) async fn look(server: &str, config: &Config, clock: TlsClock) -> Vec<Finding> {
    let mut findings = Vec::new();
    let address = match Address::parse(server) {
        Ok(address) => address,
        Err(error) => return vec![super::bad("server", &error)],
    };
    let refused = Client::new(server, config.ca_file.as_deref(), config.plain_http, clock);
    if let Err(error @ TransportError::Plain(_)) = refused {
        let value = log::chain(&error);
        return vec![Finding::new("tls", value, "1.2 or 1.3", Verdict::Bad)];
    }
    let proxy = match proxy::for_host(address.tls, &address.host) {
        Ok(proxy) => proxy,
        Err(error) => {
            let finding = Finding::new("proxy", error, "usable, or none", Verdict::Bad);
            return vec![finding];
        }
    };
    let value = proxy.as_ref().map_or("none".into(), |p| format!("{p:?}"));
    findings.push(Finding::new("proxy", value, "as intended", Verdict::Good));
    let (host, port) = match &proxy {
        Some(proxy) => (proxy.host.as_str(), proxy.port),
        None => (address.host.as_str(), address.port),
    };
    let Some(addresses) = names(host, port, &mut findings).await else {
        return findings;
    };
    let Some(stream) = connect(&addresses, &mut findings).await else {
        return findings;
    };
    speak(
        stream,
        &address,
        proxy.as_ref(),
        config,
        clock,
        &mut findings,
    )
    .await;
    findings
}

async fn names(host: &str, port: u16, findings: &mut Vec<Finding>) -> Option<Vec<SocketAddr>> {
    let begun = Instant::now();
    let found = tokio::time::timeout(STEP, line::look_up(host, port)).await;
    let took = begun.elapsed();
    let (value, verdict, addresses) = match found {
        Ok(Ok(addresses)) => {
            let addresses: Vec<_> = addresses.into_iter().take(8).collect();
            let list: Vec<_> = addresses.iter().map(|a| a.ip().to_string()).collect();
            let value = format!(
                "{host} resolves to {} ({} ms)",
                list.join(", "),
                took.as_millis()
            );
            (value, notice_unless(took < SLOW_NAME), addresses)
        }
        Ok(Err(error)) => (format!("{host}: {error}"), Verdict::Bad, Vec::new()),
        Err(_) => (
            format!("{host}: no answer in time"),
            Verdict::Bad,
            Vec::new(),
        ),
    };
    let threshold = format!("resolves within {} s", SLOW_NAME.as_secs());
    findings.push(Finding::new("dns", value, threshold, verdict));
    (!addresses.is_empty()).then_some(addresses)
}

async fn connect(addresses: &[SocketAddr], findings: &mut Vec<Finding>) -> Option<TcpStream> {
    let mut failed = Vec::new();
    let mut stream = None;
    for address in addresses {
        let begun = Instant::now();
        match tokio::time::timeout(STEP, TcpStream::connect(address)).await {
            Ok(Ok(connected)) => {
                let value = format!("{address} answers ({} ms)", begun.elapsed().as_millis());
                findings.push(Finding::new("connect", value, "it answers", Verdict::Good));
                stream = Some(connected);
                break;
            }
            Ok(Err(error)) => failed.push(format!("{address}: {error}")),
            Err(_) => failed.push(format!("{address}: no answer in time")),
        }
    }
    if !failed.is_empty() {
        let verdict = notice_unless(false).max(bad_unless(stream.is_some()));
        let finding = Finding::new("connect", failed.join(", "), "each answers", verdict);
        findings.push(finding);
    }
    stream
}

/// Checks TLS, the server's certificate and clock, and the link itself.
async fn speak(
    mut stream: TcpStream,
    address: &Address,
    proxy: Option<&Proxy>,
    config: &Config,
    clock: TlsClock,
    findings: &mut Vec<Finding>,
) {
    let ends = stream.local_addr().ok().zip(stream.peer_addr().ok());
    let _ = stream.set_nodelay(true);
    let line: Box<dyn Line> = if address.tls {
        if let Some(proxy) = proxy {
            let tunnel = proxy::tunnel(&mut stream, proxy, &address.host, address.port);
            if let Ok(Err(error)) = tokio::time::timeout(STEP, tunnel).await {
                findings.push(Finding::new(
                    "proxy",
                    error,
                    "lets TLS through",
                    Verdict::Bad,
                ));
                return;
            }
        }
        match encrypt(stream, address, config, clock, findings).await {
            Some(line) => line,
            None => return,
        }
    } else {
        let value = "none (http); signed data is verified all the same";
        findings.push(Finding::new("tls", value, "1.2 or 1.3", Verdict::Notice));
        Box::new(stream)
    };
    let client = Client::over(line, address.clone(), proxy.cloned()).await;
    let mut client = match client {
        Ok(client) => client,
        Err(error) => {
            findings.push(super::bad("server", &error));
            return;
        }
    };
    ask(&mut client, ends, proxy.is_some(), findings).await;
}

async fn encrypt(
    stream: TcpStream,
    address: &Address,
    config: &Config,
    clock: TlsClock,
    findings: &mut Vec<Finding>,
) -> Option<Box<dyn Line>> {
    let seen = Arc::new(Mutex::new(None));
    let connector = match tls::observed(config.ca_file.as_deref(), clock, Some(seen.clone())) {
        Ok(connector) => connector,
        Err(error) => {
            findings.push(super::bad("tls", &error));
            return None;
        }
    };
    let name = ServerName::try_from(address.host.clone()).ok()?;
    let shaken = tokio::time::timeout(STEP, connector.connect(name, stream)).await;
    let leaf = seen.lock().unwrap_or_else(PoisonError::into_inner).take();
    let ends = leaf.as_deref().and_then(certificate::not_after);
    let left = ends.map(|ends| (ends - platform::now().as_secs()).div_euclid(86_400));
    let days = |left: i64| format!("{left} days left");
    let threshold = format!("valid chain and name, more than {DAYS} days left");
    let offered = tls::offered();
    match shaken {
        Ok(Ok(stream)) => {
            let (_, session) = stream.get_ref();
            let version = session
                .protocol_version()
                .map_or("?".into(), |v| format!("{v:?}"));
            let group = session
                .negotiated_key_exchange_group()
                .map_or("?".into(), |g| format!("{:?}", g.name()));
            let value = format!("{version} with {group} (offered: {offered})");
            findings.push(Finding::new("tls", value, "1.2 or 1.3", Verdict::Good));
            let value = left.map_or("its expiry cannot be read".into(), days);
            let verdict = left.map_or(Verdict::Unknown, |left| {
                notice_unless(left > DAYS).max(bad_unless(left >= 0))
            });
            findings.push(Finding::new("certificate", value, threshold, verdict));
            Some(Box::new(stream))
        }
        Ok(Err(error)) => {
            let mut value = error.to_string();
            let check = if leaf.is_some() { "certificate" } else { "tls" };
            if let Some(left) = left {
                value += &format!("; {}", days(left));
            }
            if leaf.is_none() {
                value += &format!(" (offered: {offered})");
            }
            findings.push(Finding::new(check, value, threshold, Verdict::Bad));
            None
        }
        Err(_) => {
            let value = "the handshake timed out";
            findings.push(Finding::new("tls", value, "an end", Verdict::Bad));
            None
        }
    }
}

async fn ask(
    client: &mut Client,
    ends: Option<(SocketAddr, SocketAddr)>,
    through_proxy: bool,
    findings: &mut Vec<Finding>,
) {
    let path = format!("{}timestamp.json", paths::METADATA);
    let mut trips = Vec::new();
    let mut told = false;
    for _ in 0..REQUESTS {
        let begun = Instant::now();
        let answer = client
            .send(Method::GET, &path, &[], Vec::new(), 64 << 10, STEP)
            .await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                findings.push(super::bad("server", &error));
                return;
            }
        };
        trips.push(begun.elapsed().as_secs_f64() * 1_000.0);
        if !std::mem::replace(&mut told, true) {
            let value = format!("answers {}", answer.status.as_u16());
            // 404 and 401 are fine: the question is whether it is a control plane, not whether it has
            // metadata yet, or shows it to whoever has no session.
            let good = answer.status.is_success() || matches!(answer.status.as_u16(), 401 | 404);
            findings.push(Finding::new("server", value, "200", bad_unless(good)));
            let date = answer.headers.get("date").and_then(|v| v.to_str().ok());
            findings.push(skew(date.and_then(http_date)));
        }
    }
    link(&trips, ends, through_proxy, findings);
}

fn skew(server: Option<i64>) -> Finding {
    let threshold = format!("within {SKEW} s of the server's");
    let Some(server) = server else {
        let value = "the server sends no date";
        return Finding::new("clock_skew", value, threshold, Verdict::Unknown);
    };
    let skew = platform::now().as_secs() - server;
    let value = format!("{skew} s ahead of the server's clock");
    Finding::new(
        "clock_skew",
        value,
        threshold,
        notice_unless(skew.abs() <= SKEW),
    )
}

/// Parses `Tue, 24 Nov 2026 04:00:00 GMT` (RFC 9110, IMF-fixdate) into seconds since the epoch.
fn http_date(text: &str) -> Option<i64> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let words: Vec<&str> = text.split_whitespace().collect();
    let [_, day, month, year, time, "GMT"] = words[..] else {
        return None;
    };
    let month = MONTHS
        .find(month)
        .filter(|at| month.len() == 3 && at % 3 == 0)?
        / 3
        + 1;
    let time = format!("{year}-{month:02}-{day}T{time}Z");
    time.parse().ok().map(jiff::Timestamp::as_second)
}

/// Reports round trip, jitter, loss and MTU: as the kernel measured them, else timed by the
/// requests.
fn link(
    trips: &[f64],
    ends: Option<(SocketAddr, SocketAddr)>,
    through_proxy: bool,
    findings: &mut Vec<Finding>,
) {
    let to = if through_proxy { " to the proxy" } else { "" };
    let jitter_threshold = format!("round trip varies by less than {JITTER} ms");
    let loss_threshold = format!("at most {LOSS} %");
    #[cfg(target_os = "linux")]
    if let Some(facts) = ends.and_then(|(local, peer)| super::socket::facts(local, peer).ok()) {
        let ms = |us: u32| f64::from(us) / 1_000.0;
        let jitter = ms(facts.deviation_us);
        let value = format!(
            "{:.1} ms round trip{to}, varies by {jitter:.1} ms",
            ms(facts.round_trip_us)
        );
        let verdict = notice_unless(jitter < JITTER);
        findings.push(Finding::new("link", value, jitter_threshold, verdict));
        let loss = f64::from(facts.sent_again) * 100.0 / f64::from(facts.sent.max(1));
        let value = format!(
            "{loss:.1} % ({} of {} segments retransmitted)",
            facts.sent_again, facts.sent
        );
        let verdict = notice_unless(loss <= LOSS);
        findings.push(Finding::new("loss", value, loss_threshold, verdict));
        let value = format!("packets of {} bytes", facts.mtu);
        let threshold = format!("at least {MTU} bytes");
        let verdict = notice_unless(facts.mtu >= MTU);
        findings.push(Finding::new("mtu", value, threshold, verdict));
        return;
    }
    let _ = ends;
    let count = u32::try_from(trips.len().max(1)).map_or(1.0, f64::from);
    let mean = trips.iter().sum::<f64>() / count;
    let jitter = trips.iter().map(|t| (t - mean).abs()).sum::<f64>() / count;
    let value = format!("{mean:.1} ms for a request{to}, varies by {jitter:.1} ms");
    let verdict = notice_unless(jitter < JITTER);
    findings.push(Finding::new("link", value, jitter_threshold, verdict));
    let value = "not available on this system";
    findings.push(Finding::new(
        "loss",
        value,
        loss_threshold,
        Verdict::Unknown,
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_of_an_answer_is_read() {
        assert_eq!(
            http_date("Sun, 06 Nov 1994 08:49:37 GMT"),
            Some(784_111_777)
        );
        assert_eq!(http_date("Sunday, 06-Nov-94 08:49:37 GMT"), None);
        assert_eq!(http_date("Sun, 06 anF 1994 08:49:37 GMT"), None);
        assert_eq!(http_date("rubbish"), None);
    }

    #[test]
    fn a_link_that_varies_is_flagged() {
        let mut findings = Vec::new();
        link(&[10.0, 11.0, 10.0], None, false, &mut findings);
        link(&[10.0, 900.0, 10.0, 1_400.0], None, true, &mut findings);
        let verdicts: Vec<_> = findings.iter().map(|f| f.verdict).collect();
        assert_eq!(verdicts[0], Verdict::Good);
        assert_eq!(verdicts[2], Verdict::Notice);
        assert!(findings[2].value.contains("to the proxy"));
    }
}
