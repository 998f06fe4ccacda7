//! The tests that run the compiled gateway. `tests/run` starts what stands beside it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod access;
mod attack;
mod bad_input;
mod bodies;
mod bounded;
mod changes;
mod commands;
mod concurrency;
mod databases;
mod demo;
mod django;
mod engines;
mod faults;
mod hardening;
mod history;
mod keys;
mod layers;
mod library;
mod limits;
mod metrics;
mod monitoring;
mod outage;
mod own_tables;
mod plain;
mod projection;
mod response;
mod roles;
mod rolling;
mod rotation;
mod secrets;
mod support;
mod tokens;
mod users;
mod vectors;
mod writes;
