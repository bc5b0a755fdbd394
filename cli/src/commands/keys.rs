//! `keys`: the offline keys and what they sign.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use tidegate_protocol::ProductName;
use tidegate_server::http::dto::{ReasonBody, TrustView};
use tidegate_trust::{Holder, RootRole, Signed, TopTargets};

use super::Context;
use super::ceremony;
use crate::args::{KeysCommand, TokenArgs};
use crate::error::CliError;
use crate::keys::exchange::OnlineKeys;
use crate::keys::token::TokenPlace;
use crate::keys::{Access, Offline, Outcome, holder};
use crate::output::{line, show, table};

/// The offline keys.
pub(crate) async fn run(context: &Context, command: KeysCommand) -> Result<(), CliError> {
    match command {
        KeysCommand::Init {
            dir,
            new,
            product,
            profile,
        } => init(context, &dir.access_new(&new), profile, product).await,
        KeysCommand::Ceremony(args) => ceremony::run(context, *args).await,
        KeysCommand::New {
            name,
            dir,
            new,
            profile,
            token,
        } => {
            let token = token.map(|t| place(t, &name)).transpose()?;
            let access = dir.access_new(&new);
            let holder = holder::make(&access.dir, &name, profile, token, &access.unlock)?;
            let file = holder::public_path(&access.dir, &name);
            line(&format!(
                "{name} has new keys: {}\n  hand on {} and read the digits above to the others by \
                 another way",
                holder.fingerprint(),
                file.display()
            ));
            Ok(())
        }
        KeysCommand::Add { role, holders, dir } => {
            let mut offline = Offline::open_any(&dir.access())?;
            for path in holders {
                let holder = public_file(offline.dir(), &path)?;
                edit(&mut offline, &role, |quorum, role| {
                    quorum.add(role, holder.clone())
                })?;
            }
            Ok(())
        }
        KeysCommand::Threshold { role, people, dir } => {
            let mut offline = Offline::open_any(&dir.access())?;
            edit(&mut offline, &role, |quorum, _| {
                quorum.set_people(people);
                Ok(())
            })
        }
        KeysCommand::Rotate {
            role,
            old,
            new,
            dir,
        } => {
            let mut offline = Offline::open_any(&dir.access())?;
            let holder = public_file(offline.dir(), &new)?;
            edit(&mut offline, &role, |quorum, role| {
                let people = quorum.people();
                quorum.remove(role, &old)?;
                quorum.add(role, holder)?;
                quorum.set_people(people);
                Ok(())
            })
        }
        KeysCommand::Remove { role, name, dir } => {
            let mut offline = Offline::open_any(&dir.access())?;
            edit(&mut offline, &role, |quorum, role| {
                quorum.remove(role, &name)
            })
        }
        KeysCommand::Online {
            dir,
            export,
            import,
            rotate,
        } => {
            if let Some(reason) = rotate {
                let body = ReasonBody { reason };
                let _: TrustView = context
                    .api()?
                    .post("/api/v1/trust/rotate-online", &body)
                    .await?;
            }
            online(context, &dir.access(), export, import).await
        }
        KeysCommand::Sign { files, yes, dir } => sign(&dir.access(), &files, yes),
        KeysCommand::Merge { files, dir } => {
            let mut offline = Offline::open_any(&dir.access())?;
            for path in files {
                let (role, draft) = read_draft(&path)?;
                let outcome = offline.merge(&role, &draft, "")?;
                let text = outcome.describe(&role);
                ceremony::note(&dir.access(), &format!("merged {}: {text}", path.display()))?;
                line(&text);
            }
            Ok(())
        }
        KeysCommand::Renew { role, dir } => {
            let outcome = Offline::open(&dir.access())?.renew(&role)?;
            line(&outcome.describe(&role));
            Ok(())
        }
        KeysCommand::Drop { role, dir } => Offline::open_any(&dir.access())?.drop_draft(&role),
        KeysCommand::Push { dir } => {
            let offline = Offline::open_any(&dir.access())?;
            offline.push_all(&context.api()?).await?;
            line("the server has what this folder has");
            Ok(())
        }
        KeysCommand::Fetch { dir, root } => fetch(context, &dir.access(), root.as_deref()).await,
        KeysCommand::Show { dir, file } => match file {
            Some(path) => {
                line(&describe_file(&path)?);
                Ok(())
            }
            None => show_folder(context, &dir.access()),
        },
    }
}

