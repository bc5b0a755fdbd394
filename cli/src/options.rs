//! Options that several commands share, and the values that they take.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::keys::Access;
use crate::keys::secret::Unlock;
use crate::output::Format;

#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Address of the control plane; defaults to the one saved by `tidegate login`.
    #[arg(long, global = true, env = "TIDEGATE_SERVER", value_name = "URL")]
    pub(crate) server: Option<String>,
    /// Operator token; defaults to the one saved by `tidegate login`.
    #[arg(
        long,
        global = true,
        env = "TIDEGATE_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    pub(crate) token: Option<String>,
    /// Certificate authority of the server (PEM); defaults to the system's authorities.
    #[arg(long, global = true, env = "TIDEGATE_CA_FILE", value_name = "PEM")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Allow plain HTTP beyond this machine, where tokens can be read by everybody on the way:
    /// `http://` addresses of servers, and `serve --listen` without TLS. `tidegate login` remembers it.
    #[arg(long, global = true, env = "TIDEGATE_ALLOW_PLAIN_HTTP")]
    pub(crate) allow_plain_http: bool,
    /// Output format: a table for people, or JSON with the API's field names.
    #[arg(short, long, global = true, default_value = "table")]
    pub(crate) output: Format,
}

#[derive(Debug, Args)]
pub(crate) struct KeysDir {
    /// Folder of the offline keys and signed files. Never give it away.
    #[arg(
        long,
        env = "TIDEGATE_KEYS",
        default_value = "tidegate-keys",
        value_name = "DIR"
    )]
    pub(crate) keys: PathBuf,
    /// File whose first line is the passphrase of the keys. Without it TIDEGATE_KEY_PASSPHRASE is
    /// used, or you are asked.
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Sign as this holder only.
    #[arg(long = "as", value_name = "HOLDER")]
    pub(crate) sign_as: Option<String>,
}

impl KeysDir {
    /// Returns the folder and how to unlock its keys.
    pub(crate) fn access(&self) -> Access {
        self.access_new(&NewKeys::default())
    }

    /// Like [`Self::access`], for commands that may write new keys in the clear.
    pub(crate) fn access_new(&self, new: &NewKeys) -> Access {
        Access {
            dir: self.keys.clone(),
            unlock: Unlock {
                file: self.passphrase_file.clone(),
                text: std::env::var("TIDEGATE_KEY_PASSPHRASE").ok(),
                none: new.no_passphrase,
            },
            holder: self.sign_as.clone(),
        }
    }
}

#[derive(Debug, Default, Args)]
pub(crate) struct NewKeys {
    /// Write new private keys unencrypted, for machines that sign unattended and for trying out.
    #[arg(long, conflicts_with = "passphrase_file")]
    pub(crate) no_passphrase: bool,
}

/// Parses a length of time like `90s`, `30m`, `4h`, `2d`; a bare number is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err("write 90s, 30m, 4h or 2d".into()),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| "write 90s, 30m, 4h or 2d".to_owned())?;
    number
        .checked_mul(factor)
        .map(Duration::from_secs)
        .ok_or_else(|| "that is too long".to_owned())
}

/// Parses a length of time above zero, as [`duration`] does.
pub(crate) fn some_time(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("must be at least 1s".into()),
        length => Ok(length),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_read_as_people_write_them() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("30m"), Ok(Duration::from_mins(30)));
        assert_eq!(duration("2d"), Ok(Duration::from_hours(48)));
        for bad in ["", "m", "1w", "-1s", "1.5h", "99999999999999999999d"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        assert!(some_time("0m").is_err());
        assert_eq!(some_time("1s"), Ok(Duration::from_secs(1)));
    }
}
