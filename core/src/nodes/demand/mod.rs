//! Demand: pods that an HPA is about to ask for, so that nodes are asked for before the pods exist.
//!
//! [`History`] steps the HPA controller's algorithm over what it will read next and says what it will come to;
//! [`Offers`] keeps that until the pods have come; [`Ledger`] says how many of those pods nodes are asked for: never beyond the object's own maximum, never beyond the
//! cluster's, and for a while not at all where pods did not come. [`Controllers`] does so for what controllers will make.

mod controllers;
mod forecast;
mod ledger;
mod offers;
pub mod reasons;

pub use controllers::{Controllers, replicas_of_job};
pub use forecast::{Forecast, History, STEPS, counts_ready_pods};
pub use ledger::{DemandSettings, Expectation, Held, Ledger, MOST, Wanted};
pub use offers::{COOL_OFF, Offer, Offers, patience, pods};
