//! The demo: the whole system by itself, with real processes, real files and real HTTP.

mod payload;
mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use tidegate_api::{
    DeploymentView, DeviceView, EventView, JoinTokenBody, JoinTokenView, OrderBody, PolicyBody,
    PromoteBody, ReleaseView, RolloutBody, RolloutView, WaveBody,
};
use tidegate_delta::archive::PackOptions;
use tidegate_protocol::{Platform, ProductName, Stage, Version};
use tidegate_trust::CommandLine;

use crate::api::Api;
use crate::commands::release::{Publication, publish_release, sign_for};
use crate::commands::watch::{self, Until};
use crate::error::CliError;
use crate::keys::holder::Profile;
use crate::keys::secret::Unlock;
use crate::keys::{Access, Offline};
use crate::output::{Format, line, table};
use process::{Agents, Server};

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Number of devices, spread over three regions.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(3..=200))]
    pub(crate) devices: u32,
    /// Your own files or folders instead of the made-up application: the old one, the new one, and
    /// optionally the one after it.
    #[arg(long, num_args = 2..=3, value_names = ["OLD", "NEW", "NEXT"])]
    pub(crate) payload: Option<Vec<PathBuf>>,
    /// Exit when done; the exit code is 0 only if every device ended where it should.
    #[arg(long)]
    pub(crate) exit: bool,
}

const REGIONS: [&str; 3] = ["NA", "EU", "APAC"];
const PRODUCT: &str = "terminal";
/// Timeout of each part of the demo.
const PATIENCE: Duration = Duration::from_secs(100);

/// Runs the demo. However it ends, its processes are stopped and its folder is removed.
pub(crate) async fn run(args: DemoArgs) -> Result<(), CliError> {
    let folder = tempfile::Builder::new()
        .prefix("tidegate-demo-")
        .tempdir()
        .map_err(|e| CliError::Failed(format!("a temporary folder: {e}")))?;
    let result = tokio::select! {
        result = play(&args, folder.path()) => result,
        () = tidegate_agent::asked_to_stop(false) => {
            let said = line("stopped; everything is cleaned up");
            // With --exit somebody waits for a verdict, and there is none.
            if args.exit { Err(CliError::Interrupted) } else { said }
        }
    };
    // The processes ended with `play`; now remove what they wrote.
    folder
        .close()
        .map_err(|e| CliError::Failed(format!("removing the demo's folder: {e}")))?;
    result
}

async fn play(args: &DemoArgs, dir: &Path) -> Result<(), CliError> {
    let began = Instant::now();
    let say = |text: &str| line(&format!("[{:5.1} s] {text}", began.elapsed().as_secs_f64()));

    let versions = payload::prepare(dir, args.payload.as_deref())?;
    let server = Server::start(&dir.join("server")).await?;
    let token = std::fs::read_to_string(dir.join("server/admin.token"))?;
    let api = Api::new(&server.url, token.trim())?;
    say(&format!("the control plane serves {}", server.url))?;

    let keys = Access {
        dir: dir.join("keys"),
        unlock: Unlock {
            none: true,
            ..Unlock::default()
        },
        holder: None,
    };
    Offline::init(&keys, Profile::Hybrid, &api).await?;
    say("created offline keys; the server has only the public halves")?;
    for (version, tree) in &versions {
        publish(&api, &keys, version, tree).await?;
        say(&format!(
            "{PRODUCT} {version} is signed, published and generally available"
        ))?;
    }

    let agents = enroll(args.devices, &api, &server.url, dir, &versions[0]).await?;
    say(&format!(
        "{} devices joined in {}, each on 1.0.0",
        agents.len(),
        REGIONS.join(", ")
    ))?;

    say("rollout of 1.1.0, NA -> EU -> APAC")?;
    let good = start(&api, "1.1.0", 2, "halt").await?;
    let good = follow(&api, &good.id, Until::Settled).await?;
    if good.state != "completed" {
        return Err(CliError::RolloutFailed(format!(
            "the rollout of 1.1.0 is {}: {}",
            good.state, good.reason.text
        )));
    }
    wait_for(&api, args.devices, "1.1.0").await?;
    say("every device runs 1.1.0")?;

    say("rollout of 1.2.0, whose health check fails on purpose")?;
    let bad = start(&api, "1.2.0", 120, "halt_and_roll_back").await?;
    let bad = follow(&api, &bad.id, Until::Returned).await?;
    wait_for(&api, args.devices, "1.1.0").await?;
    say("every device runs 1.1.0 again")?;

    let sheet = Sheet::collect(&api, &bad, args.devices).await?;
    line("")?;
    line(&sheet.render())?;
    line("")?;
    line(&format!("API: {}/api/v1/openapi.json", server.url))?;
    sheet.check()?;
    if !args.exit {
        line("the fleet keeps running; look around in another terminal, Ctrl-C stops it:")?;
        line(&format!(
            "  tidegate --server {} --token $(cat {}) device list",
            server.url,
            dir.join("server/admin.token").display()
        ))?;
        std::future::pending::<()>().await;
    }
    agents.stop().await;
    server.stop().await;
    Ok(())
}

