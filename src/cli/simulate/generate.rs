//! `tandem simulate --generate`: a built-in shape, or what an example plays, as a history.

use std::{fmt::Write, str::FromStr};

use clap::Args;
use jiff::Timestamp;
use simulate::{
    examples::{EXAMPLES, Example},
    shape::{Form, Shape},
};

use super::SimulateArgs;

/// Where a generated history starts: the midnight of a Monday.
const START: i64 = 1_767_571_200;
/// The value at rest when nothing says.
const LOW: f64 = 10.0;

/// What can be generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generated {
    /// A built-in shape.
    Shape(Form),
    /// The history of an example.
    Example(Example),
}

impl FromStr for Generated {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((_, example)) = EXAMPLES.iter().find(|(name, _)| *name == text) {
            return Ok(Self::Example(*example));
        }
        let names = EXAMPLES.map(|(name, _)| name).join(", ");
        text.parse().map(Self::Shape).map_err(|error| format!("{error}, or an example: {names}"))
    }
}

/// What a generated history looks like.
#[derive(Debug, Clone, Args)]
pub struct GenerateArgs {
    /// The value at rest: the trigger's target by default, or 10.
    #[arg(long, value_name = "VALUE", help_heading = "Shapes")]
    pub low: Option<f64>,
    /// The value at the top: ten times the trigger's target by default, or 100.
    #[arg(long, value_name = "VALUE", help_heading = "Shapes")]
    pub high: Option<f64>,
    /// From beginning to end (24h).
    #[arg(long, value_parser = simulate::duration, value_name = "DURATION", help_heading = "Shapes")]
    pub length: Option<u32>,
    /// How much each sample strays, as a share of itself (0.05).
    #[arg(long, value_name = "SHARE", help_heading = "Shapes")]
    pub noise: Option<f64>,
    /// The same seed gives the same history, and the same interruptions (1).
    #[arg(long, value_name = "NUMBER", help_heading = "Shapes")]
    pub seed: Option<u64>,
}

impl GenerateArgs {
    /// The shape that the flags describe.
    pub(super) fn shape(&self, form: Form, step: Option<u32>) -> Shape {
        let base = Shape::default();
        Shape {
            form,
            low: self.low.or(base.low),
            high: self.high.or(base.high),
            length: self.length.unwrap_or(base.length),
            step: step.unwrap_or(base.step),
            noise: self.noise.unwrap_or(base.noise),
            seed: self.seed.unwrap_or(base.seed),
        }
    }
}

/// The history, lines `time,value`.
pub(super) fn csv(what: Generated, args: &SimulateArgs) -> String {
    let form = match what {
        Generated::Shape(form) => form,
        Generated::Example(example) => return example.history(),
    };
    let shape = args.generated.shape(form, args.step);
    let mut text = "time,value\n".to_owned();
    for sample in shape.samples(args.start.map_or(START, Timestamp::as_second), LOW) {
        let time = Timestamp::from_second(sample.at).unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{time},{}", sample.value.unwrap_or_default());
    }
    text
}
