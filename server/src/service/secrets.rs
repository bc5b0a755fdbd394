//! The secrets that all replicas share: the online signing keys, in generations, and the key of
//! session tickets.
//!
//! A new generation of online keys is made when the server may have been stolen. It signs from the
//! moment at which people have put its public halves into root and targets; until then the one
//! that they name goes on.

use std::collections::BTreeMap;

use tidegate_domain::event::Event;
use tidegate_protocol::Timestamp;
use tidegate_trust::{DIRECTOR, PublicKey, Repository, RoleKey, SecretKey};

use super::ServiceError;
use super::access::Operator;
use super::session::TicketKey;
use crate::app::App;
use crate::random;
use crate::store::{StoreError, Tx, operators};

/// The server's own keys of one generation.
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
const TICKETS: &str = "ticket-key";

impl OnlineKeys {
    /// Their public halves, by role.
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

/// All of them.
#[derive(Debug, Clone)]
pub struct Secrets {
    /// Oldest first; there is one at least.
    generations: Vec<OnlineKeys>,
    /// The key of tickets and nonces.
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
    /// Makes what is not there yet, within a transaction. Replicas that start together agree.
    pub async fn ensure_in(tx: &mut Tx, now: Timestamp) -> Result<Self, ServiceError> {
        make_generation(tx, 0, now).await?;
        let fresh = TicketKey::fresh_hex();
        operators::secret_or_insert(tx, TICKETS, &fresh, now).await?;
        Ok(Self::load(tx).await?)
    }

    /// Reads them.
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

    /// The newest generation: what people are to name next.
    pub fn newest(&self) -> &OnlineKeys {
        // There is one at least: `load` sees to it.
        &self.generations[self.generations.len() - 1]
    }

    /// For each role the newest key that root and targets name; the newest where they name none.
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

async fn make_generation(
    tx: &mut Tx,
    generation: usize,
    now: Timestamp,
) -> Result<(), ServiceError> {
    for role in ROLES {
        let fresh = SecretKey::from_seed(random::bytes())
            .to_pem()
            .map_err(|e| ServiceError::invalid(format!("making the {role} key: {e}")))?;
        operators::secret_or_insert(tx, &key_name(role, generation), &fresh, now).await?;
    }
    Ok(())
}

impl App {
    /// Makes a new generation of online keys and a new ticket key: whoever copied the old ones
    /// loses the tickets at once, and the signatures when people have named the new keys.
    pub async fn rotate_online(&self, by: &Operator, reason: &str) -> Result<(), ServiceError> {
        let now = self.now();
        self.change(&by.actor, async |tx| {
            crate::store::trust::lock(tx).await?;
            let secrets = Secrets::load(tx).await?;
            make_generation(tx, secrets.generations.len(), now).await?;
            operators::put_secret(tx, TICKETS, &TicketKey::fresh_hex(), now).await?;
            let reason = reason.to_owned();
            Ok(((), vec![Event::OnlineKeysMade { reason }]))
        })
        .await
    }
}
