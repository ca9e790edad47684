//! The virtual world: the history of each metric goes in, what Tandem, the HPA controller, the scheduler and the node loop
//! would have done comes out.
//!
//! [`run`] plays an [`Input`]. Every decision is the live one: of `tandem-core`, and of the scalers, which say what a value
//! means; there is no second implementation of anything. The crate does no I/O and has no clock and no threads that a
//! result could depend on: the same input gives the same bytes.

mod compile;
mod engine;
pub mod examples;
pub mod history;
mod input;
pub mod outcome;
mod problem;
pub mod report;
pub mod shape;
pub mod sweep;
#[cfg(test)]
mod tests;
mod without_effect;

pub use input::{GROUP, Input, Manifest, Options, duration, interruptions, minor};
pub use outcome::Outcome;
pub use problem::{Place, Problem};
pub use without_effect::without_effect;

/// Plays the world of an input from its first moment to its last.
///
/// # Errors
/// Everything that is wrong with the input, each with its place; no result pretends.
pub fn run(input: &Input, options: &Options) -> Result<Outcome, Vec<Problem>> {
    run_with(input, options, &mut |_| {})
}

/// [`run`], with someone who hears how far it is, from 0 to 1.
///
/// # Errors
/// As [`run`].
pub fn run_with(
    input: &Input,
    options: &Options,
    progress: &mut dyn FnMut(f64),
) -> Result<Outcome, Vec<Problem>> {
    let world = compile::compile(input, options)?;
    Ok(engine::play(&input.name, &world, progress))
}

/// The options under which other settings can be held against those of `input`: a replica can take what it is meant to take
/// there. A higher target alone makes no replica stronger.
///
/// # Errors
/// As [`run`].
pub fn comparable(input: &Input, options: &Options) -> Result<Options, Vec<Problem>> {
    let world = compile::compile(input, options)?;
    let mut options = options.clone();
    for object in world.objects {
        if let Some(primary) = &object.primary {
            options.capacities.insert(object.key(), primary.target);
        }
    }
    Ok(options)
}
