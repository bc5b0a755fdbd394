//! Basis of a change: nothing is signed that nobody here has looked at.

use tidegate_trust::{ProductRole, RoleName, Signed};

use super::{Offline, holder, trust};
use crate::error::CliError;

/// Basis of a change.
#[derive(Debug, Clone, Copy)]
pub(super) enum Base {
    /// The draft that waits, if there is one.
    Draft,
    /// The file in force.
    InForce,
}

impl Offline {
    /// Returns the draft of a role if a change is to be made on top of it.
    pub(super) fn on(&self, base: Base, role: &str) -> Result<Option<Signed>, CliError> {
        match base {
            Base::Draft => self.draft(role),
            Base::InForce => Ok(None),
        }
    }

    /// Refuses to sign a change on top of a draft that holds more than what is in force and this
    /// change, unless it was signed here: whoever made it could have put in anything, and the command
    /// shows nothing of it.
    pub(super) fn seen(&self, role: &str, is_own: bool) -> Result<(), CliError> {
        let Some(draft) = self.draft(role)?.filter(|_| !is_own) else {
            return Ok(());
        };
        let signers = draft
            .valid_signers(&self.draft_keys(role, &draft)?)
            .map_err(|e| trust(&e))?;
        for name in holder::all_here(self.dir())? {
            let holder = holder::read_public(&holder::public_path(self.dir(), &name))?;
            if holder
                .keys
                .iter()
                .any(|key| signers.contains(&key.key_id()))
            {
                return Ok(());
            }
        }
        let look = match role.parse::<RoleName>() {
            Ok(name) => format!("tidegate release sign {}", name.product),
            Err(_) => "tidegate keys sign".to_owned(),
        };
        Err(CliError::Hinted(
            format!("a draft of {role} waits with changes that nobody has looked at here"),
            format!(
                "`{look}` shows it and asks for your signature; `tidegate keys drop {role}` throws \
                 it away"
            ),
        ))
    }

    /// Describes the next version of a role with a change, before anything is signed; `None` if the
    /// change is in force already.
    pub(crate) fn preview(
        &self,
        name: &RoleName,
        change: impl Fn(&mut ProductRole),
    ) -> Result<Option<String>, CliError> {
        let (mut role, in_force) = (
            self.next_role(name, Base::Draft)?,
            self.next_role(name, Base::InForce)?,
        );
        change(&mut role);
        if is_same(&role, &in_force) {
            return Ok(None);
        }
        self.date(&mut role);
        let draft = Signed::unsigned(role.body());
        self.review(&name.to_string(), &draft).map(Some)
    }
}

/// Returns whether two versions of a role allow the same.
pub(super) fn is_same(a: &ProductRole, b: &ProductRole) -> bool {
    a.images == b.images && a.policy == b.policy
}
