//! Health checks and restarts: commands with a deadline, and probes that need no command.
//!
//! A check is a command, or one or more of these words, all of which must hold before the deadline:
//!
//! ```text
//! http://HOST[:PORT][/PATH]   answers with a status from 200 to 299
//! tcp:HOST:PORT               takes a connection
//! unit:NAME                   systemd says that the unit is active
//! file:PATH:SECONDS           was written within so many seconds
//! ```
//!
//! Probes are repeated until they hold: a service takes its time to come up. A command is run once,
//! and may wait by itself.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use tidegate_protocol::{Explained, Reason};
use tidegate_trust::CommandLine;

use super::command::{Call, Ended};

/// Interval between attempts of a probe that does not hold yet.
const AGAIN: Duration = Duration::from_millis(250);
/// Timeout of one attempt.
const ONE: Duration = Duration::from_secs(5);

/// Context in which a command runs.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The folder of the version; commands run in it.
    pub folder: PathBuf,
    /// The release.
    pub release: String,
    /// The device's name.
    pub device_name: String,
    /// Whether the command is the release's, which its publisher signed; otherwise it is this machine's.
    pub signed: bool,
}

/// Runs a command to its end or its deadline; at the deadline its whole process group is killed.
/// `failed` and `late` are the reasons to report for a failure and for a timeout.
pub fn run(
    line: &CommandLine,
    around: &Surroundings,
    failed: Reason,
    late: Reason,
) -> Result<(), Explained> {
    let call = Call {
        line,
        arguments: &[],
        folder: &around.folder,
        environment: &[
            ("TIDEGATE_RELEASE", around.release.clone()),
            ("TIDEGATE_DEVICE_NAME", around.device_name.clone()),
        ],
    };
    match call.run() {
        Ended::Well(_) => Ok(()),
        Ended::Badly(what) => Err(Explained::new(failed, what)),
        // A release that names a program and does not bring it has failed. All else is the machine's fault, and
        // no verdict on the version.
        Ended::NotStarted(not) if around.signed && not.by_folder => {
            Err(Explained::new(failed, not.what))
        }
        Ended::NotStarted(not) => Err(Explained::new(Reason::CommandNotStarted, not.what)),
        Ended::Late(said) => {
            let what = format!("no answer within {} s: {said}", line.timeout_s.max(1));
            Err(Explained::new(late, what.trim_end_matches([' ', ':'])))
        }
    }
}

/// Checks the health of the version in use.
pub fn check(line: &CommandLine, around: &Surroundings) -> Result<(), Explained> {
    let Some(questions) = questions(&line.command) else {
        return run(line, around, Reason::HealthFailed, Reason::HealthTimeout);
    };
    let deadline = Instant::now() + Duration::from_secs(u64::from(line.timeout_s.max(1)));
    let mut last = Explained::from(Reason::HealthFailed);
    for question in &questions {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(last);
            }
            match question.ask(left.min(ONE), around) {
                Ok(()) => break,
                Err(why) => {
                    last = Explained::new(why.code, format!("{}: {}", question.word, why.detail));
                }
            }
            std::thread::sleep(AGAIN.min(deadline.saturating_duration_since(Instant::now())));
        }
    }
    Ok(())
}

/// Names of the programs that a check or another command starts.
pub(crate) fn programs(line: &CommandLine) -> Vec<&str> {
    match questions(&line.command) {
        None => line
            .command
            .first()
            .map(String::as_str)
            .into_iter()
            .collect(),
        Some(questions) => {
            let unit = |question: &Question<'_>| matches!(question.kind, Kind::Unit(_));
            questions
                .iter()
                .any(unit)
                .then_some("systemctl")
                .into_iter()
                .collect()
        }
    }
}

/// Validates a check before it is ever run; the error says what is wrong with it.
pub(crate) fn look_at(words: &[String]) -> Result<(), String> {
    const BEGINS: [&str; 5] = ["http://", "https://", "tcp:", "unit:", "file:"];
    let asks = |word: &&String| BEGINS.iter().any(|begin| word.starts_with(begin));
    let Some(first) = words.iter().find(asks) else {
        return Ok(());
    };
    if let Some(other) = words.iter().find(|word| !asks(word)) {
        return Err(format!(
            "{first:?} is a probe and {other:?} is a command: a check is either probes or one \
             command"
        ));
    }
    words.iter().try_for_each(|word| look_at_one(word))
}