async fn publish(api: &Api, keys: &Access, version: &str, tree: &Path) -> Result<(), CliError> {
    let failed = |e: &dyn std::fmt::Display| CliError::Failed(e.to_string());
    let product: ProductName = PRODUCT
        .parse()
        .map_err(|e| failed(&e as &tidegate_protocol::NameError))?;
    let release: Version = version
        .parse()
        .map_err(|e| failed(&e as &tidegate_protocol::ParseVersionError))?;
    let platform: Platform = tidegate_agent::host::platform::platform()
        .parse()
        .map_err(|e| failed(&e as &tidegate_protocol::NameError))?;
    let spec = Publication {
        format: tidegate_trust::ImageFacts::TAR,
        carry: PackOptions::default(),
        long_paths: false,
        path: tree.to_owned(),
        product: product.clone(),
        release: release.clone(),
        platform,
        notes: String::new(),
        min_from: None,
        min_agent: None,
        stepping_stone: false,
        allow_rollback: true,
        health: Some(CommandLine {
            command: vec!["health.sh".into()],
            timeout_s: 20,
        }),
    };
    publish_release(api, keys, &spec, |_| Ok(())).await?;
    sign_for(api, keys, &product, &release, Stage::Ga, |_| Ok(())).await?;
    let body = PromoteBody {
        to: Stage::Ga.to_string(),
        reason: Some("the demo skips alpha and beta".into()),
        dry_run: false,
    };
    let path = format!("/api/v1/products/{product}/releases/{release}/promote");
    let _: ReleaseView = api.post(&path, &body).await?;
    Ok(())
}

