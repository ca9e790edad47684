//! Built-in histories: shapes that loads have, made by a seeded generator.

use std::f64::consts::TAU;

use serde::{Deserialize, Serialize};
use tandem_core::draws::Draws;

use crate::history::{History, Sample};
use crate::problem::Problem;

/// Seconds of a day.
const DAY: f64 = 86_400.0;

/// What a load looks like over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// Low, then high from the first third to the second, then low.
    Step,
    /// From low to high in a straight line.
    Ramp,
    /// Low at night, high in the afternoon, less at weekends.
    Daily,
    /// Low, with short peaks at random times.
    Burst,
    /// A random walk between low and high.
    Noise,
}

impl std::str::FromStr for Form {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "step" => Self::Step,
            "ramp" => Self::Ramp,
            "daily" => Self::Daily,
            "burst" => Self::Burst,
            "noise" => Self::Noise,
            other => return Err(format!("{other:?} is no shape: step, ramp, daily, burst or noise")),
        })
    }
}

/// A built-in history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Shape {
    /// What it looks like.
    pub form: Form,
    /// The value at rest; the trigger's target, if absent.
    pub low: Option<f64>,
    /// The value at the top; ten times the trigger's target, if absent.
    pub high: Option<f64>,
    /// Seconds from beginning to end.
    pub length: u32,
    /// Seconds between samples.
    pub step: u32,
    /// How much each sample strays, as a share of itself.
    pub noise: f64,
    /// The same seed gives the same history.
    pub seed: u64,
}

impl Default for Shape {
    fn default() -> Self {
        Self { form: Form::Daily, low: None, high: None, length: 86_400, step: 15, noise: 0.05, seed: 1 }
    }
}

impl Shape {
    /// Its samples from a time on, in seconds since 1970, for a trigger with a target.
    pub fn samples(&self, start: i64, target: f64) -> Vec<Sample> {
        let low = self.low.unwrap_or(target);
        let high = self.high.unwrap_or(10.0 * target);
        let mut random = Draws(self.seed);
        let length = f64::from(self.length.max(1));
        let mut level = 0.0;
        let mut burst_until = 0;
        let offsets = (0..self.length).step_by(self.step.max(1) as usize);
        offsets
            .map(|offset| {
                let part = f64::from(offset) / length;
                level = match self.form {
                    Form::Step => f64::from(u8::from((1.0 / 3.0..2.0 / 3.0).contains(&part))),
                    Form::Ramp => part,
                    Form::Daily => daily(f64::from(offset)),
                    Form::Burst => {
                        // About one burst in two hours, of two to ten minutes.
                        if offset >= burst_until && random.unit() < f64::from(self.step) / 7200.0 {
                            #[allow(
                                clippy::cast_possible_truncation,
                                clippy::cast_sign_loss,
                                reason = "below 600"
                            )]
                            let lasts = (120.0 + 480.0 * random.unit()) as u32;
                            burst_until = offset + lasts;
                        }
                        f64::from(u8::from(offset < burst_until))
                    }
                    Form::Noise => (level + (random.unit() - 0.5) / 10.0).clamp(0.0, 1.0),
                };
                let value = low + (high - low) * level;
                let strayed = value * (1.0 + self.noise * (2.0 * random.unit() - 1.0));
                // Three decimals are what a metric keeps.
                let value = (strayed.max(0.0) * 1000.0).round() / 1000.0;
                Sample { at: start + i64::from(offset), value: Some(value) }
            })
            .collect()
    }

    /// Its history from a time on.
    pub fn history(&self, name: &str, start: i64, target: f64) -> Result<History, Problem> {
        History::new(name, &self.samples(start, target))
    }
}

/// The share of the way from night to afternoon, by seconds from the midnight of a Monday.
fn daily(seconds: f64) -> f64 {
    let hours = (seconds % DAY) / 3600.0;
    let day = (seconds / DAY).floor() % 7.0;
    // Lowest at 3 in the morning, highest at 3 in the afternoon.
    let wave = (1.0 - ((hours - 3.0) / 24.0 * TAU).cos()) / 2.0;
    let weekend = if day >= 5.0 { 0.6 } else { 1.0 };
    wave.powf(1.5) * weekend
}
