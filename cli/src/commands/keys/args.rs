//! Arguments of `tidegate keys`.

use crate::commands::ceremony::CeremonyArgs;
use crate::keys::holder::Profile;
use crate::options::{KeysDir, NewKeys};
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    /// Keep the Ed25519 key in a PKCS#11 token; path of its library, for example
    /// /usr/lib/softhsm/libsofthsm2.so.
    #[arg(long, value_name = "LIBRARY", required = false)]
    pub(crate) pkcs11_module: PathBuf,
    /// Label of the token; defaults to the holder's name.
    #[arg(long, value_name = "LABEL", requires = "pkcs11_module")]
    pub(crate) token_label: Option<String>,
    /// File with the token's PIN; you are asked by default.
    #[arg(long, value_name = "FILE", requires = "pkcs11_module")]
    pub(crate) pin_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Create every key for one person, sign root and targets, and give the public parts to the
    /// server. For trying out.
    Init {
        #[command(flatten)]
        dir: KeysDir,
        #[command(flatten)]
        new: NewKeys,
        /// Also create the roles of a product; may be repeated.
        #[arg(long)]
        product: Vec<String>,
        /// Algorithms that the keys are for.
        #[arg(long, default_value = "hybrid")]
        profile: Profile,
    },
    /// Create the first root with several people, step by step; run it again to continue.
    Ceremony(Box<CeremonyArgs>),
    /// Create a person's keys.
    New {
        /// Name by which the others know you.
        name: String,
        #[command(flatten)]
        dir: KeysDir,
        #[command(flatten)]
        new: NewKeys,
        /// Algorithms that the keys are for.
        #[arg(long, default_value = "hybrid")]
        profile: Profile,
        #[command(flatten)]
        token: Option<TokenArgs>,
    },
    /// Let people sign a role: root, targets, or one such as `desk-stable`.
    Add {
        /// The role.
        role: String,
        /// Their public key files, or names of holders in the keys folder.
        #[arg(required = true)]
        holders: Vec<PathBuf>,
        #[command(flatten)]
        dir: KeysDir,
    },
    /// Set the number of people who must sign a role.
    Threshold {
        /// The role.
        role: String,
        /// Number of people.
        people: u32,
        #[command(flatten)]
        dir: KeysDir,
    },
    /// Replace one person's keys with another's.
    Rotate {
        /// The role.
        role: String,
        /// The holder who goes.
        old: String,
        /// Public key file of the new holder, or their name in the keys folder.
        new: PathBuf,
        #[command(flatten)]
        dir: KeysDir,
    },
    /// Remove a person from the holders of a role.
    Remove {
        /// The role.
        role: String,
        /// The holder who goes.
        name: String,
        #[command(flatten)]
        dir: KeysDir,
    },
    /// Write the server's online keys into the drafts of root and targets, also after a theft.
    Online {
        #[command(flatten)]
        dir: KeysDir,
        /// Only export them to a file, for a machine without a network.
        #[arg(long, value_name = "FILE")]
        export: Option<PathBuf>,
        /// Import them from such a file.
        #[arg(long, value_name = "FILE", conflicts_with = "export")]
        import: Option<PathBuf>,
        /// Have the server make new online keys first, for example after it was stolen; takes the
        /// reason.
        #[arg(long, value_name = "REASON", conflicts_with = "import")]
        rotate: Option<String>,
    },
    /// Show and sign waiting drafts: those of the folder, or files that others sent.
    Sign {
        /// Files that others sent.
        files: Vec<PathBuf>,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        dir: KeysDir,
    },
    /// Merge the signatures of files that others have signed.
    Merge {
        /// The files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        #[command(flatten)]
        dir: KeysDir,
    },
    /// Show a role and sign it again unchanged, with a later expiry.
    Renew {
        /// The role.
        role: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        dir: KeysDir,
    },
    /// Delete a draft.
    Drop {
        /// The role.
        role: String,
        #[command(flatten)]
        dir: KeysDir,
    },
    /// Upload what the server does not have yet: files in force, and drafts.
    Push {
        #[command(flatten)]
        dir: KeysDir,
    },
    /// Download what others have signed, drafts included.
    Fetch {
        #[command(flatten)]
        dir: KeysDir,
        /// SHA-256 of the first root, for a folder that has none yet. Do not take it from the
        /// server.
        #[arg(long, value_name = "SHA256")]
        root: Option<String>,
    },
    /// Show who may sign what, which drafts wait and which keys are here; or the contents of a
    /// file.
    Show {
        /// A file to show.
        file: Option<PathBuf>,
        #[command(flatten)]
        dir: KeysDir,
    },
}
