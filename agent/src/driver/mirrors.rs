//! Mirrors that the server names, and which of them are used.
//!
//! Their list is not signed. What they send is verified, but a request alone can do something on a
//! host that trusts this machine: only hosts that somebody at the machine has named are asked.

use super::Driver;
use crate::host::platform;
use crate::log;
use crate::net::address::Address;
use crate::net::client::Client;
use crate::net::download::Unused;
use crate::net::tls::TlsClock;
use crate::people::config::Config;

/// Most mirrors that are used, and told of.
const MOST: usize = 16;

impl Driver {
    /// Takes over the mirrors of an answer, and says which of them are not used.
    pub(super) fn take_mirrors(&mut self, mirrors: &[String]) {
        let mirrors = &mirrors[..mirrors.len().min(MOST)];
        if self.named == mirrors {
            return;
        }
        mirrors.clone_into(&mut self.named);
        let (used, ignored) = sort(mirrors, &self.config);
        self.mirrors = used;
        for (mirror, why) in &ignored {
            log::line(&format!("mirror {mirror} is ignored: {why}"));
        }
        let since = platform::now();
        let ignored = ignored.into_iter().map(|(mirror, why)| Unused {
            mirror,
            why: format!("ignored: {why}"),
            since,
        });
        self.core.download.note_ignored(ignored.collect());
    }

    /// Sources of payloads: the mirrors, then the server itself.
    pub(super) fn sources(&self) -> Vec<Client> {
        let clock = TlsClock {
            floor: self.journal().record().time_floor,
            trusted: self.config.clock_trusted,
        };
        let mut sources: Vec<Client> = self
            .mirrors
            .iter()
            .filter_map(|mirror| {
                Client::mirror(mirror, self.config.ca_file.as_deref(), clock)
                    .map_err(|e| log::line(&format!("skipping a mirror: {e}")))
                    .ok()
            })
            .collect();
        sources.push(self.client.sibling());
        sources
    }
}

/// Sorts mirrors into those that are used and those that are not, with the reason. Any port of the
/// server's own host is the server's.
fn sort(mirrors: &[String], config: &Config) -> (Vec<String>, Vec<(String, String)>) {
    let host = |text: &str| Some(Address::parse(text).ok()?.host.to_ascii_lowercase());
    let own: Vec<String> = config.endpoints().filter_map(host).collect();
    let (mut used, mut ignored) = (Vec::new(), Vec::new());
    for mirror in mirrors {
        let Some(host) = host(mirror) else {
            ignored.push((log_safe(mirror), "it is not an http(s) address".into()));
            continue;
        };
        if own.contains(&host) || config.mirror_hosts.contains(&host) {
            used.push(mirror.clone());
        } else {
            let why = format!(
                "{host} is not the server's host; `mirror-host = {host}` in agent.conf allows it"
            );
            ignored.push((log_safe(mirror), why));
        }
    }
    (used, ignored)
}

fn log_safe(mirror: &str) -> String {
    let short: String = mirror.chars().take(200).collect();
    tidegate_protocol::plain(&short)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a101_a_mirror_on_a_host_that_nobody_here_has_named_is_not_asked() {
        let config: Config = serde_json::from_value(serde_json::json!({
            "server": "https://Updates.example:8420",
            "also": ["http://127.0.0.1:1"],
            "mirror_hosts": ["cache.plant.example", "fd00::7"],
            "device": "dev_00000000000000000000000000000000",
            "name": "n", "product": "app", "platform": "linux-arm", "channel": "stable",
        }))
        .unwrap();
        let good = [
            "https://updates.example/blobs",
            "http://UPDATES.EXAMPLE:9000",
            "http://127.0.0.1:18491/mirror",
            "http://cache.plant.example",
            "http://[fd00::7]:80/x",
        ];
        let bad = [
            "http://router.local/admin/reboot",
            "http://169.254.169.254/latest/meta-data",
            "http://updates.example.evil.example",
            "http://updates.example@evil.example",
            "http://localhost:1",
            "file:///etc/passwd",
            "",
        ];
        let named: Vec<String> = bad.iter().chain(&good).map(ToString::to_string).collect();
        let (used, ignored) = sort(&named, &config);
        assert_eq!(used, good);
        let told: Vec<&str> = ignored.iter().map(|(mirror, _)| mirror.as_str()).collect();
        assert_eq!(told, bad);
        assert!(
            ignored[0].1.contains("mirror-host = router.local"),
            "{}",
            ignored[0].1
        );
    }
}
