//! Secrets shared by all replicas: the online signing keys, in generations, and the key of session
//! tickets.
//!
//! A new generation of online keys is created when the server may have been compromised. It signs
//! once people have put its public keys into root and targets; until then the generation named
//! there stays in use.

use std::collections::BTreeMap;

use tidegate_protocol::Timestamp;
use tidegate_store::{StoreError, Tx, operators};
use tidegate_trust::{DIRECTOR, PublicKey, Repository, RoleKey, SecretKey};

use crate::memory::tickets::TicketKey;
use crate::{CoreError, random};

/// One generation of the server's own keys.
#[derive(Debug, Clone)]
pub struct OnlineKeys {
    /// Signs `snapshot`.
    pub snapshot: SecretKey,
    /// Signs `timestamp`.
    pub timestamp: SecretKey,
    /// Signs assignments.
    pub director: SecretKey,
}

const ROLES: [&str; 3] = ["snapshot", "timestamp", DIRECTOR];
/// Name of the secret with the key of tickets.
pub(crate) const TICKETS: &str = "ticket-key";

impl OnlineKeys {
    /// Public keys, by role.
    pub fn public(&self) -> BTreeMap<&'static str, PublicKey> {
        ROLES
            .into_iter()
            .map(|role| (role, self.key(role).public()))
            .collect()
    }

    fn key(&self, role: &str) -> &SecretKey {
        match role {
            "snapshot" => &self.snapshot,
            "timestamp" => &self.timestamp,
            _ => &self.director,
        }
    }
}

/// All secrets of the server.
#[derive(Debug, Clone)]
pub struct Secrets {
    /// Oldest first; never empty.
    generations: Vec<OnlineKeys>,
    /// Key of tickets and nonces.
    pub tickets: TicketKey,
}

fn key_name(role: &str, generation: usize) -> String {
    if generation == 0 {
        format!("online-key-{role}")
    } else {
        format!("online-key-{role}.{generation}")
    }
}

impl Secrets {
    /// Creates missing secrets within a transaction. Replicas that start together end up with the
    /// same ones.
    pub async fn ensure_in(tx: &mut Tx, now: Timestamp) -> Result<Self, CoreError> {
        make_generation(tx, 0, now).await?;
        let fresh = TicketKey::fresh_hex();
        operators::secret_or_insert(tx, TICKETS, &fresh, now).await?;
        Ok(Self::load(tx).await?)
    }

    /// Loads all secrets.
    pub async fn load(tx: &mut Tx) -> Result<Self, StoreError> {
        let stored: BTreeMap<String, String> = operators::secrets(tx).await?.into_iter().collect();
        let damaged = |name: &str| StoreError::BadRow {
            column: "value",
            what: format!("the secret {name} is missing or damaged"),
        };
        let key = |name: String| {
            let pem = stored.get(&name).ok_or_else(|| damaged(&name))?;
            SecretKey::from_pem(pem).map_err(|_| damaged(&name))
        };
        let mut generations = Vec::new();
        while stored.contains_key(&key_name(DIRECTOR, generations.len())) || generations.is_empty()
        {
            let generation = generations.len();
            generations.push(OnlineKeys {
                snapshot: key(key_name("snapshot", generation))?,
                timestamp: key(key_name("timestamp", generation))?,
                director: key(key_name(DIRECTOR, generation))?,
            });
        }
        let tickets = stored
            .get(TICKETS)
            .and_then(|hex| TicketKey::from_hex(hex))
            .ok_or_else(|| damaged(TICKETS))?;
        Ok(Self {
            generations,
            tickets,
        })
    }

    /// Number of generations.
    pub(crate) fn generations(&self) -> usize {
        self.generations.len()
    }

    /// Newest generation, which people are to name next in root and targets.
    pub fn newest(&self) -> &OnlineKeys {
        // Never empty: `load` ensures it.
        &self.generations[self.generations.len() - 1]
    }

    /// Selects for each role the newest key that root and targets name; the newest of all if they
    /// name none.
    pub fn active(&self, repository: &Repository) -> OnlineKeys {
        let choose = |role: &str| {
            let named: Vec<RoleKey> = repository
                .quorum(role)
                .map(|quorum| quorum.keys().cloned().collect())
                .unwrap_or_default();
            self.generations
                .iter()
                .rev()
                .map(|generation| generation.key(role))
                .find(|key| named.contains(&key.public().into()))
                .unwrap_or_else(|| self.newest().key(role))
                .clone()
        };
        OnlineKeys {
            snapshot: choose("snapshot"),
            timestamp: choose("timestamp"),
            director: choose(DIRECTOR),
        }
    }
}

/// Creates the keys of a generation, unless another replica was faster.
pub(crate) async fn make_generation(
    tx: &mut Tx,
    generation: usize,
    now: Timestamp,
) -> Result<(), CoreError> {
    for role in ROLES {
        let fresh = SecretKey::from_seed(random::bytes())
            .to_pem()
            .map_err(|e| CoreError::invalid(format!("making the {role} key: {e}")))?;
        operators::secret_or_insert(tx, &key_name(role, generation), &fresh, now).await?;
    }
    Ok(())
}
