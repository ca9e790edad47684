//! Tandem: event-driven pod autoscaling for Kubernetes.
//!
//! Folders are rings: [`cluster`] and [`samples`] observe, `tandem_core` decides, [`controllers`] acts;
//! [`metrics_api`] and [`webhooks`] serve. Arrows go observe → decide → act and never back.

mod authorities;
pub mod certs;
pub mod check;
pub mod cli;
pub mod cloud;
pub mod cluster;
pub mod controllers;
pub mod dry_run;
pub mod leader;
pub mod metrics_api;
pub mod operator;
pub mod samples;
pub mod serve;
pub mod telemetry;
pub mod webhooks;
