//! `doctor`: finds what needs a person's attention before it becomes an incident.

mod disk;

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_api::{DeviceView, DraftView, TokenView, TrustView, WhoamiView};
use tidegate_protocol::Timestamp;

use super::Context;
use crate::api::Api;
use crate::error::CliError;
use crate::keys::{Offline, holder, now, open_mode};
use crate::options::KeysDir;
use crate::output::{show, table};

const DAY: u64 = 86_400;
/// Time before its end at which a token has to be replaced.
const SOON: Duration = Duration::from_secs(14 * DAY);
/// Age in days at which somebody has to look whether a token is still in its safe.
const SAFE_DAYS: u64 = 180;

/// Severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Level {
    Ok,
    Warning,
    Critical,
}

#[derive(Debug, Deserialize, Serialize)]
struct Finding {
    level: Level,
    check: String,
    found: String,
    next: String,
}

/// Time before its expiry at which a file has to be signed again, and how to do that: people need
/// time to meet, the server signs its own files by itself.
fn notice(role: &str) -> (Duration, &'static str) {
    match role {
        "root" | "targets" => (Duration::from_secs(60 * DAY), "tidegate keys renew"),
        "timestamp" => (
            Duration::from_hours(6),
            "the server re-signs it every hour: check that a replica leads",
        ),
        "snapshot" | "director" => (
            Duration::from_secs(DAY),
            "the server signs it automatically: check that a replica leads",
        ),
        _ => (Duration::from_secs(30 * DAY), "tidegate keys renew"),
    }
}

/// Checks the server, the keys folder if there is one, and the files of this machine.
pub(crate) async fn run(
    context: &Context,
    dir: &KeysDir,
    data: Option<&Path>,
) -> Result<(), CliError> {
    let mut findings = rights(crate::profile::path().as_deref(), data);
    findings.extend(data.and_then(disk::check));
    match served(context, dir, &mut findings).await {
        // What is wrong on its host may be why it does not answer.
        Err(error) if data.is_some() => findings.push(Finding {
            level: Level::Critical,
            check: "server".into(),
            found: error.to_string(),
            next: "is it running? what its log says; docs/runbooks/problem-unavailable.md".into(),
        }),
        other => other?,
    }
    let worst = findings.iter().map(|f| f.level).max();
    show(context.format, &findings, |findings| {
        let rows = findings
            .iter()
            .map(|f| {
                let level = match f.level {
                    Level::Ok => "ok",
                    Level::Warning => "warning",
                    Level::Critical => "CRITICAL",
                };
                let next = if f.level == Level::Ok { "" } else { &f.next };
                [level.into(), f.check.clone(), f.found.clone(), next.into()]
            })
            .collect();
        table(["LEVEL", "CHECK", "FOUND", "NEXT"], rows)
    })?;
    if worst == Some(Level::Critical) {
        return Err(CliError::Failed("critical findings; see above".into()));
    }
    Ok(())
}

/// Checks what the server says, and what is in a keys folder.
async fn served(
    context: &Context,
    dir: &KeysDir,
    findings: &mut Vec<Finding>,
) -> Result<(), CliError> {
    let api = context.api()?;
    let mut add = |level, check: &str, found: String, next: &str| {
        findings.push(Finding {
            level,
            check: check.to_owned(),
            found,
            next: next.to_owned(),
        });
    };
    let trust: TrustView = api.get("/api/v1/trust").await?;
    add(Level::Ok, "server", "it answers".into(), "");
    if trust.root_sha256.is_none() {
        add(
            Level::Critical,
            "root of trust",
            "there is none: nothing can be published".into(),
            "tidegate keys ceremony, or keys init for trying out",
        );
    }
    for problem in &trust.problems {
        let next =
            "restore the database; tidegate keys push from a good folder; docs/how-to/recovery.md";
        add(Level::Critical, "stored files", problem.clone(), next);
    }
    for (role, expires) in &trust.expires {
        let (early, next) = notice(role);
        let (level, found) = judge(expires, early);
        add(level, &format!("{role}.json"), found, next);
    }
    let drafts: Vec<DraftView> = api.get("/api/v1/trust/drafts").await?;
    for draft in drafts {
        let found = format!(
            "version {} waits: signed by {} of {} people, for {}",
            draft.version,
            draft.signed_by.len(),
            draft.people,
            draft.purpose
        );
        let next = "tidegate release sign PRODUCT, or keys fetch and keys sign";
        add(Level::Warning, &draft.role, found, next);
    }
    let devices: Vec<DeviceView> = api.all("/api/v1/devices").await?;
    let refusing = devices.iter().filter(|d| d.refused.is_some()).count();
    let isolated = devices.iter().filter(|d| d.isolated.is_some()).count();
    for (count, check, next) in [
        (
            refusing,
            "devices that refuse the server's answers",
            "tidegate device show DEVICE says why",
        ),
        (
            isolated,
            "isolated devices",
            "tidegate device show DEVICE says why; device readmit",
        ),
    ] {
        let level = if count == 0 {
            Level::Ok
        } else {
            Level::Critical
        };
        add(level, check, format!("{count} of {}", devices.len()), next);
    }
    operators(&api, &mut add).await?;
    folder(dir, &trust, &mut add)
}

