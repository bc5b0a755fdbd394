//! `release publish`: packs, uploads and signs.

use std::io::Seek as _;
use std::path::{Path, PathBuf};

use futures::TryStreamExt as _;
use serde::{Deserialize, Serialize};
use tidegate_api::{
    ArtifactBody, ArtifactView, BlobView, ProductBody, ProductView, ReleaseBody, ReleaseView,
};
use tidegate_delta::archive::PackOptions;
use tidegate_protocol::{Channel, Image, Platform, ProductName, Stage, Version};
use tidegate_trust::{CommandLine, ImageFacts, ImagePath, RoleName};

use super::{ArtifactFormat, PublishArgs};
use crate::api::Api;
use crate::commands::Context;
use crate::commands::names::check_names;
use crate::commands::pack::pack_artifact;
use crate::commands::signing::ask;
use crate::error::{CliError, parse};
use crate::keys::{Access, Offline, Outcome};
use crate::output::{bytes, bytes_bar, complain, line, show, start};

pub(super) async fn publish(
    context: &Context,
    api: &Api,
    args: PublishArgs,
) -> Result<(), CliError> {
    let spec = Publication {
        path: args.path,
        product: parse(&args.product)?,
        release: parse(&args.release)?,
        platform: match &args.platform {
            Some(platform) => parse(platform)?,
            None => parse(&tidegate_agent::host::platform::platform())?,
        },
        notes: args.notes,
        format: match args.format {
            ArtifactFormat::Tar => ImageFacts::TAR,
            ArtifactFormat::Raw => ImageFacts::RAW,
        },
        carry: PackOptions {
            public: args.carry.allow_public,
            drop_attributes: args.carry.drop_attributes,
            owner: None,
        },
        long_paths: args.carry.allow_long_paths,
        min_from: args.min_from.as_deref().map(parse).transpose()?,
        min_agent: args.min_agent.as_deref().map(parse).transpose()?,
        stepping_stone: args.stepping_stone,
        allow_rollback: !args.no_rollback,
        health: args.health_cmd.as_ref().map(|command| CommandLine {
            command: command.split_whitespace().map(str::to_owned).collect(),
            timeout_s: u32::try_from(args.health_timeout.as_secs()).unwrap_or(u32::MAX),
        }),
    };
    let agree = |text: &str| ask(text, args.yes);
    let published = publish_release(api, &args.dir.access(), &spec, agree).await?;
    if let Outcome::Waiting { .. } = published.signatures {
        line(&format!(
            "{}\n  next, by another holder: tidegate release sign {}",
            published
                .signatures
                .describe(&format!("{}-alpha", spec.product)),
            spec.product
        ))?;
    }
    let view = PublishedView {
        artifact: published.artifact,
        warnings: published.warnings,
    };
    show(
        context.format,
        &view,
        |PublishedView { artifact: a, .. }| {
            let (product, release) = (&spec.product, &spec.release);
            format!(
                "{product} {release} for {} is published: {}, sha256 {}\n  next: tidegate release promote {product} {release} --to alpha",
                a.platform,
                bytes(a.length),
                start(&a.sha256),
            )
        },
    )
}

