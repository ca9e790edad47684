//! The virtual world: the history of each metric goes in, what Tandem, the HPA controller, the scheduler and the node loop
//! would have done comes out.
//!
//! Every decision is the live one: this crate depends on `tandem-core` and on nothing that can reach a network, so there is
//! no second implementation of anything. It has no clock and no threads that a result could depend on: the same input
//! gives the same bytes.

pub mod outcome;
pub mod report;
