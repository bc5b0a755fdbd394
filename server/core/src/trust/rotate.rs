//! A new generation of online keys, when the server may have been compromised.

use tidegate_domain::event::Event;
use tidegate_store::{operators, trust};

use crate::CoreError;
use crate::app::App;
use crate::memory::access::Operator;
use crate::memory::secrets::{Secrets, TICKETS, make_generation};
use crate::memory::tickets::TicketKey;

impl App {
    /// Creates a new generation of online keys and a new ticket key. Copies of the old ones become
    /// useless: the ticket key at once, the signing keys once people have named the new ones.
    pub async fn rotate_online(&self, by: &Operator, reason: &str) -> Result<(), CoreError> {
        let now = self.now();
        self.change(&by.actor, async |tx| {
            trust::lock(tx).await?;
            let secrets = Secrets::load(tx).await?;
            make_generation(tx, secrets.generations(), now).await?;
            operators::put_secret(tx, TICKETS, &TicketKey::fresh_hex(), now).await?;
            let reason = reason.to_owned();
            Ok(((), vec![Event::OnlineKeysMade { reason }]))
        })
        .await
    }
}
