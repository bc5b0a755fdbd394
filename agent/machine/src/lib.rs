#![doc = include_str!("../README.md")]

mod agenda;
#[cfg(test)]
mod folders;
pub mod fs;
pub mod fsm;
pub mod journal;
pub mod orders;

pub use agenda::{Agenda, note};
