//! The end-to-end tests: one executable, one module per story. Real servers, agents, databases,
//! files and sockets; [`tidegate_tests`] starts them.
#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod air_gap;
mod api;
mod architecture;
mod backends;
mod carried;
mod checkin;
mod ci;
mod closed;
mod decoder;
mod delta;
mod docs;
mod doctor;
mod door;
#[cfg(target_os = "linux")]
mod exhausted;
mod first_steps;
mod fleet;
mod flood;
mod foreign_text;
mod four_eyes;
mod gate;
mod hostile;
mod hostile_server;
mod http;
mod identity;
mod imports;
mod incident;
mod kept_out;
mod keys;
mod machine;
mod oddities;
mod operators;
mod orphans;
mod own_update;
mod payloads;
mod people;
mod place;
mod plain_http;
mod proxied;
#[cfg(target_os = "linux")]
mod room;
mod signing;
mod sockets;
#[cfg(target_os = "linux")]
mod starved;
mod stolen_server;
mod store;
mod targets;
mod third_party;
mod tls;
mod tree;
mod update;
mod way_back;
mod words;
