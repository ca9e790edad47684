//! `tandem simulate --sweep` and `--compare`: the same history in several worlds.

use std::{fs, num::NonZero, path::PathBuf, process::ExitCode};

use clap::Args;
use simulate::{
    Input, Options, Outcome, Problem, comparable, report,
    sweep::{self, Dimension, Sweep, Wish},
};

use super::{Output, SimulateArgs, USAGE, complain, play, print, printed, read, read::Read};

/// What is played beside the manifests as they are.
#[derive(Debug, Clone, Args)]
pub struct SweepArgs {
    /// Plays every combination of values: KEY=5,10,20 or KEY=5..50/5, may be given several times. Keys: threshold, min, max,
    /// cooldown, stabilization, polling, consolidateAfter, each with NAME: before it if only one object is meant; any other
    /// field is KIND/NAMESPACE/NAME:PATH.
    #[arg(long = "sweep", value_name = "KEY=VALUES", help_heading = "Several worlds")]
    pub dimensions: Vec<Dimension>,
    /// Names the cheapest setting of the sweep, with the patch that applies it.
    #[arg(long, requires = "dimensions", help_heading = "Several worlds")]
    pub recommend: bool,
    /// The most unserved load of the setting that is named (0.1%).
    #[arg(long, value_name = "PERCENT", value_parser = share, requires = "recommend", help_heading = "Several worlds")]
    pub max_unserved: Option<f64>,
    /// Threads of the sweep; as many as there are processors by default. The result is the same.
    #[arg(long, value_name = "NUMBER", requires = "dimensions", help_heading = "Several worlds")]
    pub threads: Option<NonZero<usize>>,
    /// Plays a second world beside the first, in which these manifests replace those of the same kind and name.
    #[arg(long, value_name = "FILE", conflicts_with = "dimensions", help_heading = "Several worlds")]
    pub compare: Vec<PathBuf>,
}

impl SweepArgs {
    /// Whether anything but one world is asked for.
    pub(super) fn is_asked(&self) -> bool {
        !self.dimensions.is_empty() || !self.compare.is_empty()
    }
}

/// A share of one: `0.1%` or `0.001`.
fn share(text: &str) -> Result<f64, String> {
    let (number, unit) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 100.0));
    let share = number.trim().parse::<f64>().map(|number| number / unit).ok();
    share
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| format!("{text:?} is no share such as 0.1%"))
}

/// Plays what is asked for. Exit codes as [`super::run`].
pub(super) fn run(args: &SimulateArgs, read: &Read, input: &Input, options: &Options) -> ExitCode {
    let result = if args.several.dimensions.is_empty() {
        compared(args, input, options)
    } else {
        swept(args, input, options)
    };
    match result {
        Ok(text) => printed(&text),
        Err(Failure::Input(problems)) => {
            let located: Vec<_> =
                problems.into_iter().map(|problem| read.locate(problem).to_string()).collect();
            complain(&located, 1)
        }
        Err(Failure::Said(problems, code)) => complain(&problems, code),
    }
}

/// Why there is no result.
enum Failure {
    Input(Vec<Problem>),
    /// In words, with the exit code.
    Said(Vec<String>, u8),
}

impl From<Vec<Problem>> for Failure {
    fn from(problems: Vec<Problem>) -> Self {
        Self::Input(problems)
    }
}

fn swept(args: &SimulateArgs, input: &Input, options: &Options) -> Result<String, Failure> {
    let SweepArgs { dimensions, recommend, max_unserved, threads, .. } = &args.several;
    let wish = Wish { recommend: *recommend, max_unserved: *max_unserved, threads: *threads };
    let sweep = sweep::sweep(input, options, dimensions, &wish)?;
    if let Some(path) = &args.report {
        let options = comparable(input, options)?;
        let mut outcomes = vec![play(input, &options)?];
        if let Some(point) = sweep.recommended.and_then(|index| sweep.points.get(index)) {
            let world = sweep::world_of(input, dimensions, point).map_err(|problem| vec![problem])?;
            outcomes.push(play(&world, &options)?);
        }
        write(path, &report::page_of_sweep(&sweep, &outcomes))?;
    }
    Ok(match args.output {
        Output::Text => sweep.to_string(),
        Output::Json => json(&sweep),
        Output::Csv => csv(&sweep),
    })
}