async fn init(
    context: &Context,
    access: &Access,
    profile: holder::Profile,
    products: Vec<String>,
) -> Result<(), CliError> {
    let api = context.api()?;
    let mut offline = Offline::init(access, profile, &api).await?;
    for name in products {
        let name: ProductName = name
            .parse()
            .map_err(|e: tidegate_protocol::NameError| CliError::Failed(e.to_string()))?;
        let changed = offline.add_product(&name)?;
        offline.push(&api, &changed).await?;
    }
    line(&format!(
        "the keys are in {}; the server has only their public halves. Keep the folder off the \
         server, and a copy of it somewhere safe.\n  One person holds every key here, which is \
         good for trying out: `tidegate keys ceremony` makes keys for several people.",
        access.dir.display()
    ));
    Ok(())
}

fn place(token: TokenArgs, name: &str) -> Result<TokenPlace, CliError> {
    let module = std::path::absolute(&token.pkcs11_module)?;
    Ok(TokenPlace {
        module,
        token: token.token_label.unwrap_or_else(|| name.to_owned()),
        label: format!("tidegate-{name}"),
        pin_file: token.pin_file.map(std::path::absolute).transpose()?,
        public: String::new(),
    })
}

/// A public key file, or the name of a holder whose file is in the folder.
fn public_file(dir: &Path, path: &Path) -> Result<Holder, CliError> {
    if !path.is_file() {
        let named = holder::public_path(dir, &path.to_string_lossy());
        if named.exists() {
            return holder::read_public(&named);
        }
    }
    holder::read_public(path)
}

fn edit(
    offline: &mut Offline,
    role: &str,
    change: impl FnOnce(&mut tidegate_trust::Quorum, &str) -> Result<(), tidegate_trust::TrustError>,
) -> Result<(), CliError> {
    let file = offline.edit_quorum(role, |quorum| change(quorum, role))?;
    line(&format!(
        "{role} is changed in the draft of {file}; earlier signatures of the draft are void. \
         Next: `tidegate keys sign`, by each holder of {file}"
    ));
    Ok(())
}

async fn online(
    context: &Context,
    access: &Access,
    export: Option<PathBuf>,
    import: Option<PathBuf>,
) -> Result<(), CliError> {
    let keys: OnlineKeys = match &import {
        Some(path) => serde_json::from_slice(&std::fs::read(path)?)
            .map_err(|e| CliError::Failed(format!("{}: {e}", path.display())))?,
        None => OnlineKeys::ask(&context.api()?).await?,
    };
    if let Some(path) = export {
        let text = serde_json::to_vec_pretty(&keys).map_err(|e| CliError::failed("JSON", &e))?;
        std::fs::write(&path, text)?;
        line(&format!(
            "the server's public keys are in {}",
            path.display()
        ));
        return Ok(());
    }
    Offline::open_any(access)?.edit_online(&keys)?;
    line("the drafts of root and targets name the server's keys");
    Ok(())
}

/// Signs drafts: of the folder, or files that others sent.
fn sign(access: &Access, files: &[PathBuf], yes: bool) -> Result<(), CliError> {
    let mut offline = Offline::open_any(access)?;
    if files.is_empty() {
        let roles = offline.names("drafts")?;
        if roles.is_empty() {
            return Err(CliError::Failed("no draft waits for a signature".into()));
        }
        for role in roles {
            let Some(mut draft) = offline.draft(&role)? else {
                continue;
            };
            confirm(&role, &draft, yes)?;
            offline.sign_with_own(&role, &mut draft)?;
            let purpose = offline.purpose(&role);
            let outcome = offline.settle(&role, &draft, &purpose)?;
            line(&outcome.describe(&role));
        }
        return Ok(());
    }
    for path in files {
        let (role, mut draft) = read_draft(path)?;
        confirm(&role, &draft, yes)?;
        let signed = if offline.repository().root().is_some() || role == "root" {
            offline.sign_with_own(&role, &mut draft)?
        } else {
            // A folder with nothing but a private key: what is signed is what was shown.
            sign_blind(access, &mut draft)?
        };
        if signed.is_empty() {
            return Err(CliError::Failed(format!(
                "no key in {} may sign {role}",
                access.dir.display()
            )));
        }
        crate::keys::write_private(path, &draft.to_bytes())?;
        line(&format!(
            "{} has signed {}; send it back",
            signed.join(", "),
            path.display()
        ));
    }
    Ok(())
}