fn look_at_one(word: &str) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("{word:?}: {what}"));
    match question(word).map(|question| question.kind) {
        None if word.starts_with("https://") => {
            wrong("https is not supported: use a command, or an address without TLS")
        }
        None => wrong("expected file:PATH:SECONDS"),
        Some(Kind::Http { place, .. }) => {
            let (host, port) = place.rsplit_once(':').unwrap_or((place, "80"));
            if host.is_empty() || (!place.ends_with(']') && port.parse::<u16>().is_err()) {
                return wrong("expected http://HOST[:PORT][/PATH]");
            }
            Ok(())
        }
        Some(Kind::Tcp(place)) => match place.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(()),
            _ => wrong("expected tcp:HOST:PORT"),
        },
        Some(Kind::Unit("")) => wrong("the unit's name is missing"),
        Some(Kind::File(path, _)) if path.as_os_str().is_empty() => {
            wrong("the file's path is missing")
        }
        Some(Kind::Unit(_) | Kind::File(..)) => Ok(()),
    }
}

/// One probe of a health check.
struct Question<'a> {
    word: &'a str,
    kind: Kind<'a>,
}

enum Kind<'a> {
    Http { place: &'a str, path: &'a str },
    Tcp(&'a str),
    Unit(&'a str),
    File(&'a Path, Duration),
}

/// Parses the words as probes; `None` if one of them is not, which makes it a command.
fn questions(words: &[String]) -> Option<Vec<Question<'_>>> {
    if words.is_empty() {
        return None;
    }
    words.iter().map(|word| question(word)).collect()
}

fn question(word: &str) -> Option<Question<'_>> {
    let kind = if let Some(rest) = word.strip_prefix("http://") {
        let (place, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        Kind::Http { place, path }
    } else if let Some(place) = word.strip_prefix("tcp:") {
        Kind::Tcp(place)
    } else if let Some(unit) = word.strip_prefix("unit:") {
        Kind::Unit(unit)
    } else {
        let (path, age) = word.strip_prefix("file:")?.rsplit_once(':')?;
        Kind::File(Path::new(path), Duration::from_secs(age.parse().ok()?))
    };
    Some(Question { word, kind })
}

impl Question<'_> {
    fn ask(&self, within: Duration, around: &Surroundings) -> Result<(), Explained> {
        let failed = |what: String| Explained::new(Reason::HealthFailed, what);
        match self.kind {
            Kind::Tcp(place) => connect(place, within).map(drop).map_err(failed),
            Kind::Http { place, path } => http(place, path, within).map_err(failed),
            Kind::Unit(unit) => {
                let line = CommandLine {
                    command: ["systemctl", "is-active", "--quiet", "--", unit]
                        .map(str::to_owned)
                        .to_vec(),
                    timeout_s: u32::try_from(within.as_secs()).unwrap_or(1),
                };
                run(&line, around, Reason::HealthFailed, Reason::HealthFailed)
                    .map_err(|why| Explained::new(why.code, format!("not active {}", why.detail)))
            }
            Kind::File(path, age) => {
                let written = std::fs::metadata(around.folder.join(path))
                    .and_then(|meta| meta.modified())
                    .map_err(|e| failed(e.to_string()))?;
                // A file from the future counts as fresh.
                let found = SystemTime::now()
                    .duration_since(written)
                    .unwrap_or_default();
                if found <= age {
                    return Ok(());
                }
                Err(failed(format!("written {} s ago", found.as_secs())))
            }
        }
    }
}

