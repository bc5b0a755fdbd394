//! Arguments of `tidegate delta`.

use clap::Subcommand;
use std::path::PathBuf;
use tidegate_delta::Encoding;

#[derive(Debug, Subcommand)]
pub(crate) enum DeltaCommand {
    /// Make a delta between two files.
    Diff {
        /// The file that the other side already has.
        old: PathBuf,
        /// The file that it should get.
        new: PathBuf,
        /// Path of the delta to write.
        delta: PathBuf,
        /// dense (smallest), quick (fastest to apply), bsdiff, or full (needs no old file).
        #[arg(long, default_value = "dense")]
        encoding: Encoding,
        /// Maximum memory for applying the delta, in MiB; from 131 on dense uses large tables.
        #[arg(long, default_value_t = 16, value_name = "MIB", value_parser = clap::value_parser!(u32).range(12..=4096))]
        memory: u32,
        /// Number of encoding threads; defaults to one per core.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
        threads: Option<u16>,
    },
    /// Make the new file from the old one and a delta. An interrupted apply resumes when it is run
    /// again.
    Apply {
        /// The file that the delta starts from.
        old: PathBuf,
        /// The delta.
        delta: PathBuf,
        /// Path of the new file; it appears only when it is complete and verified.
        new: PathBuf,
        /// Maximum memory, in MiB.
        #[arg(long, default_value_t = 16, value_name = "MIB", value_parser = clap::value_parser!(u32).range(2..=4096))]
        memory: u32,
    },
    /// Show the contents of a delta.
    Inspect {
        /// The delta.
        delta: PathBuf,
    },
}
