//! Hosts in addresses of servers.

use std::net::IpAddr;

/// Returns whether requests to a host stay on this machine, so that plain HTTP shows nobody a secret:
/// `localhost`, 127.0.0.0/8 and `::1`, with or without brackets.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    // Read strictly: what another resolver takes for a short form of 127.0.0.1 is not one here.
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stays_on_this_machine_is_loopback() {
        for here in ["localhost", "LocalHost", "127.0.0.1", "127.9.8.7", "::1"] {
            assert!(is_loopback(here), "{here}");
        }
        for here in ["[::1]", "[::ffff:127.0.0.1]"] {
            assert!(is_loopback(here), "{here}");
        }
        for away in [
            "",
            "0.0.0.0",
            "[::]",
            "10.0.0.1",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "127.1",
            "2130706433",
            "0x7f.0.0.1",
        ] {
            assert!(!is_loopback(away), "{away}");
        }
    }
}
