//! `keys`: the offline keys and what they sign.

mod args;

pub(crate) use args::{KeysCommand, TokenArgs};

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use tidegate_api::{ReasonBody, TrustView};
use tidegate_protocol::ProductName;
use tidegate_trust::{Holder, Signed};

use super::Context;
use super::ceremony;
use super::keys_show::{describe_file, read_draft, show_folder};
use crate::error::{CliError, at, parse};
use crate::keys::exchange::OnlineKeys;
use crate::keys::token::TokenPlace;
use crate::keys::{Access, Offline, holder, read_bounded};
use crate::output::line;

/// Runs a `keys` command.
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
            ))
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
            edit(&mut offline, &role, |quorum, role| {
                quorum.set_people(people);
                quorum.check(role)
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
                quorum.check(role)
            })
        }
        KeysCommand::Remove { role, name, dir } => {
            let mut offline = Offline::open_any(&dir.access())?;
            edit(&mut offline, &role, |quorum, role| {
                quorum.remove(role, &name)?;
                quorum.check(role)
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
                line(&text)?;
            }
            Ok(())
        }
        KeysCommand::Renew { role, yes, dir } => {
            let mut offline = Offline::open(&dir.access())?;
            let next = Signed::unsigned(offline.next_body(&role)?);
            confirm_text(&offline.review(&role, &next)?, yes)?;
            let outcome = offline.renew(&role, next.body().clone())?;
            line(&outcome.describe(&role))
        }
        KeysCommand::Drop { role, dir } => {
            // The folder is not opened, so that even an unreadable draft can be dropped.
            if !crate::keys::drop_draft(&dir.keys, &role)? {
                let text = format!("there is no draft of {role} in {}", dir.keys.display());
                return Err(CliError::State(
                    text,
                    "tidegate keys show lists the drafts".into(),
                ));
            }
            line(&format!("deleted the draft of {role}"))
        }
        KeysCommand::Push { dir } => {
            let offline = Offline::open_any(&dir.access())?;
            offline.push_all(&context.api()?).await?;
            line("the server now has everything in this folder")
        }
        KeysCommand::Fetch { dir, root } => fetch(context, &dir.access(), root.as_deref()).await,
        KeysCommand::Show { dir, file } => match file {
            Some(path) => line(&describe_file(&dir.access(), &path)?),
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
        let name: ProductName = parse(&name)?;
        let changed = offline.add_product(&name)?;
        offline.push(&api, &changed).await?;
    }
    line(&format!(
        "the keys are in {}; the server has only their public halves. Keep the folder off the \
         server, and a copy of it somewhere safe.\n  One person holds every key here, which is \
         good for trying out: `tidegate keys ceremony` makes keys for several people.",
        access.dir.display()
    ))
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

/// Reads a public key file, or that of a holder in the folder by name.
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
    ))
}

async fn online(
    context: &Context,
    access: &Access,
    export: Option<PathBuf>,
    import: Option<PathBuf>,
) -> Result<(), CliError> {
    let keys: OnlineKeys = match &import {
        Some(path) => serde_json::from_slice(&read_bounded(path).map_err(at(path))?)
            .map_err(|e| CliError::Failed(format!("{}: {e}", path.display())))?,
        None => OnlineKeys::ask(&context.api()?).await?,
    };
    if let Some(path) = export {
        let text = serde_json::to_vec_pretty(&keys).map_err(|e| CliError::failed("JSON", &e))?;
        std::fs::write(&path, text)?;
        line(&format!(
            "the server's public keys are in {}",
            path.display()
        ))?;
        return Ok(());
    }
    Offline::open_any(access)?.edit_online(&keys)?;
    line(
        "the drafts of root and targets name the server's keys. Next: `tidegate keys sign` by their \
         holders, then `keys push`",
    )
}

/// Signs drafts: those of the folder, or files that others sent.
fn sign(access: &Access, files: &[PathBuf], yes: bool) -> Result<(), CliError> {
    let mut offline = Offline::open_any(access)?;
    if files.is_empty() {
        let roles = offline.names("drafts")?;
        if roles.is_empty() {
            return Err(CliError::Failed("no draft waits for a signature".into()));
        }
        let mut signed = false;
        for role in roles {
            let Some(mut draft) = offline.draft(&role)? else {
                continue;
            };
            confirm_text(&offline.review(&role, &draft)?, yes)?;
            signed |= !offline.sign_with_own(&role, &mut draft)?.is_empty();
            let purpose = offline.purpose(&role);
            let outcome = offline.settle(&role, &draft, &purpose)?;
            line(&outcome.describe(&role))?;
        }
        if !signed {
            return Err(CliError::Hinted(
                format!("nothing was signed: no key in {} may", access.dir.display()),
                "`tidegate keys show` lists the holders of each role".into(),
            ));
        }
        return Ok(());
    }
    for path in files {
        let (role, mut draft) = read_draft(path)?;
        confirm_text(&offline.review(&role, &draft)?, yes)?;
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
        ))?;
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

/// Shows a text and asks whether to sign what it describes.
pub(crate) fn confirm_text(text: &str, yes: bool) -> Result<(), CliError> {
    line(text)?;
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(CliError::Hinted(
            "no terminal to ask for confirmation".into(),
            "check it, then repeat the command with --yes".into(),
        ));
    }
    asked()
}

/// Asks on the terminal whether to sign what was shown.
pub(crate) fn asked() -> Result<(), CliError> {
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

/// Creates a folder from what a server has, or brings it up to date, starting from a root whose
/// hash a person was told.
async fn fetch(context: &Context, access: &Access, root: Option<&str>) -> Result<(), CliError> {
    if let Some(root) = root
        && root.parse::<tidegate_protocol::Sha256>().is_err()
    {
        return Err(CliError::Usage(
            "--root takes the 64 hex digits from the ceremony's transcript".into(),
        ));
    }
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
                "the server's first root has SHA-256 {found}, not the one given with --root"
            )));
        }
        offline.take("root", bytes)?;
    }
    offline.pull(&api).await?;
    offline.pull_drafts(&api).await?;
    show_folder(context, access)
}
