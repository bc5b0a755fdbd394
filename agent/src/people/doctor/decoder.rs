//! Check of the process that decodes payloads.

use tidegate_apply::Program;
use tidegate_protocol::{Finding, Verdict};

use super::{bad, notice_unless};
use crate::people::config::Config;

const CHECK: &str = "decoder";
const WANTED: &str = "starts, and can do nothing but decode";

/// Starts the decoder, and has it try what a payload that took it over would try.
pub(super) fn look(config: &Config) -> Finding {
    if !config.decode {
        let value = "none: only whole images are taken";
        return Finding::new(CHECK, value, WANTED, Verdict::Good);
    }
    let program = config
        .decoder
        .clone()
        .map_or_else(Program::this, Program::at);
    let left = match program.left() {
        Ok(left) => left,
        Err(error) => return bad(CHECK, &error),
    };
    let left: Vec<String> = left.iter().map(ToString::to_string).collect();
    let value = if left.is_empty() {
        "opens no file and no socket, starts no program".into()
    } else {
        format!("this system lets it {}", left.join(", "))
    };
    // Only Linux is asked to take these rights away.
    let verdict = notice_unless(left.is_empty() || !cfg!(target_os = "linux"));
    Finding::new(CHECK, value, WANTED, verdict)
}
