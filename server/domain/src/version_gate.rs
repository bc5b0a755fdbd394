//! The version gate: whether a client of some version may still connect to a business server.

use std::collections::BTreeSet;

use tidegate_protocol::{Explained, Reason, Stage, Timestamp, Version};

use crate::admission::ProductPlan;

pub use crate::client::{GatePolicy, Tls, TlsError};

/// A client that wants to connect.
#[derive(Debug, Clone)]
pub struct Client<'a> {
    /// The version it runs; `None` if it named none that can be read.
    pub version: Option<&'a Version>,
    /// The version as it was named.
    pub named: &'a str,
    /// The TLS version it speaks; `None` if the caller does not know.
    pub tls: Option<Tls>,
    /// Its capabilities; `None` if the caller does not know.
    pub capabilities: Option<BTreeSet<&'a str>>,
}

/// The client may connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// Announced end of life of its version, with the notice; `None` if there is none.
    pub eol: Option<(Timestamp, String)>,
}

/// The client may not connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnedAway {
    /// The reason.
    pub reason: Explained,
    /// Version to upgrade to: the newest that is generally available.
    pub go_to: Option<Version>,
    /// Version to install first, if a stepping stone lies on the way.
    pub first: Option<Version>,
}

/// Decides whether a client may connect. A version that was never published is held only to the
/// minimum version: tomorrow's build must not be locked out by today's server. A client without a
/// readable version counts as older than all others, and never connects.
pub fn admit(
    plan: &ProductPlan,
    policy: &GatePolicy,
    client: &Client<'_>,
    now: Timestamp,
) -> Result<Welcome, TurnedAway> {
    let none = Version::new(0, 0, 0);
    let runs = client.version.unwrap_or(&none);
    let release = plan.releases.get(runs);
    let min = policy.min_version.as_ref().filter(|min| runs < *min);
    let refusal = if release.is_some_and(|r| r.stage == Stage::Withdrawn) {
        Some(Explained::new(Reason::ReleaseWithdrawn, runs.to_string()))
    } else if let Some(min) = min {
        let text = format!("{runs} is older than {min}");
        Some(Explained::new(Reason::ClientTooOld, text))
    } else if let Some(release) = release
        && (release.stage == Stage::Eol && release.eol.is_none()
            || release.eol.as_ref().is_some_and(|(at, _)| *at <= now))
    {
        let notice = release.eol.as_ref().map_or("", |(_, notice)| notice);
        let text = format!("{runs} {notice}");
        Some(Explained::new(Reason::ReleaseEol, text.trim_end()))
    } else if let (Some(min), Some(tls)) = (policy.min_tls, client.tls)
        && tls < min
    {
        Some(Explained::new(
            Reason::ClientTlsTooOld,
            format!("{tls} is older than {min}"),
        ))
    } else if let Some(have) = &client.capabilities
        && let Some(lacks) = policy
            .capabilities
            .iter()
            .find(|c| !have.contains(c.as_str()))
    {
        Some(Explained::new(Reason::ClientLacksCapability, lacks))
    } else if client.version.is_none() {
        let named: String = client.named.chars().take(40).collect();
        let text = format!("{named:?} is not a version");
        Some(Explained::new(Reason::ClientTooOld, text))
    } else {
        None
    };
    let Some(reason) = refusal else {
        return Ok(Welcome {
            eol: release.and_then(|r| r.eol.clone()),
        });
    };
    let supported =
        |version: &Version| policy.min_version.as_ref().is_none_or(|min| version >= min);
    let go_to = plan
        .releases
        .iter()
        .rev()
        .find(|(version, r)| {
            r.stage == Stage::Ga
                && supported(version)
                && r.eol.as_ref().is_none_or(|(at, _)| *at > now)
        })
        .map(|(version, _)| version.clone())
        .filter(|version| version != runs);
    let first = go_to.as_ref().and_then(|goal| {
        plan.releases
            .iter()
            .filter(|(version, _)| *version > runs && *version < goal)
            .find(|(_, r)| r.artifacts.values().any(|a| a.stepping_stone))
            .map(|(version, _)| version.clone())
    });
    Err(TurnedAway {
        reason,
        go_to,
        first,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::{ArtifactPlan, ReleasePlan};
    use std::collections::BTreeMap;
    use tidegate_protocol::{Image, Sha256};

    const NOW: Timestamp = Timestamp::from_secs(1_000_000);

    fn v(text: &str) -> Version {
        text.parse().unwrap()
    }

    fn plan() -> ProductPlan {
        let release = |stage, stone| ReleasePlan {
            stage,
            eol: None,
            artifacts: BTreeMap::from([(
                "linux-x86_64".parse().unwrap(),
                ArtifactPlan {
                    image: Image {
                        sha256: Sha256::from_bytes([1; 32]),
                        length: 1,
                    },
                    stepping_stone: stone,
                    min_from: None,
                    allow_rollback: true,
                    full_bytes: 1,
                    deltas: BTreeMap::new(),
                },
            )]),
        };
        ProductPlan {
            releases: BTreeMap::from([
                (v("1.0.0"), release(Stage::Ga, false)),
                (v("2.0.0"), release(Stage::Ga, true)),
                (v("2.5.0"), release(Stage::Withdrawn, false)),
                (v("3.0.0"), release(Stage::Ga, false)),
                (v("4.0.0"), release(Stage::Beta, false)),
            ]),
            ..ProductPlan::default()
        }
    }

    fn ask(plan: &ProductPlan, policy: &GatePolicy, version: &str) -> Result<Welcome, TurnedAway> {
        let version = v(version);
        let client = Client {
            version: Some(&version),
            named: "",
            tls: None,
            capabilities: None,
        };
        admit(plan, policy, &client, NOW)
    }

    #[test]
    fn who_names_no_version_never_connects_and_is_told_where_to_go() {
        let client = Client {
            version: None,
            named: "three",
            tls: None,
            capabilities: None,
        };
        let away = admit(&plan(), &GatePolicy::default(), &client, NOW).unwrap_err();
        assert_eq!(away.reason.code, Reason::ClientTooOld);
        assert!(away.reason.detail.contains("\"three\" is not a version"));
        assert_eq!(away.go_to, Some(v("3.0.0")));
    }

    #[test]
    fn who_is_too_old_is_told_where_to_go_and_over_what() {
        let policy = GatePolicy {
            min_version: Some(v("2.1.0")),
            ..GatePolicy::default()
        };
        assert!(ask(&plan(), &policy, "3.0.0").is_ok());
        assert!(
            ask(&plan(), &policy, "9.0.0").is_ok(),
            "a build of tomorrow"
        );
        let away = ask(&plan(), &policy, "1.0.0").unwrap_err();
        assert_eq!(away.reason.code, Reason::ClientTooOld);
        assert_eq!(
            (away.go_to, away.first),
            (Some(v("3.0.0")), Some(v("2.0.0")))
        );
    }

    #[test]
    fn a_withdrawn_version_is_turned_away() {
        let away = ask(&plan(), &GatePolicy::default(), "2.5.0").unwrap_err();
        assert_eq!(away.reason.code, Reason::ReleaseWithdrawn);
        assert_eq!(away.first, None);
    }

    #[test]
    fn an_end_of_life_is_announced_before_it_comes() {
        let mut plan = plan();
        let soon = NOW.plus(std::time::Duration::from_hours(1));
        plan.releases.get_mut(&v("1.0.0")).unwrap().eol = Some((soon, "call us".into()));
        let policy = GatePolicy::default();
        assert_eq!(
            ask(&plan, &policy, "1.0.0").unwrap().eol,
            Some((soon, "call us".into()))
        );
        plan.releases.get_mut(&v("1.0.0")).unwrap().eol = Some((NOW, "call us".into()));
        let away = ask(&plan, &policy, "1.0.0").unwrap_err();
        assert_eq!(
            away.reason,
            Explained::new(Reason::ReleaseEol, "1.0.0 call us")
        );
    }

    #[test]
    fn tls_and_capabilities_count_only_where_they_are_told() {
        let policy = GatePolicy {
            min_tls: Some(Tls::V1_2),
            capabilities: BTreeSet::from(["fix44".into()]),
            ..GatePolicy::default()
        };
        let version = v("3.0.0");
        let ask = |tls: Option<&str>, capabilities: Option<&[&'static str]>| {
            let client = Client {
                version: Some(&version),
                named: "",
                tls: tls.map(|t| t.parse().unwrap()),
                capabilities: capabilities.map(|c| c.iter().copied().collect()),
            };
            admit(&plan(), &policy, &client, NOW).map_err(|away| away.reason.code)
        };
        assert!(ask(None, None).is_ok());
        assert!(ask(Some("TLSv1.3"), Some(&["fix44", "x"])).is_ok());
        assert_eq!(ask(Some("TLSv1.1"), None), Err(Reason::ClientTlsTooOld));
        assert_eq!(ask(None, Some(&["x"])), Err(Reason::ClientLacksCapability));
    }
}
