//! `keys ceremony`: the first root, step by step, with people who may sit at different machines.
//!
//! Every step looks at the folder and does what is missing. When something has to come from
//! somebody else it says what, and ends; run again, it goes on from there.

use std::fmt::Write as _;

use clap::Args;
use serde::{Deserialize, Serialize};
use tidegate_protocol::{Channel, ProductName};
use tidegate_trust::{Delegation, Quorum, RoleName};

use super::Context;
use crate::error::{CliError, at, parse};
use crate::keys::exchange::OnlineKeys;
use crate::keys::holder::{self, Profile};
use crate::keys::{Access, Offline, Outcome, now, read_bounded, write_private};
use crate::options::{KeysDir, NewKeys};
use crate::output::line;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct CeremonyArgs {
    #[command(flatten)]
    pub(crate) dir: KeysDir,
    #[command(flatten)]
    pub(crate) new: NewKeys,
    /// A holder of root and targets; repeat for each one, usually three.
    #[arg(long, value_name = "NAME")]
    pub(crate) holder: Vec<String>,
    /// Number of them who must sign; more than half by default (2 of 3).
    #[arg(long, value_name = "PEOPLE")]
    pub(crate) threshold: Option<u32>,
    /// A product whose channels are delegated right away; may be repeated.
    #[arg(long)]
    pub(crate) product: Vec<String>,
    /// A holder of the stable channels; defaults to the holders of root.
    #[arg(long, value_name = "NAME")]
    pub(crate) release_holder: Vec<String>,
    /// Number of them who must sign for stable; 2 by default.
    #[arg(long, value_name = "PEOPLE")]
    pub(crate) stable_threshold: Option<u32>,
    /// Holder who alone signs the alpha and beta channels; defaults to the first release holder.
    #[arg(long, value_name = "NAME")]
    pub(crate) canary_holder: Option<String>,
    /// Create the missing holders' keys on this machine.
    #[arg(long)]
    pub(crate) here: bool,
    /// The server's public keys from `keys online --export`, for a machine without a network.
    #[arg(long, value_name = "FILE")]
    pub(crate) online: Option<PathBuf>,
    /// Algorithms of new keys.
    #[arg(long, default_value = "hybrid")]
    pub(crate) profile: Profile,
}

/// Decisions made at the beginning, stored in `ceremony.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Plan {
    holders: Vec<String>,
    threshold: u32,
    products: Vec<String>,
    release_holders: Vec<String>,
    stable_threshold: u32,
    canary_holder: String,
    hybrid: bool,
}

/// Runs the ceremony as far as it can.
pub(crate) async fn run(context: &Context, args: CeremonyArgs) -> Result<(), CliError> {
    let access = args.dir.access_new(&args.new);
    let plan = plan(&access, &args)?;
    let mut offline = Offline::open_any(&access)?;
    if offline.repository().targets().is_some() && offline.draft("targets")?.is_none() {
        return finish(&access, &offline, &plan);
    }
    let mut people = plan.holders.clone();
    for name in plan.release_holders.iter().chain([&plan.canary_holder]) {
        if !people.contains(name) {
            people.push(name.clone());
        }
    }
    // 1. Everybody's public keys.
    let mut missing = Vec::new();
    for name in &people {
        let file = holder::public_path(&access.dir, name);
        if file.exists() {
            continue;
        }
        if args.here {
            let profile = if plan.hybrid {
                Profile::Hybrid
            } else {
                Profile::Ed25519
            };
            let made = holder::make(&access.dir, name, profile, None, &access.unlock)?;
            log(
                &access,
                &format!("keys of {name} made here: {}", made.fingerprint()),
            )?;
        } else {
            missing.push((name.clone(), file));
        }
    }
    if !missing.is_empty() {
        let mut text = String::from("waiting for public keys:\n");
        for (name, file) in &missing {
            let _ = writeln!(
                text,
                "  {name}: on their machine `tidegate keys new {name}`; bring holders/{name}.json to {}",
                file.display()
            );
        }
        text += "then run this again (--here creates them on this machine)";
        line(&text)?;
        return Ok(());
    }
    // 2. The server's keys.
    if offline.draft("root")?.is_none() && offline.repository().root().is_none() {
        let online = match &args.online {
            Some(path) => serde_json::from_slice(&read_bounded(path).map_err(at(path))?)
                .map_err(|e| CliError::Failed(format!("{}: {e}", path.display())))?,
            None => OnlineKeys::ask(&context.api()?).await?,
        };
        lay_down(&access, &mut offline, &plan, &online)?;
    }
    // 3. Signatures.
    for role in ["root", "targets"] {
        if let Some(mut draft) = offline.draft(role)? {
            let signed = offline.sign_with_own(role, &mut draft)?;
            let outcome = offline.settle(role, &draft, "the ceremony")?;
            if !signed.is_empty() {
                let text = format!("{role}: signed here by {}", signed.join(", "));
                log(&access, &text)?;
            }
            line(&outcome.describe(role))?;
            if let Outcome::Waiting { .. } = outcome {
                line(&format!(
                    "  carry {} to the others: `tidegate keys sign FILE` there, `tidegate keys merge FILE` \
                     here, then run this again",
                    access
                        .dir
                        .join("drafts")
                        .join(format!("{role}.json"))
                        .display()
                ))?;
                return Ok(());
            }
        }
    }
    finish(&access, &offline, &plan)
}