fn sign_blind(access: &Access, draft: &mut Signed) -> Result<Vec<String>, CliError> {
    let names = match &access.holder {
        Some(name) => vec![name.clone()],
        None => holder::all_here(&access.dir)?,
    };
    for name in &names {
        let keyring = holder::open(&access.dir, name, &access.unlock)?;
        for signer in keyring.signers() {
            draft
                .add_signature(signer)
                .map_err(|e| CliError::failed("signing", &e))?;
        }
    }
    Ok(names)
}

/// Shows what would be signed and asks.
fn confirm(role: &str, draft: &Signed, yes: bool) -> Result<(), CliError> {
    confirm_text(&describe(role, draft)?, yes)
}

/// Shows a text and asks whether to sign what it describes.
pub(crate) fn confirm_text(text: &str, yes: bool) -> Result<(), CliError> {
    line(text);
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(CliError::Hinted(
            "there is no terminal to ask whether to sign this".into(),
            "look at it with `tidegate keys show FILE`, then `keys sign --yes`".into(),
        ));
    }
    eprint!("Sign this? Type yes: ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if answer.trim() == "yes" {
        Ok(())
    } else {
        Err(CliError::Failed("not signed".into()))
    }
}

/// A draft on its way, and the role that it is of.
fn read_draft(path: &Path) -> Result<(String, Signed), CliError> {
    let bytes =
        std::fs::read(path).map_err(|e| CliError::Failed(format!("{}: {e}", path.display())))?;
    let draft = Signed::from_bytes(&path.display().to_string(), &bytes)
        .map_err(|e| CliError::failed("reading a draft", &e))?;
    let body = draft.body();
    let images = body["targets"].as_object();
    let role = match body["_type"].as_str() {
        Some("root") => "root".to_owned(),
        Some("targets") if body.get("delegations").is_some() => "targets".to_owned(),
        // The paths say which product and channel; an empty role is known by its file name.
        Some("targets") => match images.and_then(|i| i.keys().next()) {
            Some(image) => image.splitn(3, '/').take(2).collect::<Vec<_>>().join("-"),
            None => path
                .file_stem()
                .map(|s| s.to_string_lossy().into_owned())
                .unwrap_or_default(),
        },
        _ => {
            return Err(CliError::Failed(format!(
                "{} is no root, targets or role that people sign",
                path.display()
            )));
        }
    };
    Ok((role, draft))
}

fn describe_file(path: &Path) -> Result<String, CliError> {
    if let Ok(holder) = holder::read_public(path) {
        let kinds = if holder.is_hybrid() {
            "Ed25519 and ML-DSA-65"
        } else {
            "Ed25519"
        };
        return Ok(format!(
            "public keys of {} ({kinds}): {}",
            holder.name,
            holder.fingerprint()
        ));
    }
    let (role, draft) = read_draft(path)?;
    describe(&role, &draft)
}

/// What a file says, in full: this is what a person puts their name to.
fn describe(role: &str, draft: &Signed) -> Result<String, CliError> {
    let body = draft.body();
    let failed = |e: tidegate_trust::TrustError| CliError::failed("reading a draft", &e);
    let text = |name: &str| body[name].as_str().unwrap_or("-").to_owned();
    let mut lines = vec![format!(
        "{role} version {}, issued {}, expires {}",
        body["version"],
        text("x-issued"),
        text("expires")
    )];
    let mut quorum = |name: &str, quorum: &tidegate_trust::Quorum| {
        lines.push(format!(
            "  {name}: {} of {} people",
            quorum.people(),
            quorum.holders.len()
        ));
        for holder in &quorum.holders {
            lines.push(format!("    {}  {}", holder.name, holder.fingerprint()));
        }
    };
    match role {
        "root" => {
            let root = RootRole::from_bytes(&draft.to_bytes()).map_err(failed)?;
            for name in tidegate_trust::TOP_ROLES {
                if let Some(found) = root.quorum(name) {
                    quorum(name, found);
                }
            }
        }
        "targets" => {
            let targets = TopTargets::from_bytes(&draft.to_bytes()).map_err(failed)?;
            for delegation in &targets.delegations {
                quorum(&delegation.name, &delegation.quorum);
            }
        }
        _ => {
            let images = body["targets"].as_object();
            for (path, image) in images.into_iter().flatten() {
                lines.push(format!(
                    "  {path}  {} bytes  sha256 {}",
                    image["length"],
                    image["hashes"]["sha256"].as_str().unwrap_or("-")
                ));
            }
            lines.push(format!("  policy {}", body["x-policy"]));
        }
    }
    Ok(lines.join("\n"))
}

