//! `install` and `uninstall`: the agent as a service of the machine.
//!
//! Everything is written below a root, `/` by default, so that an image can be prepared on another
//! machine. What is there already and was changed by a person stays.

use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::install::BackendSettings;
use crate::settings;

/// Where the agent keeps its folder when it is installed.
pub(crate) const STATE: &str = "/var/lib/tidegate-agent";

/// What is to be installed.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The agent's folder.
    pub(crate) state: PathBuf,
    /// The folder of its own updates, if a guard starts it.
    pub(crate) own: Option<PathBuf>,
    /// A group whose members may speak to it.
    pub(crate) group: Option<String>,
    /// Folders that its commands write to, beside its own.
    pub(crate) write: Vec<PathBuf>,
    /// Below which everything is written.
    pub(crate) root: PathBuf,
    /// The manual page.
    pub(crate) man: String,
}

impl Plan {
    fn below(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn is_here(&self) -> bool {
        self.root == Path::new("/")
    }

    fn unit_file(&self) -> PathBuf {
        self.below("/etc/systemd/system/tidegate-agent.service")
    }

    fn man_file(&self) -> PathBuf {
        self.below("/usr/local/share/man/man8/tidegate-agent.8")
    }

    fn folder(&self) -> PathBuf {
        self.below(&self.state.display().to_string())
    }

    /// Folders that must stay writable; `None` where commands of the owner's install: what they
    /// write to only the owner knows.
    fn writable(&self, config: Option<&Config>) -> Option<Vec<PathBuf>> {
        let mut paths = vec![self.state.clone()];
        paths.extend(self.own.clone());
        let parent = |path: &Path| path.parent().map(Path::to_owned);
        match config.map(|config| &config.backend) {
            Some(BackendSettings::Executable { path }) => paths.extend(parent(path)),
            Some(BackendSettings::Image { a, b, .. }) => {
                // Devices stay writable by themselves.
                let files = [a, b].into_iter().filter(|path| !path.starts_with("/dev"));
                paths.extend(files.filter_map(|path| parent(path)));
                paths.push("/boot".into());
            }
            Some(BackendSettings::Hook { .. }) if self.write.is_empty() => return None,
            _ => {}
        }
        paths.extend(self.write.iter().cloned());
        Some(paths)
    }

    fn unit(&self, program: &Path, config: Option<&Config>) -> String {
        let quoted = |path: &Path| {
            let text = path.display().to_string().replace('%', "%%");
            format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
        };
        let state = quoted(&self.state);
        let start = match &self.own {
            None => format!("{} run --state {state}", quoted(program)),
            Some(own) => {
                let guard = program.with_file_name("tidegate-guard");
                let own = quoted(own);
                let guard = quoted(&guard);
                format!("{guard} {own} run --state {state} --self-state {own}")
            }
        };
        let protect = match self.writable(config) {
            Some(paths) => {
                let paths: Vec<String> = paths
                    .iter()
                    .map(|path| format!("\"-{}\"", path.display()))
                    .collect();
                format!(
                    "ProtectSystem=strict\nReadWritePaths={}\nProtectHome=read-only\nPrivateTmp=yes\n",
                    paths.join(" ").replace('%', "%%")
                )
            }
            None => {
                "# A hook installs here, and writes where it must; `install --write DIR` names \
                     its folders and closes the rest.\n"
                    .into()
            }
        };
        format!(
            "# Written by `tidegate-agent install`. Changes of your own belong into\n\
             # `systemctl edit tidegate-agent`.\n\
             [Unit]\nDescription=Tidegate agent\nDocumentation=man:tidegate-agent(8)\n\
             Wants=network-online.target\nAfter=network-online.target\n\n\
             [Service]\nType=notify\nNotifyAccess=all\nExecStart={start}\n\
             Restart=always\nRestartSec=5\nWatchdogSec=120\nTimeoutStopSec=30\nKillMode=mixed\n\
             UMask=0027\nOOMScoreAdjust=-500\n\
             NoNewPrivileges=yes\n{protect}\
             ProtectKernelTunables=yes\nProtectKernelModules=yes\nProtectControlGroups=yes\n\
             ProtectClock=yes\nProtectHostname=yes\nRestrictRealtime=yes\nLockPersonality=yes\n\
             MemoryDenyWriteExecute=yes\nSystemCallArchitectures=native\n\
             RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK\n\n\
             [Install]\nWantedBy=multi-user.target\n"
        )
    }
}

/// Writes the service, the settings and the manual page; starts it where the device has joined.
pub(crate) fn install(plan: &Plan) -> Result<String, String> {
    let program = std::env::current_exe().map_err(|e| format!("this program's path: {e}"))?;
    if plan.own.is_some() {
        let guard = program.with_file_name("tidegate-guard");
        if plan.is_here() && !guard.is_file() {
            return Err(format!("{} is not there", guard.display()));
        }
    }
    let folder = plan.folder();
    make_folder(&folder, plan.group.is_some())?;
    // One that was not readable would be overwritten with less than it held.
    let config = match Config::load(&folder) {
        Ok(config) => Some(config),
        Err(crate::config::ConfigError::NotEnrolled(_)) => None,
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
    write(&plan.man_file(), &plan.man, &mut said)?;
    if cfg!(target_os = "linux") {
        write(
            &plan.unit_file(),
            &plan.unit(&program, config.as_ref()),
            &mut said,
        )?;
    }
    if let Some(group) = plan.group.as_deref().filter(|_| plan.is_here()) {
        give_to_group(&folder, group)?;
    }
    let next = if !plan.is_here() || !has_systemd() {
        "next    systemctl enable --now tidegate-agent, on the machine itself".into()
    } else if config.is_none() {
        systemctl(&["daemon-reload"])?;
        format!(
            "next    tidegate-agent enroll --state {} ..., then tidegate-agent install again",
            plan.state.display()
        )
    } else {
        systemctl(&["daemon-reload"])?;
        systemctl(&["enable", "tidegate-agent"])?;
        systemctl(&["restart", "tidegate-agent"])?;
        "started tidegate-agent".into()
    };
    said.push(next);
    Ok(said.join("\n") + "\n")
}

/// Takes the service away. The folder stays: in it are the device's key and what runs from it.
pub(crate) fn uninstall(plan: &Plan) -> Result<String, String> {
    let mut said = Vec::new();
    let unit = plan.unit_file();
    if plan.is_here() && has_systemd() && unit.exists() {
        systemctl(&["disable", "--now", "tidegate-agent"])?;
    }
    for path in [unit, plan.man_file()] {
        match std::fs::remove_file(&path) {
            Ok(()) => said.push(format!("removed {}", path.display())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(format!("{}: {e}", path.display())),
        }
    }
    if plan.is_here() && has_systemd() {
        systemctl(&["daemon-reload"])?;
    }
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

/// The folder holds the device's key: others have no business in it, and a group only passes
/// through to the socket.
fn make_folder(folder: &Path, group: bool) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
    if folder.exists() {
        return Ok(());
    }
    std::fs::create_dir_all(folder).map_err(failed)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        // What runs from it may belong to another user: it has to be able to pass through.
        let mode = if group { 0o750 } else { 0o755 };
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(folder, mode).map_err(failed)?;
    }
    let _ = group;
    Ok(())
}

fn give_to_group(folder: &Path, group: &str) -> Result<(), String> {
    #[cfg(unix)]
    {
        let id = crate::platform::group_id(group).map_err(|e| e.to_string())?;
        std::os::unix::fs::chown(folder, None, Some(id))
            .map_err(|e| format!("{}: {e}", folder.display()))?;
    }
    let _ = (folder, group);
    Ok(())
}

fn has_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

fn systemctl(words: &[&str]) -> Result<(), String> {
    let output = std::process::Command::new("systemctl")
        .args(words)
        .output()
        .map_err(|e| format!("systemctl: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("systemctl {}: {}", words.join(" "), said.trim()))
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use tidegate_trust::Health;

    use super::*;

    fn plan(root: &Path) -> Plan {
        Plan {
            state: STATE.into(),
            own: None,
            group: None,
            write: Vec::new(),
            root: root.to_owned(),
            man: ".TH".into(),
        }
    }

    #[test]
    fn what_was_installed_is_found_and_taken_away_and_what_people_wrote_stays() {
        let root = tempfile::tempdir().unwrap();
        let plan = plan(root.path());
        install(&plan).unwrap();
        let unit = std::fs::read_to_string(plan.unit_file()).unwrap();
        for line in [
            "NoNewPrivileges=yes",
            "ProtectSystem=strict",
            "ReadWritePaths=\"-/var/lib/tidegate-agent\"\n",
            "Restart=always",
            "Type=notify",
        ] {
            assert!(unit.contains(line), "{line} in {unit}");
        }
        let conf = plan.folder().join(settings::FILE);
        std::fs::write(&conf, "parallel = 1\n").unwrap();
        let said = install(&plan).unwrap();
        assert!(said.contains("kept"), "{said}");
        let said = uninstall(&plan).unwrap();
        assert!(said.contains("removed"), "{said}");
        assert!(!plan.unit_file().exists());
        assert_eq!(std::fs::read_to_string(conf).unwrap(), "parallel = 1\n");
    }

    #[test]
    fn a_unit_leaves_writable_what_the_backend_writes_and_no_more() {
        let root = tempfile::tempdir().unwrap();
        let mut plan = plan(root.path());
        plan.own = Some("/var/lib/tide gate/100%".into());
        let mut config: Config = serde_json::from_str(
            r#"{"server": "http://a:1", "device": "dev_00000000000000000000000000000000",
            "name": "n", "product": "app", "platform": "linux-arm", "channel": "stable",
            "backend": {"kind": "executable", "path": "/opt/press/app"}}"#,
        )
        .unwrap();
        let program = Path::new("/usr/bin/tidegate-agent");
        let unit = plan.unit(program, Some(&config));
        assert!(unit.contains("\"-/opt/press\"\n"), "{unit}");
        assert!(unit.contains("\"/var/lib/tide gate/100%%\""), "{unit}");
        assert!(
            unit.contains("ExecStart=\"/usr/bin/tidegate-guard\""),
            "{unit}"
        );
        let command = Health {
            command: vec!["hook".into()],
            timeout_s: 1,
        };
        config.backend = BackendSettings::Hook { command };
        assert!(!plan.unit(program, Some(&config)).contains("ProtectSystem"));
        plan.write = vec!["/usr".into()];
        assert!(plan.unit(program, Some(&config)).contains("\"-/usr\"\n"));
    }
}
