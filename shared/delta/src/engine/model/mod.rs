//! Integer context mixing: adaptive probabilities, hashed tables of them, and the mixer.

mod byte;
mod counter;
mod flag;
mod mixer;
mod tables;

pub(crate) use byte::{ByteModel, EXPECTED, Expected};
pub(crate) use counter::Counter;
pub(crate) use flag::{FLAG_INPUTS, FlagModel};
pub(crate) use tables::ORDERS;