/// Begins, or brings up to date, a folder from what a server has: by a root whose hash a person
/// was told.
async fn fetch(context: &Context, access: &Access, root: Option<&str>) -> Result<(), CliError> {
    let api = context.api()?;
    let mut offline = Offline::open_any(access)?;
    if offline.repository().root().is_none() {
        let wanted = root.ok_or_else(|| {
            CliError::Hinted(
                "this folder has no root of trust yet".into(),
                "--root SHA256 names the one that the ceremony's transcript shows; do not take it \
                 from the server"
                    .into(),
            )
        })?;
        let bytes = api
            .get_bytes("/metadata/1.root.json")
            .await?
            .ok_or_else(|| CliError::Failed("the server has no root".into()))?;
        let found = tidegate_delta::sha256(&bytes).to_string();
        if found != wanted {
            return Err(CliError::Failed(format!(
                "the server's first root has SHA-256 {found}, not the one that you were told"
            )));
        }
        offline.take("root", bytes)?;
    }
    offline.pull(&api).await?;
    offline.pull_drafts(&api).await?;
    show_folder(context, access)
}

#[derive(Serialize)]
struct RoleRow {
    role: String,
    version: u64,
    expires: String,
    people: String,
    holders: Vec<String>,
    draft: Option<String>,
}

fn show_folder(context: &Context, access: &Access) -> Result<(), CliError> {
    let offline = Offline::open_any(access)?;
    let mut roles = offline.names("metadata")?;
    for role in offline.names("drafts")? {
        if !roles.contains(&role) {
            roles.push(role);
        }
    }
    let mut rows = Vec::new();
    for role in roles {
        let quorum = offline.quorum(&role);
        let (people, holders) = match &quorum {
            Ok(q) => (
                format!("{} of {}", q.people(), q.holders.len()),
                q.holders.iter().map(|h| h.name.clone()).collect(),
            ),
            Err(_) => ("-".into(), Vec::new()),
        };
        let expires = offline
            .repository()
            .bytes(&role)
            .and_then(|b| serde_json::from_slice::<serde_json::Value>(b).ok())
            .and_then(|v| v["signed"]["expires"].as_str().map(str::to_owned));
        let draft = match (offline.draft(&role)?, &quorum) {
            (None, _) => None,
            (Some(draft), Ok(_)) => match offline.standing(&role)? {
                Outcome::Waiting { signed_by, people } => Some(format!(
                    "v{} signed by {} of {people} {}",
                    draft.body()["version"],
                    signed_by.len(),
                    signed_by.join(", ")
                )),
                Outcome::Complete => None,
            },
            (Some(draft), Err(_)) => Some(format!("v{}", draft.body()["version"])),
        };
        rows.push(RoleRow {
            version: offline.repository().version(&role),
            expires: expires.unwrap_or_else(|| "-".into()),
            role,
            people,
            holders,
            draft,
        });
    }
    let here = holder::all_here(&access.dir)?.join(", ");
    let root = offline
        .repository()
        .root()
        .map(|(version, bytes)| format!("v{version} {}", tidegate_delta::sha256(bytes)));
    show(context.format, &rows, |rows| {
        let cells = rows
            .iter()
            .map(|r| {
                [
                    r.role.clone(),
                    r.version.to_string(),
                    r.expires.clone(),
                    r.people.clone(),
                    r.holders.join(", "),
                    r.draft.clone().unwrap_or_else(|| "-".into()),
                ]
            })
            .collect();
        format!(
            "{}\n\nprivate keys here: {}\nroot of trust: {}",
            table(
                ["ROLE", "VERSION", "EXPIRES", "PEOPLE", "HOLDERS", "DRAFT"],
                cells
            ),
            if here.is_empty() { "none" } else { &here },
            root.as_deref().unwrap_or("none")
        )
    })
}