fn compared(args: &SimulateArgs, input: &Input, options: &Options) -> Result<String, Failure> {
    let other = beside(args, input)?;
    let options = comparable(input, options)?;
    let outcomes = [play(input, &options)?, play(&other, &options)?];
    if let Some(path) = &args.report {
        write(path, &report::page(&outcomes))?;
    }
    Ok(match args.output {
        Output::Text => {
            outcomes.iter().map(print::text).collect::<Vec<_>>().join("\n") + &differences(&outcomes)
        }
        Output::Json => json(&outcomes),
        Output::Csv => print::csv_of_worlds(&outcomes),
    })
}

/// The input with the manifests of `--compare` in place of those of the same kind and name.
fn beside(args: &SimulateArgs, input: &Input) -> Result<Input, Failure> {
    let files = args.several.compare.clone();
    let with = read::read(&SimulateArgs { files, metrics: Vec::new(), ..args.clone() });
    if !with.unreadable.is_empty() {
        return Err(Failure::Said(with.unreadable, USAGE));
    }
    if !with.errors.is_empty() {
        return Err(Failure::Said(with.errors, 1));
    }
    let mut other = input.clone();
    for manifest in &with.input.manifests {
        let same =
            |one: &&mut simulate::Manifest| one.kind() == manifest.kind() && one.key() == manifest.key();
        match other.manifests.iter_mut().find(same) {
            Some(replaced) => *replaced = manifest.clone(),
            None => other.manifests.push(manifest.clone()),
        }
    }
    other.histories.extend(with.input.histories);
    let files = args.several.compare.iter().map(|file| file.file_name().unwrap_or(file.as_os_str()));
    other.name = format!("with {}", files.map(|file| file.to_string_lossy()).collect::<Vec<_>>().join(" "));
    Ok(other)
}

fn write(path: &PathBuf, page: &str) -> Result<(), Failure> {
    fs::write(path, page)
        .map_err(|error| Failure::Said(vec![format!("cannot write {}: {error}", path.display())], USAGE))
}

fn json<T: serde::Serialize + ?Sized>(value: &T) -> String {
    // Numbers and texts are all there is: nothing of it can fail to be written.
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

/// A line for each setting.
fn csv(sweep: &Sweep) -> String {
    let figures = "cost,unserved,podHours,nodeHours,scaleEvents,front,recommended";
    let mut lines = vec![format!("{},{figures}", sweep.keys.join(","))];
    for (index, point) in sweep.points.iter().enumerate() {
        let values: Vec<_> = point.values.iter().map(ToString::to_string).collect();
        let summary = &point.summary;
        lines.push(format!(
            "{},{},{},{},{},{},{},{}",
            values.join(","),
            point.cost,
            summary.unserved_share,
            summary.pod_hours,
            summary.node_hours,
            summary.scale_events,
            point.front,
            sweep.recommended == Some(index)
        ));
    }
    lines.join("\n") + "\n"
}

/// What the second world has more or less than the first.
fn differences([one, other]: &[Outcome; 2]) -> String {
    let (a, b) = (&one.summary, &other.summary);
    #[allow(clippy::cast_precision_loss, reason = "a count of events")]
    let count = |count: u64| count as f64;
    let mut rows = vec![
        ("pod-hours", a.pod_hours, b.pod_hours, 1),
        ("unserved %", a.unserved_share * 100.0, b.unserved_share * 100.0, 2),
        ("scale events", count(a.scale_events), count(b.scale_events), 0),
    ];
    if !one.nodes.types.is_empty() {
        rows.push(("node-hours", a.node_hours, b.node_hours, 1));
    }
    if let (Some(a), Some(b)) = (a.cost, b.cost) {
        rows.insert(0, ("cost $", a, b, 2));
    }
    let mut text = format!("\n{:<14}{:>14}{:>14}{:>12}\n", "", "as it is", "with", "difference");
    for (name, a, b, digits) in rows {
        let relative = if a > 0.0 { format!("{:+.1}%", (b / a - 1.0) * 100.0) } else { String::new() };
        text += format!("{name:<14}{a:>14.digits$}{b:>14.digits$}{relative:>12}").trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_percent_or_parts_of_one() {
        for (text, value) in [("0.1%", 0.001), ("0.001", 0.001), ("0", 0.0), ("5 %", 0.05), ("100%", 1.0)] {
            assert!((share(text).unwrap() - value).abs() < 1e-12, "{text}");
        }
        for text in ["5", "-1%", "101%", "much", "NaN"] {
            assert!(share(text).is_err(), "{text}");
        }
    }
}