/// Checks who can still get in, and for how long.
async fn operators(
    api: &Api,
    add: &mut impl FnMut(Level, &str, String, &str),
) -> Result<(), CliError> {
    let who: WhoamiView = api.get("/api/v1/whoami").await?;
    let mine = who.expires_at.as_deref();
    let (level, found) = mine.map_or((Level::Ok, "does not expire".into()), |at| judge(at, SOON));
    let next = "an administrator makes you another: tidegate token create";
    add(level, "your token", found, next);
    if who.role != "admin" {
        return Ok(());
    }
    let tokens: Vec<TokenView> = api.get("/api/v1/tokens").await?;
    let admins = tokens.iter().filter(|t| t.role == "admin");
    let ends: Option<Vec<&str>> = admins.map(|t| t.expires_at.as_deref()).collect();
    // Times in one form and zone: the last in the order of letters is the latest.
    if let Some(last) = ends.and_then(|ends| ends.into_iter().max()) {
        let (level, found) = judge(last, SOON);
        let next = "tidegate token create NAME --role admin; after it nobody gets in but by tidegate token rescue on \
                    the server's host";
        add(level, "last administrator's token", found, next);
    }
    for token in tokens.iter().filter(|t| t.expires_at.is_none()) {
        if !token.break_glass {
            let next = "made before tokens had an end: make another and revoke it";
            let found = format!("{} ({}) never expires", token.name, token.role);
            add(Level::Warning, "token without an end", found, next);
        } else if age_days(&token.created_at).is_some_and(|days| days >= SAFE_DAYS) {
            let next = "look whether it is still in its safe; make another and revoke it";
            let found = format!("{} was made on {}", token.name, token.created_at);
            add(Level::Warning, "token for emergencies", found, next);
        }
    }
    Ok(())
}

/// Age of what was made at a time, in days.
fn age_days(made: &str) -> Option<u64> {
    let made: jiff::Timestamp = made.parse().ok()?;
    let age = now().since(Timestamp::from_micros(made.as_microsecond()));
    Some(age.as_secs() / DAY)
}

/// Checks who may read the profile, with its token, and a server's database and secrets.
fn rights(profile: Option<&Path>, data: Option<&Path>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut judge = |check: &str, path: &Path, next: &str| {
        if !path.is_file() {
            return;
        }
        let found = match open_mode(path) {
            None => (
                Level::Ok,
                format!("only its owner reads {}", path.display()),
            ),
            Some(mode) => (
                Level::Critical,
                format!("other users can read {} (mode {mode:o})", path.display()),
            ),
        };
        findings.push(Finding {
            level: found.0,
            check: check.into(),
            found: found.1,
            next: next.into(),
        });
    };
    if let Some(profile) = profile {
        let next = "chmod 600; revoke the token in it and make another: tidegate token create";
        judge("profile", profile, next);
    }
    let next =
        "chmod 600; it holds the online keys: docs/how-to/recovery.md, a database that was read";
    for name in ["", "-wal", "-shm", "-journal"] {
        if let Some(data) = data {
            judge("database", &data.join(format!("tidegate.db{name}")), next);
        }
    }
    if let Some(data) = data {
        let next = "chmod 600; revoke the token in it and make another: tidegate token create";
        judge("first token", &data.join("admin.token"), next);
    }
    findings
}

