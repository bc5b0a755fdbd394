//! The agent as a service of systemd, and its manual page.

use std::path::{Path, PathBuf};

use super::{Plan, run, write};
use crate::install::BackendSettings;
use crate::people::config::Config;

/// Default state directory of an installed agent.
pub(crate) fn default_state() -> PathBuf {
    "/var/lib/tidegate-agent".into()
}

impl Plan {
    fn unit_file(&self) -> PathBuf {
        self.below("/etc/systemd/system/tidegate-agent.service")
    }

    fn man_file(&self) -> PathBuf {
        self.below("/usr/local/share/man/man8/tidegate-agent.8")
    }

    /// Folders that must stay writable; `None` for a hook without `--write`: only the owner knows
    /// where it writes.
    fn writable(&self, config: Option<&Config>) -> Option<Vec<PathBuf>> {
        let mut paths = vec![self.state.clone()];
        paths.extend(self.own.clone());
        let parent = |path: &Path| path.parent().map(Path::to_owned);
        match config.map(|config| &config.backend) {
            Some(BackendSettings::Executable { path }) => paths.extend(parent(path)),
            Some(BackendSettings::Image { a, b, .. }) => {
                // Device files stay writable anyway.
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
        let backend = config.map(|config| &config.backend);
        // `ProtectClock` allows certain devices and closes all others: slots on devices could not
        // be written, nor whatever a hook installs.
        let clock = match backend {
            Some(BackendSettings::Image { .. } | BackendSettings::Hook { .. }) => "",
            _ => "ProtectClock=yes\n",
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
             {clock}ProtectKernelLogs=yes\nProtectHostname=yes\nRestrictRealtime=yes\nLockPersonality=yes\n\
             SystemCallArchitectures=native\n\
             RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK AF_CAN AF_PACKET\n\n\
             [Install]\nWantedBy=multi-user.target\n"
        )
    }
}

/// Creates the service, and starts it if the device is enrolled. Returns what was done or is to be
/// done next; `None` if that is to enroll.
pub(super) fn make(
    plan: &Plan,
    program: &Path,
    config: Option<&Config>,
    said: &mut Vec<String>,
) -> Result<Option<String>, String> {
    write(&plan.man_file(), &plan.man, said)?;
    let there = if plan.is_here() {
        program.to_owned()
    } else {
        bring_along(plan, program, said)?
    };
    if cfg!(target_os = "linux") {
        write(&plan.unit_file(), &plan.unit(&there, config), said)?;
    }
    if let Some(group) = plan.group.as_deref().filter(|_| plan.is_here()) {
        give_to_group(&plan.folder(), group)?;
    }
    if !plan.is_here() || !has_systemd() {
        let text = "next    systemctl enable --now tidegate-agent, on the machine itself";
        return Ok(Some(text.into()));
    }
    systemctl(&["daemon-reload"])?;
    if config.is_none() {
        return Ok(None);
    }
    systemctl(&["enable", "tidegate-agent"])?;
    systemctl(&["restart", "tidegate-agent"])?;
    Ok(Some("started tidegate-agent".into()))
}

/// Copies the programs into an image of another machine; returns the agent's path there.
fn bring_along(plan: &Plan, program: &Path, said: &mut Vec<String>) -> Result<PathBuf, String> {
    let there = PathBuf::from("/usr/local/bin/tidegate-agent");
    let mut programs = vec![(program.to_owned(), there.clone())];
    if plan.own.is_some() {
        let guard = "tidegate-guard";
        programs.push((program.with_file_name(guard), there.with_file_name(guard)));
    }
    for (from, to) in programs {
        let to = plan.below(&to.display().to_string());
        let copied = std::fs::create_dir_all(to.parent().unwrap_or(&plan.root))
            .and_then(|()| std::fs::copy(&from, &to));
        copied.map_err(|e| format!("{} to {}: {e}", from.display(), to.display()))?;
        said.push(format!("wrote   {}", to.display()));
    }
    Ok(there)
}

/// Removes the service and the manual page.
pub(super) fn remove(plan: &Plan, said: &mut Vec<String>) -> Result<(), String> {
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
    Ok(())
}

fn give_to_group(folder: &Path, group: &str) -> Result<(), String> {
    let id = crate::host::platform::group_id(group).map_err(|e| e.to_string())?;
    std::os::unix::fs::chown(folder, None, Some(id))
        .map_err(|e| format!("{}: {e}", folder.display()))
}

fn has_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

fn systemctl(words: &[&str]) -> Result<(), String> {
    run("systemctl", words)
}

#[cfg(test)]
mod tests {
    use tidegate_trust::CommandLine;

    use super::super::{install, uninstall};
    use super::*;
    use crate::people::settings;

    fn plan(root: &Path) -> Plan {
        Plan {
            state: default_state(),
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
            "ExecStart=\"/usr/local/bin/tidegate-agent\" run",
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
        let command = CommandLine {
            command: vec!["hook".into()],
            timeout_s: 1,
        };
        assert!(unit.contains("ProtectClock=yes"), "{unit}");
        config.backend = BackendSettings::Image {
            a: "/dev/mmcblk0p2".into(),
            b: "/dev/mmcblk0p3".into(),
            boot: command.clone(),
        };
        let unit = plan.unit(program, Some(&config));
        assert!(!unit.contains("ProtectClock"), "{unit}");
        config.backend = BackendSettings::Hook { command };
        assert!(!plan.unit(program, Some(&config)).contains("ProtectSystem"));
        plan.write = vec!["/usr".into()];
        assert!(plan.unit(program, Some(&config)).contains("\"-/usr\"\n"));
    }
}
