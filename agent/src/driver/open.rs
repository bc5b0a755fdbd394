//! Opening of a state directory.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tidegate_apply::Program;
use tidegate_machine::fsm::Phase;
use tidegate_protocol::Battery;
use tidegate_trust::SecretKey;

use super::core::Core;
use super::cut_off::CutOff;
use super::hold::Hold;
use super::own::Together;
use super::{Driver, DriverError, SIGN_OF_LIFE, abilities};
use crate::fs;
use crate::install;
use crate::log;
use crate::net::client::Client;
use crate::net::tls::TlsClock;
use crate::people::config::{self, Config};
use crate::people::control::Control;
use crate::people::identity;
use crate::trust::TrustStore;

impl Driver {
    /// Opens a state directory. During a trial, probation or rollback, changed settings and
    /// whatever only the server needs may be broken: a rollback needs none of it, and a version
    /// that breaks it must still be left.
    pub fn open(state: &Path, together: Arc<Together>) -> Result<Self, DriverError> {
        let (config, mut broken) = match Config::load(state) {
            Ok(config) => (config, None),
            Err(error) => match Config::as_enrolled(state) {
                Ok(config) => (config, Some(DriverError::from(error))),
                Err(_) => return Err(error.into()),
            },
        };
        let lock = config::lock(state)?;
        // Before anything else: two installations at once would write into one slot.
        #[cfg(target_os = "linux")]
        crate::host::orphans::end(state);
        let fs = fs::system();
        let backend = install::open(fs.clone(), state, &config.backend)?;
        let mut core = Core::open(fs.clone(), state, backend)?;
        let decoder = config.decoder.clone();
        core.decoder = Some(decoder.map_or_else(Program::this, Program::at));
        core.download.limits.raw_only = !config.decode;
        let clock = TlsClock {
            floor: core.journal.record().time_floor,
            trusted: config.clock_trusted,
        };
        let mut without = |error: DriverError| {
            broken.get_or_insert(error);
        };
        // Without a root nothing can be trusted: say so now, not at the first order.
        let trust = TrustStore::open(fs.clone(), state)?;
        let _ = trust.load().map_err(|e| without(e.into()));
        identity::close_keys(&*fs, state);
        let key = identity::identity(state).unwrap_or_else(|error| {
            without(error.into());
            SecretKey::from_seed(rand::random())
        });
        let client = Client::new(
            &config.server,
            config.ca_file.as_deref(),
            config.plain_http,
            clock,
        )
        .map_err(|e| without(e.into()))
        .ok();
        let client = match (broken, &core.journal.record().phase) {
            (None, _) => client,
            (
                Some(error),
                Phase::Trial { .. } | Phase::Probation { .. } | Phase::Returning { .. },
            ) => {
                let why = log::chain(&error);
                log::line(&format!(
                    "{why}; a rollback is still possible. Mend it and start the agent again"
                ));
                Some(Client::unfit(why))
            }
            (Some(error), _) => return Err(error),
        };
        let client = client.unwrap_or_else(|| Client::unfit("no server is configured".into()));
        let abilities = abilities::known(state, config.decode);
        Ok(Self {
            key,
            core,
            trust,
            client,
            state: state.to_owned(),
            fs,
            config,
            counted: Instant::now(),
            switch_by: None,
            healthy: None,
            stopped: None,
            kept_out: None,
            abilities,
            named: Vec::new(),
            mirrors: Vec::new(),
            battery: Battery::default(),
            metered: (false, None),
            refused: None,
            restores: None,
            left: crate::install::look_left(state),
            staged: None,
            repeated: None,
            old_server: false,
            turn: 0,
            spoken: false,
            hold: Hold::default(),
            poll: SIGN_OF_LIFE,
            asked_s: 0,
            bundle: None,
            cut_off: CutOff::default(),
            control: Arc::new(Control::open(fs::system(), state)),
            together,
            _lock: lock,
        })
    }
}