fn plan(access: &Access, args: &CeremonyArgs) -> Result<Plan, CliError> {
    let path = access.dir.join("ceremony.json");
    let stored: Option<Plan> = match std::fs::read(&path) {
        Ok(bytes) => Some(
            serde_json::from_slice(&bytes)
                .map_err(|e| CliError::Failed(format!("{}: {e}", path.display())))?,
        ),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => return Err(e.into()),
    };
    if let Some(plan) = stored {
        return Ok(plan);
    }
    let mut holders = args.holder.clone();
    if holders.is_empty() {
        holders =
            ask_names("Who holds root and targets? Three names, for example alice bob carol: ")?;
    }
    let count = u32::try_from(holders.len()).unwrap_or(u32::MAX);
    // 2 of 3; more than half where there are more.
    let threshold = args.threshold.unwrap_or(count / 2 + 1);
    let release_holders = if args.release_holder.is_empty() {
        holders.clone()
    } else {
        args.release_holder.clone()
    };
    let releases = u32::try_from(release_holders.len()).unwrap_or(u32::MAX);
    let canary_holder = args
        .canary_holder
        .clone()
        .or_else(|| release_holders.first().cloned())
        .unwrap_or_default();
    for product in &args.product {
        parse::<ProductName>(product)?;
    }
    let plan = Plan {
        holders,
        threshold,
        products: args.product.clone(),
        stable_threshold: args.stable_threshold.unwrap_or(releases.min(2)),
        release_holders,
        canary_holder,
        hybrid: args.profile == Profile::Hybrid,
    };
    let text = serde_json::to_vec_pretty(&plan).map_err(|e| CliError::failed("JSON", &e))?;
    write_private(&path, &text)?;
    log(
        access,
        &format!(
            "the ceremony begins: root and targets {} of {} ({}), stable channels {} of {} ({}), \
             canary {}, {}",
            plan.threshold,
            plan.holders.len(),
            plan.holders.join(", "),
            plan.stable_threshold,
            plan.release_holders.len(),
            plan.release_holders.join(", "),
            plan.canary_holder,
            if plan.hybrid {
                "Ed25519 and ML-DSA-65"
            } else {
                "Ed25519"
            }
        ),
    )?;
    Ok(plan)
}

