//! Connections of the server, and which of them gives way when there is no room for another.
//!
//! A connection that has shown a valid ticket or token is *proven*: it stays. One that has not is
//! let in, as everybody is at first, and bounded: in number, by address, and by how long it lets
//! the server wait. So sockets that are opened and left cost their owner more than the server, and
//! a person who halts a rollout always finds a place.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

mod connection;
mod limits;

pub use connection::{Connection, Phase, Waits, Who};
pub use limits::{Limits, Network};

/// Number of the oldest connections that are looked at for one to close: a bound on the work of
/// accepting another.
const LOOKED_AT: usize = 64;

/// The connections of one listener.
#[derive(Debug)]
pub struct Connections {
    limits: Limits,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    all: usize,
    /// Those that have shown nothing yet, oldest first.
    unproven: BTreeMap<u64, Arc<Connection>>,
    by_address: HashMap<Network, BTreeSet<u64>>,
    /// The same addresses, by how many each has.
    by_weight: BTreeSet<(usize, Network)>,
}

/// A place among the connections; dropping it gives the place back.
#[derive(Debug)]
pub struct Admitted {
    connection: Arc<Connection>,
}

impl Connections {
    /// Makes an empty set with these limits.
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            inner: Mutex::default(),
        })
    }

    /// Lets a connection in; closes another one for it where a limit is reached. `None` if all that
    /// could give way are being answered: the new one is closed.
    pub fn admit(self: &Arc<Self>, peer: IpAddr) -> Option<Admitted> {
        let network = self.limits.network(peer);
        let mut inner = self.inner();
        if let Some(network) = network {
            let mine = inner.by_address.get(&network).map_or(0, BTreeSet::len);
            if mine >= self.limits.per_address && !inner.close_one_of(network) {
                return None;
            }
        }
        if (inner.unproven.len() >= self.limits.unproven || inner.all >= self.limits.all)
            && !inner.make_room()
            && inner.all >= self.limits.all.saturating_add(self.limits.people)
        {
            return None;
        }
        let id = inner.next;
        inner.next += 1;
        inner.all += 1;
        let connection = Arc::new(Connection::new(
            id,
            peer,
            network,
            inner.all > self.limits.all,
            self,
        ));
        inner.remember(&connection);
        Some(Admitted { connection })
    }

    /// Closes a connection that has shown nothing, for example because descriptors have run out.
    /// Returns whether there was one.
    pub fn make_room(&self) -> bool {
        self.inner().make_room()
    }

    /// Number of connections, and of those that have shown nothing yet.
    pub fn count(&self) -> (usize, usize) {
        let inner = self.inner();
        (inner.all, inner.unproven.len())
    }

    /// Limits of this set.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a connection from those that give way.
    fn set_proven(&self, connection: &Connection) {
        self.inner().forget(connection);
    }
}

impl Inner {
    /// Makes room among all: by a connection of the address that has the most of them, so that an
    /// address with a few keeps them whatever the others do; or else by the oldest.
    fn make_room(&mut self) -> bool {
        let heaviest = self.by_weight.last().map(|(_, network)| *network);
        heaviest.is_some_and(|network| self.close_one_of(network)) || self.close_oldest()
    }

    fn close_one_of(&mut self, network: Network) -> bool {
        let ids = self.by_address.get(&network).into_iter().flatten();
        let candidates = ids.filter_map(|id| self.unproven.get(id));
        let chosen = choose(candidates.take(LOOKED_AT));
        self.close(chosen)
    }

    fn close_oldest(&mut self) -> bool {
        let chosen = choose(self.unproven.values().take(LOOKED_AT));
        self.close(chosen)
    }

    fn close(&mut self, chosen: Option<Arc<Connection>>) -> bool {
        let Some(chosen) = chosen else {
            return false;
        };
        self.forget(&chosen);
        chosen.close();
        true
    }

    /// Adds a connection to those that give way.
    fn remember(&mut self, connection: &Arc<Connection>) {
        self.unproven.insert(connection.id(), connection.clone());
        if let Some(network) = connection.network() {
            let ids = self.by_address.entry(network).or_default();
            self.by_weight.remove(&(ids.len(), network));
            ids.insert(connection.id());
            self.by_weight.insert((ids.len(), network));
        }
    }

    /// Takes a connection from those that give way.
    fn forget(&mut self, connection: &Connection) {
        if self.unproven.remove(&connection.id()).is_none() {
            return;
        }
        let Some(network) = connection.network() else {
            return;
        };
        let Some(ids) = self.by_address.get_mut(&network) else {
            return;
        };
        self.by_weight.remove(&(ids.len(), network));
        ids.remove(&connection.id());
        if ids.is_empty() {
            self.by_address.remove(&network);
        } else {
            self.by_weight.insert((ids.len(), network));
        }
    }
}

/// Chooses the connection that gives way, from some in order of age: the oldest that lets the
/// server wait for a request, or else one that does not read its answer, or else one that waits for
/// its turn. Those that the server works for stay.
fn choose<'a>(candidates: impl Iterator<Item = &'a Arc<Connection>>) -> Option<Arc<Connection>> {
    let (mut reader, mut in_line) = (None, None);
    for candidate in candidates {
        match candidate.waits() {
            Waits::ForRequest => return Some(candidate.clone()),
            Waits::ForReader => {
                reader.get_or_insert(candidate);
            }
            Waits::ForTurn => {
                in_line.get_or_insert(candidate);
            }
            Waits::ForServer => {}
        }
    }
    reader.or(in_line).cloned()
}

impl Admitted {
    /// The connection itself.
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let Some(connections) = self.connection.registry() else {
            return;
        };
        let mut inner = connections.inner();
        inner.forget(&self.connection);
        inner.all -= 1;
    }
}

#[cfg(test)]
mod tests;
