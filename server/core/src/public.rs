//! Addresses by which devices know the server: what they sign their requests for.

use tidegate_trust::http_signature::{
    RequestFacts, SignatureError, SignatureHeaders, Signer, verify_request,
};

/// Longest name of a host that is repeated to a client.
const LONGEST: usize = 260;

/// An address of the server, as devices have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl {
    text: String,
    authority: String,
    /// Port that the scheme stands for.
    usual: &'static str,
}

impl PublicUrl {
    /// Most addresses that a server has: each is tried on a signature.
    pub const MOST: usize = 8;

    /// The two ways to name it: with its port, and without where that is the usual one.
    fn names(&self) -> [String; 2] {
        let bare = self.authority.strip_suffix(self.usual);
        match bare {
            Some(bare) => [self.authority.clone(), bare.to_owned()],
            None => [
                self.authority.clone(),
                format!("{}{}", self.authority, self.usual),
            ],
        }
    }
}

impl std::fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::str::FromStr for PublicUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim().trim_end_matches('/');
        let parts = match text.split_once("://") {
            Some(("https", rest)) => Some((rest, ":443")),
            Some(("http", rest)) => Some((rest, ":80")),
            _ => None,
        };
        let authority = |rest: &str| {
            rest.split('/')
                .next()
                .unwrap_or_default()
                .to_ascii_lowercase()
        };
        parts
            .map(|(rest, usual)| (rest, authority(rest), usual))
            .filter(|(rest, authority, _)| is_name(authority) && !rest.contains(['?', '#', ' ']))
            .map(|(_, authority, usual)| Self {
                text: text.to_owned(),
                authority,
                usual,
            })
            .ok_or_else(|| "expected http(s)://host[:port][/folder], as devices have it".into())
    }
}

/// Whether a text can name a host with a port.
fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    !text.is_empty() && text.len() <= LONGEST && text.chars().all(plain)
}

/// Names under which a request came, none of them believed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Named<'a> {
    /// Its `Host`.
    pub host: &'a str,
    /// Host that a proxy says it was sent to.
    pub forwarded: Option<&'a str>,
    /// Host that the device says it has signed.
    pub signed: Option<&'a str>,
}

/// Verifies a request's signature over an address of this server: one of `own`, or whatever its `Host`
/// says where there is none. A refusal names what is wrong with the address, if that is what is wrong.
pub(crate) fn verify(
    headers: &SignatureHeaders,
    request: &RequestFacts<'_>,
    named: &Named<'_>,
    own: &[PublicUrl],
) -> Result<Signer, String> {
    let over = |authority: &str| {
        let facts = RequestFacts {
            authority,
            ..*request
        };
        verify_request(headers, &facts)
    };
    let mut accepted: Vec<String> = if own.is_empty() {
        vec![named.host.to_owned()]
    } else {
        own.iter().flat_map(PublicUrl::names).collect()
    };
    // Usually the request came by the name that it was signed for.
    accepted.sort_by_key(|name| !name.eq_ignore_ascii_case(named.host));
    for name in &accepted {
        match over(name) {
            Err(SignatureError::Signature) => {}
            other => return other.map_err(|error| error.to_string()),
        }
    }
    // Not to let it in, but to say what went wrong: the signature shows which of them is true.
    let others = [Some(named.host), named.signed, named.forwarded];
    let signed_for = others
        .into_iter()
        .flatten()
        .filter(|name| is_name(name))
        .find(|name| over(name).is_ok());
    let host = if is_name(named.host) { named.host } else { "?" };
    Err(match signed_for {
        Some(name) if own.is_empty() => format!(
            "the device signed this request for {name}, and it arrived with the Host {host}: a proxy on the way \
             changes Host. Let it pass Host on unchanged, or start the server with --public-url \
             https://{name} (the address that devices have)"
        ),
        Some(name) => {
            let own: Vec<String> = own.iter().map(ToString::to_string).collect();
            format!(
                "the device signed this request for {name}, which is none of this server's addresses ({}): enroll \
                 it with one of them, or add its address with --public-url",
                own.join(", ")
            )
        }
        None => format!(
            "{}; it arrived with the Host {host}: where a proxy on the way changes Host, let it pass Host on \
             unchanged, or name the address that devices have with --public-url",
            SignatureError::Signature
        ),
    })
}

#[cfg(test)]
mod tests {
    use tidegate_trust::SecretKey;
    use tidegate_trust::http_signature::sign_request;

    use super::*;

    fn facts(authority: &str) -> RequestFacts<'_> {
        RequestFacts {
            method: "POST",
            authority,
            path: "/device/v1/session",
            query: "",
            body: b"{}",
        }
    }

    fn tried(signed_for: &str, named: Named<'_>, own: &[&str]) -> Result<Signer, String> {
        let key = SecretKey::from_seed([5; 32]);
        let headers = sign_request(&key, &facts(signed_for), 1, "n");
        let own: Vec<PublicUrl> = own.iter().map(|url| url.parse().unwrap()).collect();
        verify(&headers, &facts(""), &named, &own)
    }

    fn by(host: &str) -> Named<'_> {
        Named {
            host,
            ..Named::default()
        }
    }

    #[test]
    fn a_request_is_good_for_the_hosts_of_this_server_and_no_other() {
        let own = ["https://Tide.example/updates", "http://10.0.0.7:8420"];
        assert!(tried("tide.example", by("tide.example"), &[]).is_ok());
        for (signed, host) in [
            ("tide.example", "tide.example"),
            ("tide.example", "backend:8420"),
            ("tide.example:443", "backend:8420"),
            ("10.0.0.7:8420", "tide.example"),
        ] {
            assert!(tried(signed, by(host), &own).is_ok(), "{signed} {host}");
        }
        let relayed = tried("evil.example", by("evil.example"), &own).unwrap_err();
        assert!(
            relayed.contains("for evil.example, which is none of"),
            "{relayed}"
        );
        assert!(
            relayed.contains("https://Tide.example/updates"),
            "{relayed}"
        );
        assert!(relayed.contains("--public-url"), "{relayed}");
    }

    #[test]
    fn a_rewritten_host_is_named_with_the_setting_that_mends_it() {
        let told = Named {
            signed: Some("tide.example"),
            ..by("backend:8420")
        };
        let forwarded = Named {
            forwarded: Some("tide.example"),
            ..by("backend:8420")
        };
        for named in [told, forwarded] {
            let refused = tried("tide.example", named, &[]).unwrap_err();
            assert!(
                refused.contains("signed this request for tide.example"),
                "{refused}"
            );
            assert!(refused.contains("Host backend:8420"), "{refused}");
            assert!(
                refused.contains("--public-url https://tide.example"),
                "{refused}"
            );
        }
        // What is not shown by the signature is not said.
        let lied = Named {
            signed: Some("tide.example"),
            ..by("backend:8420")
        };
        let refused = tried("other.example", lied, &[]).unwrap_err();
        assert!(!refused.contains("tide.example"), "{refused}");
        assert!(
            refused.contains("does not match; it arrived with the Host backend:8420"),
            "{refused}"
        );
    }

    #[test]
    fn an_address_is_one() {
        for bad in [
            "",
            "tide.example",
            "ftp://x",
            "https://",
            "https://u@h",
            "https://h/?q",
            "https://h h",
        ] {
            assert!(bad.parse::<PublicUrl>().is_err(), "{bad}");
        }
        let url: PublicUrl = "https://[fd00::7]:8420/x/".parse().unwrap();
        assert_eq!(url.to_string(), "https://[fd00::7]:8420/x");
        assert_eq!(url.names()[0], "[fd00::7]:8420");
    }
}
