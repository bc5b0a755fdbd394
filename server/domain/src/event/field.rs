//! Values of an event's fields: no floats and no nesting, so that their JSON has one form only.

use std::collections::BTreeMap;

use tidegate_protocol::{
    ChangeId, Channel, DeploymentId, DeploymentState, DeviceId, Encoding, HoldId, IncidentId,
    JoinTokenId, Platform, ProductName, Reason, Region, RolloutId, Sha256, Stage, Timestamp,
    TokenId, Version,
};

use crate::access::Role;
use crate::approval::ChangeKind;
use crate::rollout::{RolloutEvent, RolloutState};

/// One value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scalar {
    /// A whole number. JSON readers agree up to 2^53; counts and bytes stay far below.
    Number(i64),
    /// A word, an id, a version, a hash.
    Text(String),
    /// Yes or no.
    Flag(bool),
    /// Several values.
    List(Vec<Scalar>),
}

/// Fields by name, sorted.
pub type Fields = BTreeMap<&'static str, Scalar>;

/// A type that can be a field.
pub trait Field {
    /// The value; `None` leaves the field out.
    fn scalar(&self) -> Option<Scalar>;
}

macro_rules! numbers {
    ($($type:ty),*) => { $(
        impl Field for $type {
            fn scalar(&self) -> Option<Scalar> {
                Some(Scalar::Number(i64::try_from(*self).unwrap_or(i64::MAX)))
            }
        }
    )* };
}
numbers!(u16, u32, u64, i64);

macro_rules! texts {
    ($($type:ty),*) => { $(
        impl Field for $type {
            fn scalar(&self) -> Option<Scalar> {
                Some(Scalar::Text(self.to_string()))
            }
        }
    )* };
}
texts!(
    String,
    ChangeId,
    Channel,
    ChangeKind,
    DeploymentId,
    DeploymentState,
    DeviceId,
    Encoding,
    HoldId,
    IncidentId,
    JoinTokenId,
    Platform,
    ProductName,
    Reason,
    Region,
    Role,
    RolloutEvent,
    RolloutId,
    RolloutState,
    Sha256,
    Stage,
    Timestamp,
    TokenId,
    Version
);

impl Field for bool {
    fn scalar(&self) -> Option<Scalar> {
        Some(Scalar::Flag(*self))
    }
}

impl<T: Field> Field for Option<T> {
    fn scalar(&self) -> Option<Scalar> {
        self.as_ref().and_then(Field::scalar)
    }
}

impl<T: Field> Field for Vec<T> {
    fn scalar(&self) -> Option<Scalar> {
        Some(Scalar::List(
            self.iter().filter_map(Field::scalar).collect(),
        ))
    }
}
