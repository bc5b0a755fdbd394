//! Roles, rights and names of operators.

use tidegate_protocol::plain;

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

/// Words that events use for actors who are no operators.
const RESERVED: [&str; 6] = ["planner", "builder", "check-in", "server", "system", "host"];

/// Checks the name of a token: events, approvals and the people who read them know operators by it,
/// so it must look like no other name and like nothing else.
pub fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.chars().count() > 60 {
        return Err("name: 1 to 60 characters");
    }
    if name.trim() != name || name.contains("  ") || plain(name) != name {
        return Err("name: without invisible characters, line breaks and spaces at its ends");
    }
    if RESERVED.contains(&name.to_lowercase().as_str()) {
        return Err("name: the server calls itself that in its records; choose another");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_token_looks_like_nothing_else() {
        for good in ["ann", "Jürgen Öztürk", "ci/line-7", "ann-2"] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        let long = "x".repeat(61);
        let bad = [
            "",
            " ann",
            "ann ",
            "a  b",
            "a\nb",
            "an\u{200b}n",
            "Planner",
            "host",
            long.as_str(),
        ];
        for bad in bad {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }

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