async fn enroll(
    devices: u32,
    api: &Api,
    url: &str,
    dir: &Path,
    (version, tree): &(&'static str, PathBuf),
) -> Result<Agents, CliError> {
    let body = JoinTokenBody {
        product: PRODUCT.into(),
        region: None,
        channel: Some("stable".into()),
        labels: BTreeMap::new(),
        uses: Some(devices),
        valid_s: Some(3_600),
        approve: false,
        keys: BTreeSet::new(),
    };
    let token: JoinTokenView = api.post("/api/v1/join-tokens", &body).await?;
    let mut agents = Agents::new(&dir.join("devices"))?;
    for number in 0..devices {
        let region = REGIONS[number as usize % REGIONS.len()];
        let name = format!(
            "{}-{:02}",
            region.to_lowercase(),
            number as usize / REGIONS.len() + 1
        );
        agents.add(&name, region);
    }
    agents
        .enroll(url, &token.token, PRODUCT, tree, version)
        .await?;
    agents.run()?;
    Ok(agents)
}

async fn start(
    api: &Api,
    release: &str,
    rollback_window_s: u32,
    on_breach: &str,
) -> Result<RolloutView, CliError> {
    let body = RolloutBody {
        product: PRODUCT.into(),
        release: release.into(),
        waves: REGIONS
            .iter()
            .map(|region| WaveBody {
                name: (*region).into(),
                selector: format!("region={region}"),
                size: "all".into(),
            })
            .collect(),
        preset: None,
        regions: Vec::new(),
        batch: None,
        policy: PolicyBody {
            soak_s: Some(1),
            on_breach: Some(on_breach.into()),
            pace_start: Some(4),
            ..PolicyBody::default()
        },
        rest: tidegate_api::NothingElse,
        rollback_window_s: Some(rollback_window_s),
        max_attempts: None,
        timeout_s: None,
        dry_run: false,
    };
    let draft: RolloutView = api.create("/api/v1/rollouts", &body).await?;
    api.post(
        &format!("/api/v1/rollouts/{}/start", draft.id),
        &OrderBody::default(),
    )
    .await
}

async fn follow(api: &Api, id: &str, until: Until) -> Result<RolloutView, CliError> {
    watch::follow(api, id, Format::Table, until, Some(PATIENCE)).await
}

/// Waits until every device reports that it runs a release and has nothing under way.
async fn wait_for(api: &Api, devices: u32, release: &str) -> Result<(), CliError> {
    let began = Instant::now();
    loop {
        let list: Vec<DeviceView> = api.all("/api/v1/devices").await?;
        let there = |d: &&DeviceView| d.release.as_deref() == Some(release) && d.state.is_none();
        let count = list.iter().filter(there).count();
        if count == devices as usize {
            return Ok(());
        }
        if began.elapsed() > PATIENCE {
            return Err(CliError::Timeout(format!(
                "only {count} of {devices} devices run {release}"
            )));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Results of the bad rollout.
struct Sheet {
    devices: u32,
    exposed: usize,
    returned: usize,
    never_saw_it: usize,
    outside_first_wave: usize,
    bytes_after_halt: u64,
    failure_to_halt: Duration,
    halt_to_last_back: Duration,
}

impl Sheet {
    async fn collect(api: &Api, bad: &RolloutView, devices: u32) -> Result<Self, CliError> {
        let path = format!("/api/v1/rollouts/{}", bad.id);
        let deployments: Vec<DeploymentView> = api.all(&format!("{path}/deployments")).await?;
        let events: Vec<EventView> = api.all(&format!("{path}/events")).await?;
        let at = |e: &EventView| e.at.parse::<jiff::Timestamp>().ok();
        let moved_to = |e: &EventView, states: &[&str]| {
            let state = match e.kind.as_str() {
                "deployment_reported" => e.body.get("state"),
                "deployment_moved" => e.body.get("to"),
                _ => None,
            };
            state
                .and_then(|s| s.as_str())
                .is_some_and(|s| states.contains(&s))
        };
        let first_failure = events
            .iter()
            .find(|e| moved_to(e, &["rolling_back", "failed"]))
            .and_then(at);
        let halt = events
            .iter()
            .find(|e| e.kind == "gate_decided")
            .and_then(at);
        let last_back = events
            .iter()
            .filter(|e| moved_to(e, &["rolled_back", "cancelled"]))
            .filter_map(at)
            .max();
        let between = |from: Option<jiff::Timestamp>, to: Option<jiff::Timestamp>| match (from, to)
        {
            (Some(from), Some(to)) => {
                Duration::try_from(to.duration_since(from)).unwrap_or_default()
            }
            _ => Duration::ZERO,
        };
        // A device counts bytes over the whole deployment: unless the way back took a download, it
        // has
        // fetched as much when it is back as when it switched.
        let mut fetched: BTreeMap<&str, u64> = BTreeMap::new();
        for d in &deployments {
            fetched.insert(&d.device, d.bytes_downloaded);
        }
        let list: Vec<DeviceView> = api.all("/api/v1/devices").await?;
        let refetched = list
            .iter()
            .filter(|d| {
                fetched.contains_key(d.id.as_str()) && d.release.as_deref() != Some("1.1.0")
            })
            .count();
        let back = |d: &&DeploymentView| matches!(d.state.as_str(), "rolled_back" | "cancelled");
        Ok(Self {
            devices,
            exposed: deployments.len(),
            returned: deployments.iter().filter(back).count(),
            never_saw_it: devices as usize - deployments.len(),
            outside_first_wave: deployments.iter().filter(|d| d.wave != 0).count(),
            bytes_after_halt: refetched as u64,
            failure_to_halt: between(first_failure, halt),
            halt_to_last_back: between(halt, last_back),
        })
    }

    fn render(&self) -> String {
        let seconds = |d: Duration| format!("{:.2} s", d.as_secs_f64());
        let rows = vec![
            ["devices".to_owned(), self.devices.to_string()],
            ["exposed to 1.2.0".into(), self.exposed.to_string()],
            [
                "returned to 1.1.0 from the kept slot".into(),
                self.returned.to_string(),
            ],
            ["never saw it".into(), self.never_saw_it.to_string()],
            [
                "exposed outside the first wave".into(),
                self.outside_first_wave.to_string(),
            ],
            [
                "first failure to halt".into(),
                seconds(self.failure_to_halt),
            ],
            [
                "halt to last device back".into(),
                seconds(self.halt_to_last_back),
            ],
        ];
        table(["WHAT HAPPENED TO 1.2.0", ""], rows)
    }

    fn check(&self) -> Result<(), CliError> {
        let good = self.exposed > 0
            && self.returned == self.exposed
            && self.outside_first_wave == 0
            && self.bytes_after_halt == 0;
        if good {
            return Ok(());
        }
        Err(CliError::RolloutFailed(
            "not every device ended where it should".into(),
        ))
    }
}
