//! Options of `enroll`.

use std::path::PathBuf;

use tidegate_delta::archive::PackOptions;

use super::Options;
use super::values::{absolute, line, startable, typed};
use crate::host::power::PowerSettings;
use crate::host::{health, platform, power, program};
use crate::install::BackendSettings;
use crate::people::enroll::Request;

/// Parses the options of `enroll`.
pub(super) fn request(mut options: Options, state: PathBuf) -> Result<Request, lexopt::Error> {
    let mut value = |name: &str| options.values.remove(name);
    let needed = |name: &str, value: Option<String>| {
        value.ok_or_else(|| lexopt::Error::from(format!("enroll needs --{name}")))
    };
    let token = value("token").or_else(|| std::env::var("TIDEGATE_JOIN_TOKEN").ok());
    let timeout_s: u32 = typed("health-timeout", value("health-timeout"))?.unwrap_or(30);
    let health = value("health-cmd")
        .map(|text| line("health-cmd", &text, timeout_s))
        .transpose()?;
    if let Some(health) = &health {
        health::look_at(&health.command).map_err(|e| format!("--health-cmd: {e}"))?;
    }
    let restart = value("restart-cmd")
        .map(|text| line("restart-cmd", &text, timeout_s))
        .transpose()?;
    let adopt = match (value("adopt"), typed("release", value("release"))?) {
        (Some(folder), Some(release)) => Some((PathBuf::from(folder), release)),
        (None, None) => None,
        _ => return Err("--adopt and --release go together".into()),
    };
    let hook_timeout_s: u32 = typed("hook-timeout", value("hook-timeout"))?.unwrap_or(600);
    let hook = |name: &str, text: String| {
        let hook = line(name, &text, hook_timeout_s)?;
        // Hooks run in the agent's folder, which is still empty.
        let word = hook.command.first().map_or("", String::as_str);
        match program::find(word, &state) {
            Err(not) => Err(format!("--{name}: {}", not.what).into()),
            Ok(_) => Ok::<_, lexopt::Error>(hook),
        }
    };
    let kind = value("backend").unwrap_or_else(|| "directory".into());
    let backend = match kind.as_str() {
        "directory" => BackendSettings::Directory,
        "executable" => BackendSettings::Executable {
            path: absolute(needed("path", value("path"))?.into()),
        },
        "image" => BackendSettings::Image {
            a: absolute(needed("slot-a", value("slot-a"))?.into()),
            b: absolute(needed("slot-b", value("slot-b"))?.into()),
            boot: hook("boot-cmd", needed("boot-cmd", value("boot-cmd"))?)?,
        },
        "hook" => BackendSettings::Hook {
            command: hook("hook-cmd", needed("hook-cmd", value("hook-cmd"))?)?,
        },
        "agent" => BackendSettings::Agent,
        other => {
            let text = format!(
                "unknown backend {other:?}: expected directory, executable, image, hook or agent"
            );
            return Err(text.into());
        }
    };
    for (name, of) in [
        ("path", "executable"),
        ("slot-a", "image"),
        ("slot-b", "image"),
        ("boot-cmd", "image"),
        ("hook-cmd", "hook"),
    ] {
        if value(name).is_some() {
            let text = format!("--{name} needs --backend {of}, but the backend is {kind}");
            return Err(text.into());
        }
    }
    let reboot = value("reboot-cmd")
        .map(|text| hook("reboot-cmd", text))
        .transpose()?;
    // What runs in the version may come with it, as all the files of an image and what a hook installs.
    let brings = |path: &std::path::Path| match &backend {
        BackendSettings::Directory | BackendSettings::Agent => path.starts_with(&state),
        BackendSettings::Executable { path: live } => {
            path == live || live.file_name() == Some(path.as_os_str())
        }
        BackendSettings::Image { .. } | BackendSettings::Hook { .. } => true,
    };
    let folder = match (&backend, &adopt) {
        (BackendSettings::Directory, Some((folder, _))) => folder.clone(),
        (BackendSettings::Executable { path }, _) => path.parent().unwrap_or(path).to_owned(),
        _ => state.clone(),
    };
    for (name, line) in [("health-cmd", &health), ("restart-cmd", &restart)] {
        line.as_ref()
            .map_or(Ok(()), |line| startable(name, line, &folder, brings))?;
    }
    let ups = value("ups");
    if let Some(ups) = &ups {
        power::look_at_ups(ups).map_err(|e| format!("--ups {ups}: {e}"))?;
    }
    let server = needed("server", value("server"))?;
    let product = needed("product", value("product"))?;
    Ok(Request {
        server: server.trim_end_matches('/').to_owned(),
        also: options.also,
        mirror_hosts: options.mirror_hosts,
        token: needed("token", token)?,
        product: typed("product", Some(product))?.ok_or("--product")?,
        platform: typed(
            "platform",
            Some(value("platform").unwrap_or_else(platform::platform)),
        )?
        .ok_or_else(|| lexopt::Error::from("--platform"))?,
        name: value("name").unwrap_or_else(platform::host_name),
        region: typed("region", value("region"))?,
        channel: typed("channel", value("channel"))?,
        adopt,
        carry: PackOptions {
            public: options.flags.contains("allow-public"),
            drop_attributes: options.flags.contains("drop-attributes"),
            owner: None,
        },
        plain_http: options.flags.contains("allow-plain-http"),
        ca_file: value("ca-file").map(|file| absolute(file.into())),
        health,
        restart,
        power: PowerSettings {
            file: value("battery-file").map(|file| absolute(file.into())),
            ups,
            supplies: None,
        },
        health_every_s: typed("health-every", value("health-every"))?.unwrap_or(300),
        metered: typed("metered", value("metered"))?.unwrap_or_default(),
        clock_trusted: options.flags.contains("clock-trusted"),
        labels: options.labels,
        backend,
        reboot,
        state,
    })
}
