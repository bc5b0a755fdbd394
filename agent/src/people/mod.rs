//! People at the machine: their settings, enrollment, local control and diagnosis.

pub mod config;
pub(crate) mod control;
pub(crate) mod doctor;
pub(crate) mod enroll;
pub(crate) mod identity;
pub(crate) mod settings;
pub(crate) mod standing;
