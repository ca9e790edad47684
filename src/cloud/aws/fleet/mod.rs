//! What node pools need of EC2: what can be had and for how much, and launching and ending machines.

pub mod launch;
pub mod offerings;
pub mod prices;
pub mod selectors;
