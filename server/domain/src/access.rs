//! Roles and rights of operators.

/// Role of an operator. Each may do what the ones before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Reads.
    Viewer,
    /// Halts, rolls back, holds and isolates.
    Responder,
    /// Publishes, promotes and runs rollouts.
    ReleaseManager,
    /// Manages tokens, devices and settings.
    Admin,
}

tidegate_protocol::words!(Role("role") {
    Viewer = "viewer",
    Responder = "responder",
    ReleaseManager = "release_manager",
    Admin = "admin",
});

/// Right that a route requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Reading.
    Read,
    /// Stopping and rolling back: narrowing.
    Respond,
    /// Publishing, promoting and rolling out: widening.
    Release,
    /// Managing tokens and devices.
    Administer,
}

tidegate_protocol::words!(Need("need") {
    Read = "read",
    Respond = "respond",
    Release = "release",
    Administer = "administer",
});

impl Role {
    /// Returns whether the role has the right.
    pub fn may(self, need: Need) -> bool {
        match need {
            Need::Read => true,
            Need::Respond => self >= Role::Responder,
            Need::Release => self >= Role::ReleaseManager,
            Need::Administer => self == Role::Admin,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_has_the_rights_of_those_before_it_and_one_more() {
        for (index, role) in Role::ALL.iter().enumerate() {
            let rights = Need::ALL.iter().filter(|need| role.may(**need)).count();
            assert_eq!(rights, index + 1, "{role}");
        }
    }

    #[test]
    fn a_responder_may_stop_and_nothing_more() {
        assert!(Role::Responder.may(Need::Respond));
        assert!(!Role::Responder.may(Need::Release));
        assert!(!Role::Viewer.may(Need::Respond));
        assert!(Role::ReleaseManager.may(Need::Respond));
        assert!(!Role::ReleaseManager.may(Need::Administer));
    }
}
