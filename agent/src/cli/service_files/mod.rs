//! `install` and `uninstall`: the agent as a service of the machine.
//!
//! With systemd everything is written below a root, `/` by default, so that an image can be
//! prepared on another machine; on Windows the service manager is called. Settings that a person
//! has changed stay.

use std::path::{Path, PathBuf};

use crate::people::config::Config;
use crate::people::settings;

#[cfg(not(windows))]
mod systemd;
#[cfg(windows)]
mod windows;

#[cfg(not(windows))]
use systemd as system;
#[cfg(windows)]
use windows as system;

pub(crate) use system::default_state;
#[cfg(windows)]
pub(crate) use windows::serve;

/// Options of an installation.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The agent's folder.
    pub(crate) state: PathBuf,
    /// State directory of the agent's own updates, if a guard starts it.
    pub(crate) own: Option<PathBuf>,
    /// A group whose members may speak to it.
    pub(crate) group: Option<String>,
    /// Further folders that its commands write to.
    #[cfg_attr(windows, expect(dead_code, reason = "systemd alone shuts folders"))]
    pub(crate) write: Vec<PathBuf>,
    /// Root below which everything is written.
    pub(crate) root: PathBuf,
    /// The manual page.
    #[cfg_attr(windows, expect(dead_code, reason = "Windows has none"))]
    pub(crate) man: String,
}

impl Plan {
    fn below(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn is_here(&self) -> bool {
        self.root == Path::new("/")
    }

    fn folder(&self) -> PathBuf {
        self.below(&self.state.display().to_string())
    }
}

/// Writes the service, the settings and the manual page; starts the service if the device is
/// enrolled.
pub(crate) fn install(plan: &Plan) -> Result<String, String> {
    let program = std::env::current_exe().map_err(|e| format!("this program's path: {e}"))?;
    if plan.own.is_some() {
        let guard = format!("tidegate-guard{}", std::env::consts::EXE_SUFFIX);
        let guard = program.with_file_name(guard);
        if plan.is_here() && !guard.is_file() {
            return Err(format!("{} is not there", guard.display()));
        }
    }
    let folder = plan.folder();
    make_folder(&folder, plan.group.is_some())?;
    // An unreadable configuration is an error: what is written without it would allow less than
    // before.
    let config = match Config::load(&folder) {
        Ok(config) => Some(config),
        Err(crate::people::config::ConfigError::NotEnrolled(_)) => None,
        Err(error) => return Err(crate::log::chain(&error)),
    };
    let conf = folder.join(settings::FILE);
    let mut said = Vec::new();
    if conf.exists() {
        said.push(format!("kept    {}", conf.display()));
    } else {
        let mut text = settings::TEMPLATE.to_owned();
        if let Some(group) = &plan.group {
            text = text.replace("#group = operators", &format!("group = {group}"));
        }
        write(&conf, &text, &mut said)?;
    }
    let enroll_first = || {
        format!(
            "next    tidegate-agent enroll --state {} ..., then tidegate-agent install again",
            plan.state.display()
        )
    };
    let next = system::make(plan, &program, config.as_ref(), &mut said)?;
    said.push(next.unwrap_or_else(enroll_first));
    Ok(said.join("\n") + "\n")
}

/// Removes the service. The folder stays: it holds the device's key and what runs from it.
pub(crate) fn uninstall(plan: &Plan) -> Result<String, String> {
    let mut said = Vec::new();
    system::remove(plan, &mut said)?;
    let folder = plan.folder();
    if folder.exists() {
        said.push(format!(
            "kept    {}: the device's key, its journal, and what runs from it",
            folder.display()
        ));
    }
    Ok(said.join("\n") + "\n")
}

fn write(path: &Path, text: &str, said: &mut Vec<String>) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    std::fs::write(path, text).map_err(failed)?;
    said.push(format!("wrote   {}", path.display()));
    Ok(())
}

/// Creates the agent's folder, which holds the device's key. With a group, only its members may
/// pass through to the socket.
fn make_folder(folder: &Path, group: bool) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
    if folder.exists() {
        return Ok(());
    }
    std::fs::create_dir_all(folder).map_err(failed)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        // The installed software may run as another user: it has to be able to pass through.
        let mode = if group { 0o750 } else { 0o755 };
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(folder, mode).map_err(failed)?;
    }
    let _ = group;
    Ok(())
}

/// Runs a program of the system's; the error is its output.
fn run(program: &str, words: &[&str]) -> Result<(), String> {
    let output = std::process::Command::new(program)
        .args(words)
        .output()
        .map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    // Windows' programs report errors on standard output.
    let (out, err) = (&output.stdout, &output.stderr);
    let said = String::from_utf8_lossy(if err.is_empty() { out } else { err }).into_owned();
    Err(format!("{program} {}: {}", words.join(" "), said.trim()))
}