fn ask_names(question: &str) -> Result<Vec<String>, CliError> {
    use std::io::{BufRead as _, IsTerminal as _, Write as _};
    if !std::io::stdin().is_terminal() {
        return Err(CliError::Hinted(
            "no terminal to ask for the holders".into(),
            "--holder NAME, three times".into(),
        ));
    }
    eprint!("{question}");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    let names: Vec<String> = answer
        .split(|c: char| c.is_whitespace() || c == ',')
        .filter(|n| !n.is_empty())
        .map(str::to_owned)
        .collect();
    if names.is_empty() {
        return Err(CliError::Failed("no names".into()));
    }
    Ok(names)
}

/// Writes the drafts of root and targets, unsigned.
fn lay_down(
    access: &Access,
    offline: &mut Offline,
    plan: &Plan,
    online: &OnlineKeys,
) -> Result<(), CliError> {
    let read = |names: &[String]| -> Result<Vec<_>, CliError> {
        names
            .iter()
            .map(|name| holder::read_public(&holder::public_path(&access.dir, name)))
            .collect()
    };
    let refuse = |e: tidegate_trust::TrustError| CliError::failed("the plan", &e);
    let top = Quorum::of_people(read(&plan.holders)?, plan.threshold);
    top.check("root and targets").map_err(refuse)?;
    let stable = Quorum::of_people(read(&plan.release_holders)?, plan.stable_threshold);
    stable.check("stable").map_err(refuse)?;
    let canary = Quorum::one(
        read(std::slice::from_ref(&plan.canary_holder))?
            .pop()
            .ok_or_else(|| CliError::Failed("no holder signs the canary channels".into()))?,
    );
    for role in ["root", "targets"] {
        let quorum = top.clone();
        offline.edit_quorum(role, move |q| {
            *q = quorum;
            Ok(())
        })?;
    }
    offline.edit_online(online)?;
    for product in &plan.products {
        let product: ProductName = product
            .parse()
            .map_err(|e: tidegate_protocol::NameError| CliError::Failed(e.to_string()))?;
        for channel in Channel::ALL {
            let role = RoleName::new(product.clone(), *channel);
            let quorum = if *channel == Channel::Stable {
                stable.clone()
            } else {
                canary.clone()
            };
            let quorum = Delegation::product(&role, quorum).quorum;
            offline.edit_quorum(&role.to_string(), move |q| {
                *q = quorum;
                Ok(())
            })?;
        }
    }
    log(access, "drafts of root and targets written")
}

fn finish(access: &Access, offline: &Offline, plan: &Plan) -> Result<(), CliError> {
    let Some((version, root)) = offline.repository().root() else {
        return Err(CliError::Failed("the root is not in force".into()));
    };
    let hash = tidegate_delta::sha256(root);
    let done = format!("root v{version} and targets are in force; SHA-256 of root: {hash}");
    let transcript = std::fs::read_to_string(transcript(access)).unwrap_or_default();
    if !transcript.contains(&done) {
        log(access, &done)?;
    }
    line(&format!(
        "the ceremony is complete. SHA-256 of root v{version}: {hash}\n  everybody should write it down; \
         the transcript is {}\n  next: `tidegate keys push` on a machine that reaches the server",
        self::transcript(access).display()
    ))?;
    if plan.products.is_empty() {
        line("  then `tidegate keys add PRODUCT-stable HOLDER ...` for each product and channel")?;
    }
    Ok(())
}

fn transcript(access: &Access) -> std::path::PathBuf {
    access.dir.join("ceremony.md")
}

/// Adds a line to the transcript, if the ceremony keeps one.
pub(crate) fn note(access: &Access, text: &str) -> Result<(), CliError> {
    if transcript(access).exists() {
        log(access, text)?;
    }
    Ok(())
}

/// Adds a line to the transcript, which is created if needed.
fn log(access: &Access, text: &str) -> Result<(), CliError> {
    let path = transcript(access);
    let mut transcript = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            "# Key ceremony\n\nEach line is written when its step is done.\n\n".to_owned()
        }
        // Never a new one in its place: it is the record of who did what.
        Err(error) => return Err(CliError::Failed(format!("{}: {error}", path.display()))),
    };
    let _ = writeln!(transcript, "- {} {text}", now());
    write_private(&path, transcript.as_bytes())
}