fn connect(place: &str, within: Duration) -> Result<TcpStream, String> {
    let mut last = "no such host".to_owned();
    for address in place.to_socket_addrs().map_err(|e| e.to_string())? {
        match TcpStream::connect_timeout(&address, within) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}

fn http(place: &str, path: &str, within: Duration) -> Result<(), String> {
    // Words are split at spaces and line breaks already; nothing else may end the request line.
    if path.chars().any(char::is_control) {
        return Err("its path has control characters".into());
    }
    let failed = |e: std::io::Error| e.to_string();
    let with_port = if place
        .rsplit(':')
        .next()
        .is_some_and(|p| p.parse::<u16>().is_ok())
    {
        place.to_owned()
    } else {
        format!("{place}:80")
    };
    let mut stream = connect(&with_port, within)?;
    stream.set_read_timeout(Some(within)).map_err(failed)?;
    stream.set_write_timeout(Some(within)).map_err(failed)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {place}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(failed)?;
    // `HTTP/1.1 204`: the rest does not matter.
    let mut head = [0; 12];
    stream.read_exact(&mut head).map_err(failed)?;
    let text = String::from_utf8_lossy(&head);
    match text
        .strip_prefix("HTTP/1.")
        .and_then(|t| t.split(' ').nth(1))
    {
        Some(status) if status.starts_with('2') => Ok(()),
        Some(status) => Err(format!("it answers {status}")),
        None => Err("the answer is not HTTP".into()),
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn asked(words: &[&str], folder: &Path) -> Result<(), Explained> {
        let line = CommandLine {
            command: words.iter().map(|w| (*w).to_owned()).collect(),
            timeout_s: 1,
        };
        let around = Surroundings {
            folder: folder.to_owned(),
            release: "1.0.0".into(),
            device_name: "t".into(),
            signed: true,
        };
        check(&line, &around)
    }

    /// Answers every connection with a status line.
    fn answering(status: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut byte = [0];
                let _ = stream.read(&mut byte);
                let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
            }
        });
        place
    }

    #[test]
    fn a_service_is_asked_over_http_and_tcp() {
        let folder = tempfile::tempdir().unwrap();
        let (good, bad) = (answering("204 No Content"), answering("503 Down"));
        let url = format!("http://{good}/ready");
        let tcp = format!("tcp:{good}");
        assert_eq!(asked(&[&url, &tcp], folder.path()), Ok(()));
        let refused = asked(&[&format!("http://{bad}/ready")], folder.path()).unwrap_err();
        assert!(refused.detail.contains("503"), "{refused}");
        let nobody = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let refused = asked(&[&format!("tcp:{nobody}")], folder.path()).unwrap_err();
        assert_eq!(refused.code, Reason::HealthFailed);
    }

    #[test]
    fn a_check_that_cannot_be_started_is_a_verdict_on_a_release_that_lacks_it_alone() {
        let folder = tempfile::tempdir().unwrap();
        let said = |program: &str, signed: bool| {
            let line = CommandLine {
                command: vec![program.into()],
                timeout_s: 1,
            };
            let around = Surroundings {
                folder: folder.path().to_owned(),
                release: "1.0.0".into(),
                device_name: "t".into(),
                signed,
            };
            check(&line, &around).unwrap_err().code
        };
        assert_eq!(said("bin/check", true), Reason::HealthFailed);
        assert_eq!(said("bin/check", false), Reason::CommandNotStarted);
        // The machine has it, and may not run it.
        assert_eq!(said("/etc/passwd", true), Reason::CommandNotStarted);
        assert_eq!(said("/etc/passwd", false), Reason::CommandNotStarted);
    }

    #[test]
    fn a_file_must_be_fresh() {
        let folder = tempfile::tempdir().unwrap();
        assert!(asked(&["file:alive:60"], folder.path()).is_err());
        let file = std::fs::File::create(folder.path().join("alive")).unwrap();
        assert_eq!(asked(&["file:alive:60"], folder.path()), Ok(()));
        let old = SystemTime::now() - Duration::from_mins(10);
        file.set_modified(old).unwrap();
        let stale = asked(&["file:alive:60"], folder.path()).unwrap_err();
        assert!(stale.detail.contains("s ago"), "{stale}");
    }

    #[test]
    fn what_comes_up_within_the_deadline_is_healthy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("alive");
        let asking = std::thread::spawn({
            let folder = folder.path().to_owned();
            move || asked(&["file:alive:60"], &folder)
        });
        std::fs::write(path, "").unwrap();
        assert_eq!(asking.join().unwrap(), Ok(()));
    }

    #[test]
    fn what_cannot_be_right_is_seen_before_it_is_asked() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        for wrong in [
            "http://",
            "http://:80/x",
            "http://host:port/x",
            "https://host/",
            "tcp:nohost",
            "tcp:host:70000",
            "tcp::80",
            "unit:",
            "file:/x:abc",
            "file:alive",
            "tcp:host:1 bin/check",
        ] {
            assert!(look_at(&words(wrong)).is_err(), "{wrong}");
        }
        for right in [
            "bin/check --fast",
            "http://127.0.0.1/ready tcp:[::1]:502",
            "http://[::1]/ready",
            "unit:press.service file:run/alive:60",
        ] {
            assert_eq!(look_at(&words(right)), Ok(()), "{right}");
        }
    }

    #[test]
    fn anything_else_is_a_command() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        for command in [
            "bin/app check",
            "unit:x bin/app",
            "file:alive",
            "https://x/",
            "",
        ] {
            assert!(questions(&words(command)).is_none(), "{command}");
        }
        assert!(questions(&words("unit:press.service tcp:[::1]:80")).is_some());
    }
}