fn judge(expires: &str, early: Duration) -> (Level, String) {
    let Ok(at) = expires.parse::<jiff::Timestamp>() else {
        return (
            Level::Critical,
            format!("cannot parse its expiry: {expires}"),
        );
    };
    let at = Timestamp::from_micros(at.as_microsecond());
    let left = at.since(now());
    let text = if left >= Duration::from_secs(2 * DAY) {
        format!("valid for {} days, until {expires}", left.as_secs() / DAY)
    } else {
        format!("good for {} h, to {expires}", left.as_secs() / 3_600)
    };
    if left.is_zero() {
        (Level::Critical, format!("expired at {expires}"))
    } else if left < early {
        (Level::Warning, text)
    } else {
        (Level::Ok, text)
    }
}

/// Checks a keys folder without unlocking keys or asking for a passphrase.
fn folder(
    dir: &KeysDir,
    trust: &TrustView,
    add: &mut impl FnMut(Level, &str, String, &str),
) -> Result<(), CliError> {
    let access = dir.access();
    if !access.dir.exists() {
        return Ok(());
    }
    for name in holder::all_here(&access.dir)? {
        if holder::others_may_read(&access.dir, &name) {
            add(
                Level::Warning,
                "keys at rest",
                format!("other users of this machine can read the private keys of {name}"),
                "chmod 600; rotate the keys if somebody may have read them",
            );
        }
        if holder::lies_open(&access.dir, &name)? {
            add(
                Level::Warning,
                "keys at rest",
                format!("the private keys of {name} are not encrypted"),
                "make new ones with a passphrase, and tidegate keys rotate",
            );
        }
    }
    let offline = Offline::open_any(&access)?;
    let Some((_, root)) = offline.repository().root() else {
        return Ok(());
    };
    let hash = tidegate_delta::sha256(root).to_string();
    let same = trust.root_sha256.as_ref() == Some(&hash);
    if !same
        && offline.repository().version("root") >= trust.versions.get("root").copied().unwrap_or(0)
    {
        add(
            Level::Critical,
            "root of trust",
            "the server's root differs from this folder's".into(),
            "tidegate keys push, unless somebody has put another root there: docs/how-to/recovery.md",
        );
    }
    for role in ["root", "targets"] {
        let quorum = offline.quorum(role)?;
        if quorum.people() < 2 {
            add(
                Level::Warning,
                role,
                "one person alone can sign it".into(),
                "good for trying out; tidegate keys ceremony for a fleet",
            );
        }
        if !quorum.holders.iter().all(tidegate_trust::Holder::is_hybrid) {
            add(
                Level::Warning,
                role,
                "not all of its holders sign with ML-DSA".into(),
                "tidegate keys rotate to hybrid keys, when every client can read them",
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn what_other_users_can_read_of_a_server_or_a_profile_is_critical() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let profile = dir.path().join("profile.toml");
        for name in [
            "profile.toml",
            "tidegate.db",
            "tidegate.db-wal",
            "admin.token",
        ] {
            crate::keys::write_private(&dir.path().join(name), b"secret").unwrap();
        }
        let levels = || -> Vec<Level> {
            let found = rights(Some(&profile), Some(dir.path()));
            found.iter().map(|f| f.level).collect()
        };
        assert_eq!(levels(), [Level::Ok; 4]);
        let open = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(dir.path().join("tidegate.db-wal"), open).unwrap();
        assert_eq!(
            levels().iter().filter(|l| **l == Level::Critical).count(),
            1
        );
    }

    #[test]
    fn what_ends_soon_is_a_warning_and_what_has_ended_is_critical() {
        let at = |days: u64| now().plus(Duration::from_secs(days * DAY)).to_string();
        let early = Duration::from_secs(30 * DAY);
        assert_eq!(judge(&at(40), early).0, Level::Ok);
        assert_eq!(judge(&at(20), early).0, Level::Warning);
        assert_eq!(judge("2020-01-01T00:00:00Z", early).0, Level::Critical);
        assert_eq!(judge("tomorrow", early).0, Level::Critical);
    }
}
