//! Metrics for Prometheus.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Label that names a signed file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RoleLabel {
    /// Its role.
    pub role: String,
}

/// The counters of one server.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Check-ins answered.
    pub check_ins: Counter,
    /// Reports accepted.
    pub reports: Counter,
    /// Bytes that built payloads save over their images.
    pub payload_bytes_saved: Counter,
    /// Bytes that devices fetched for releases that they switched to.
    pub fetched_bytes: Counter,
    /// Bytes of those releases that devices did not have to fetch.
    pub saved_bytes: Counter,
    /// 1 while this replica leads.
    pub leading: Gauge,
    /// Devices known.
    pub devices: Gauge,
    /// Statements run.
    pub statements: Gauge,
    /// Devices isolated because their identity was used twice.
    pub clones: Counter,
    /// Number of times a device began to refuse the server's answers.
    pub refusals: Counter,
    /// Events of devices that were counted and not kept.
    pub events_withheld: Counter,
    /// Uses of tokens for emergencies.
    pub break_glass: Counter,
    /// Seconds until no administrator's token is valid any more.
    pub administered_for_s: Gauge,
    /// Seconds until each of the signed files expires; negative when it has.
    pub metadata_expires_s: Family<RoleLabel, Gauge>,
    /// 1 while writes of the database succeed.
    pub writable: Gauge,
    /// Bytes that the ballast beside a SQLite database lacks.
    pub ballast_missing: Gauge,
    /// Free bytes on the disk of a SQLite database.
    pub database_free: Gauge,
    /// Requests answered with a status of 500 or above.
    pub failures: Counter,
    /// Requests answered.
    pub requests: Counter,
}

impl Metrics {
    /// Renders all metrics in the OpenMetrics text format.
    pub fn render(&self) -> String {
        let mut registry = Registry::with_prefix("tidegate");
        registry.register("check_ins", "Check-ins answered", self.check_ins.clone());
        registry.register("reports", "Device reports taken", self.reports.clone());
        registry.register(
            "payload_saved_bytes",
            "Bytes that built payloads save over their images",
            self.payload_bytes_saved.clone(),
        );
        registry.register(
            "fetched_bytes",
            "Bytes that devices fetched for releases that they switched to",
            self.fetched_bytes.clone(),
        );
        registry.register(
            "saved_bytes",
            "Bytes of those releases that devices did not have to fetch",
            self.saved_bytes.clone(),
        );
        registry.register(
            "leading",
            "1 while this replica leads",
            self.leading.clone(),
        );
        registry.register(
            "devices",
            "Devices known to this replica",
            self.devices.clone(),
        );
        registry.register("statements", "SQL statements run", self.statements.clone());
        registry.register(
            "device_clones",
            "Devices isolated because their identity was used twice",
            self.clones.clone(),
        );
        registry.register(
            "device_refusals",
            "Times that a device began to refuse what it was told",
            self.refusals.clone(),
        );
        registry.register(
            "device_events_withheld",
            "Events of devices that were counted and not kept",
            self.events_withheld.clone(),
        );
        registry.register(
            "break_glass_uses",
            "Uses of tokens for emergencies",
            self.break_glass.clone(),
        );
        registry.register(
            "administrator_expires_seconds",
            "Seconds until no administrator's token is valid any more",
            self.administered_for_s.clone(),
        );
        registry.register(
            "metadata_expires_seconds",
            "Seconds until the newest signed file of a role expires; negative when it has",
            self.metadata_expires_s.clone(),
        );
        registry.register(
            "database_writable",
            "1 while writes of the database succeed",
            self.writable.clone(),
        );
        registry.register(
            "database_ballast_missing_bytes",
            "Bytes that the ballast beside a SQLite database lacks: its disk is full, or was",
            self.ballast_missing.clone(),
        );
        registry.register(
            "database_free_bytes",
            "Free bytes on the disk of a SQLite database",
            self.database_free.clone(),
        );
        registry.register(
            "failures",
            "Requests answered with 5xx",
            self.failures.clone(),
        );
        registry.register("requests", "Requests answered", self.requests.clone());
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = encode(&mut text, &registry);
        text
    }
}
