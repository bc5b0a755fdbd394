//! Settings of a product.

use tidegate_api::SettingsBody;
use tidegate_delta::Limits;
use tidegate_domain::event::Event;
use tidegate_domain::version_gate::Tls;
use tidegate_protocol::ProductName;
use tidegate_store::products::{self, ProductSettings};
use tidegate_store::to_json;

use crate::CoreError;
use crate::app::App;
use crate::memory::access::Operator;

/// Checks the settings that a person sends.
fn checked(body: &SettingsBody) -> Result<ProductSettings, CoreError> {
    let tls: Option<Tls> = parsed(body.min_tls.as_deref())?;
    if body.capabilities.len() > 32 || body.capabilities.iter().any(|c| !is_capability(c)) {
        let text = "capabilities: at most 32 names of 1 to 60 letters, digits, '-', '_' and '.'";
        return Err(CoreError::invalid(text));
    }
    let url = body.upgrade_url.trim();
    let web = ["https://", "http://"]
        .iter()
        .any(|scheme| url.starts_with(scheme));
    if !url.is_empty() && (!web || url.chars().any(|c| c.is_control() || c.is_whitespace())) {
        let text = "upgrade_url: must start with https:// or http://";
        return Err(CoreError::invalid(text));
    }
    if body.approvals > 10 {
        return Err(CoreError::invalid("approvals: 0 to 10"));
    }
    for (name, kib, most) in [
        (
            "delta_chunk_kib",
            body.delta_chunk_kib,
            Limits::DELTA_CHUNK >> 10,
        ),
        (
            "full_chunk_kib",
            body.full_chunk_kib,
            Limits::FULL_CHUNK >> 10,
        ),
    ] {
        if kib.is_some_and(|kib| !(LEAST_CHUNK_KIB..=most).contains(&kib)) {
            let text = format!("{name}: {LEAST_CHUNK_KIB} to {most}");
            return Err(CoreError::invalid(text));
        }
    }
    Ok(ProductSettings {
        min_version: parsed(body.min_version.as_deref())?,
        min_tls: tls.map(|t| t.to_string()),
        capabilities: body.capabilities.iter().cloned().collect(),
        upgrade_url: body.upgrade_url.trim().chars().take(500).collect(),
        approvals: body.approvals,
        delta_chunk_kib: body.delta_chunk_kib,
        full_chunk_kib: body.full_chunk_kib,
    })
}

/// Parses a value that may be absent or empty.
fn parsed<T>(text: Option<&str>) -> Result<Option<T>, CoreError>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    text.filter(|t| !t.is_empty())
        .map(|t| t.parse().map_err(CoreError::invalid))
        .transpose()
}

/// Minimum chunk size, in KiB: each chunk costs a request and 90 bytes of manifest.
const LEAST_CHUNK_KIB: u32 = 64;

fn is_capability(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    (1..=60).contains(&name.len()) && name.bytes().all(plain)
}

impl App {
    /// Replaces the settings of a product.
    pub async fn set_settings(
        &self,
        by: &Operator,
        product: &ProductName,
        body: &SettingsBody,
    ) -> Result<ProductSettings, CoreError> {
        let settings = checked(body)?;
        self.change(&by.actor, async |tx| {
            if !products::set_settings(tx, product, &settings).await? {
                return Err(CoreError::not_found(format!("product {product}")));
            }
            let event = Event::SettingsChanged {
                product: product.clone(),
                settings: to_json("settings", &settings)?,
            };
            Ok((settings, vec![event]))
        })
        .await
    }
}