/// A published artifact, as shown.
#[derive(Debug, Deserialize, Serialize)]
struct PublishedView {
    #[serde(flatten)]
    artifact: ArtifactView,
    /// Changes that packing has made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// A release for one platform, to be published.
pub(crate) struct Publication {
    pub(crate) path: PathBuf,
    pub(crate) product: ProductName,
    pub(crate) release: Version,
    pub(crate) platform: Platform,
    pub(crate) notes: String,
    pub(crate) min_from: Option<Version>,
    pub(crate) min_agent: Option<Version>,
    pub(crate) stepping_stone: bool,
    pub(crate) allow_rollback: bool,
    pub(crate) health: Option<CommandLine>,
    /// [`ImageFacts::TAR`] or [`ImageFacts::RAW`].
    pub(crate) format: &'static str,
    /// Losses that packing may make.
    pub(crate) carry: PackOptions,
    /// Whether the software can open long paths on Windows.
    pub(crate) long_paths: bool,
}

/// A release that was published.
pub(crate) struct Published {
    pub(crate) artifact: ArtifactView,
    pub(crate) signatures: Outcome,
    /// Changes that packing has made, a sentence each; shown before it was signed.
    pub(crate) warnings: Vec<String>,
}

/// Packs, signs once `agree` has agreed to what would be in force then, uploads. Idempotent: it may be
/// run again whichever step it was interrupted at.
pub(crate) async fn publish_release(
    api: &Api,
    access: &Access,
    spec: &Publication,
    agree: impl Fn(&str) -> Result<(), CliError>,
) -> Result<Published, CliError> {
    let Publication {
        product,
        release,
        platform,
        ..
    } = spec;
    let mut offline = Offline::open(access)?;
    offline.pull(api).await?;
    let (path, format, carry) = (spec.path.clone(), spec.format, spec.carry);
    let (devices, long_paths) = (platform.clone(), spec.long_paths);
    let packing = tokio::task::spawn_blocking(move || {
        // A raw artifact has no names.
        if format == ImageFacts::TAR {
            check_names(&path, &devices, long_paths)?;
        }
        pack_artifact(&path, format, carry)
    });
    let (file, image, losses) = packing
        .await
        .map_err(|e| CliError::failed("packing", &e))??;
    let warnings = losses.sentences();
    let told = told(&spec.path, &warnings);
    // Signed before it is uploaded: what the server gets is what was hashed here.
    let mut changed = offline.add_product(product)?;
    let role = RoleName::new(product.clone(), Channel::Alpha);
    let listed = ImagePath {
        role: role.clone(),
        release: release.clone(),
        platform: platform.clone(),
    };
    let facts = ImageFacts {
        image,
        release: release.clone(),
        hw: vec![platform.clone()],
        format: spec.format.into(),
        min_from: spec.min_from.clone(),
        min_agent: spec.min_agent.clone(),
        stepping_stone: spec.stepping_stone,
        allow_rollback: spec.allow_rollback,
        health: spec.health.clone(),
    };
    let shown = offline.preview(&role, |next| {
        next.images.insert(listed.clone(), facts.clone());
    })?;
    match shown {
        Some(text) => agree(&format!("{told}{text}"))?,
        // Signed before, and shown then.
        None if !told.is_empty() => complain(told.trim_end()),
        None => {}
    }
    let signatures = offline
        .list_image(&listed, &facts)?
        .unwrap_or(Outcome::Complete);
    // Pushed even if it was listed before: that may not have reached the server.
    if !changed.contains(&role.to_string()) {
        changed.push(role.to_string());
    }
    let _: ProductView = api
        .post(
            "/api/v1/products",
            &ProductBody {
                name: product.to_string(),
            },
        )
        .await?;
    let releases = format!("/api/v1/products/{product}/releases");
    let body = ReleaseBody {
        version: release.to_string(),
        notes: spec.notes.clone(),
    };
    let _: ReleaseView = api.post(&releases, &body).await?;
    upload(api, file, image).await?;
    offline.push(api, &changed).await?;
    let body = ArtifactBody {
        platform: platform.to_string(),
        sha256: image.sha256.to_string(),
    };
    let artifact = api
        .post(&format!("{releases}/{release}/artifacts"), &body)
        .await?;
    Ok(Published {
        artifact,
        signatures,
        warnings,
    })
}

/// Tells what packing has changed, a line each.
fn told(path: &Path, warnings: &[String]) -> String {
    if warnings.is_empty() {
        return String::new();
    }
    let lines = warnings.join("\n  ");
    format!("{} is not published as it is:\n  {lines}\n", path.display())
}

async fn upload(api: &Api, mut file: std::fs::File, image: Image) -> Result<(), CliError> {
    file.rewind()?;
    let bar = bytes_bar(image.length, "uploading");
    let progress = bar.clone();
    let stream =
        tokio_util::io::ReaderStream::with_capacity(tokio::fs::File::from_std(file), 1 << 20)
            .inspect_ok(move |piece| progress.inc(piece.len() as u64));
    let path = format!("/api/v1/blobs/{}", image.sha256);
    let _: BlobView = api
        .upload(&path, image.length, reqwest::Body::wrap_stream(stream))
        .await?;
    bar.finish_and_clear();
    Ok(())
}

/// Signs a release for every channel that takes stage `to`, once `ask` has agreed to what would be
/// in force then. Returns a line for each channel that
/// still waits for other people.
pub(crate) async fn sign_for(
    api: &Api,
    access: &Access,
    product: &ProductName,
    release: &Version,
    to: Stage,
    ask: impl Fn(&str) -> Result<(), CliError>,
) -> Result<Vec<String>, CliError> {
    let mut waiting = Vec::new();
    if to.channels().is_empty() {
        return Ok(waiting);
    }
    let mut offline = Offline::open(access)?;
    offline.pull(api).await?;
    offline.pull_drafts(api).await?;
    // Signs what the publisher signed, never what the server says.
    let images = offline.images(&RoleName::new(product.clone(), Channel::Alpha), release);
    if images.is_empty() {
        return Err(CliError::Hinted(
            format!("{product} {release} is not signed in {product}-alpha"),
            "publish it first: tidegate release publish".into(),
        ));
    }
    let of = |role: &RoleName, path: &ImagePath| ImagePath {
        role: role.clone(),
        ..path.clone()
    };
    let mut shown = Vec::new();
    for channel in to.channels() {
        let role = RoleName::new(product.clone(), *channel);
        shown.extend(offline.preview(&role, |next| {
            for (path, facts) in &images {
                next.images.insert(of(&role, path), facts.clone());
            }
        })?);
    }
    if !shown.is_empty() {
        ask(&shown.join("\n"))?;
    }
    let mut changed = Vec::new();
    for channel in to.channels() {
        let role = RoleName::new(product.clone(), *channel);
        for (path, facts) in &images {
            offline.list_image(&of(&role, path), facts)?;
        }
        if let outcome @ Outcome::Waiting { .. } = offline.standing(&role.to_string())? {
            waiting.push(outcome.describe(&role.to_string()));
        }
        changed.push(role.to_string());
    }
    // Includes what was signed before: that may not have reached the server.
    offline.push(api, &changed).await?;
    Ok(waiting)
}
