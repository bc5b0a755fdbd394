//! People behind the tokens. Whoever makes a token sees its secret, and can use it: a token counts
//! as the person of its maker until another administrator has confirmed that somebody else holds
//! it.

use std::collections::BTreeMap;

use tidegate_protocol::TokenId;

/// A token, as far as it says who is behind it.
#[derive(Debug, Clone)]
pub struct Holder {
    /// The token.
    pub token: TokenId,
    /// Its name, which no other token has ever had.
    pub name: String,
    /// Token that made it; `None` for those that were made on the server's host.
    pub made_by: Option<TokenId>,
    /// Whether another administrator confirmed that it belongs to a person of its own.
    pub confirmed: bool,
}

/// Person behind each token, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct People(BTreeMap<String, String>);

impl People {
    /// Follows each token to the one whose person it counts as.
    pub fn new(holders: &[Holder]) -> Self {
        let by_id: BTreeMap<TokenId, &Holder> = holders.iter().map(|h| (h.token, h)).collect();
        let person = |of: &Holder| {
            let mut holder = of;
            // A chain cannot be longer than the list, whatever the database says.
            for _ in holders {
                let maker = holder.made_by.filter(|_| !holder.confirmed);
                match maker.and_then(|id| by_id.get(&id)) {
                    Some(maker) => holder = maker,
                    None => break,
                }
            }
            holder.name.clone()
        };
        Self(
            holders
                .iter()
                .map(|h| (h.name.clone(), person(h)))
                .collect(),
        )
    }

    /// Person that a token counts as, named by one of their tokens.
    pub fn person<'a>(&'a self, name: &'a str) -> &'a str {
        self.0.get(name).map_or(name, String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> TokenId {
        TokenId::from_random([number; 16])
    }

    fn holder(number: u8, name: &str, made_by: Option<u8>, confirmed: bool) -> Holder {
        Holder {
            token: id(number),
            name: name.into(),
            made_by: made_by.map(id),
            confirmed,
        }
    }

    #[test]
    fn the_whole_chain_of_makers_is_one_person_until_somebody_is_confirmed() {
        let people = People::new(&[
            holder(1, "ann", None, false),
            holder(2, "bob", None, false),
            holder(3, "ann2", Some(1), false),
            holder(4, "ann3", Some(3), false),
            holder(5, "cid", Some(3), true),
            holder(6, "cid2", Some(5), false),
        ]);
        for (name, person) in [
            ("ann", "ann"),
            ("bob", "bob"),
            ("ann2", "ann"),
            ("ann3", "ann"),
            ("cid", "cid"),
            ("cid2", "cid"),
            ("planner", "planner"),
        ] {
            assert_eq!(people.person(name), person, "{name}");
        }
    }

    #[test]
    fn a_chain_that_bites_its_tail_or_leads_nowhere_ends() {
        let people = People::new(&[
            holder(1, "x", Some(2), false),
            holder(2, "y", Some(1), false),
            holder(3, "z", Some(9), false),
        ]);
        assert_eq!(people.person("z"), "z");
        assert!(["x", "y"].contains(&people.person("x")));
    }
}
