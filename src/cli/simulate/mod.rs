//! `tandem simulate`: what manifests would have done with the history of their metrics.

mod credentials;
mod generate;
mod print;
mod prometheus;
mod read;
mod sweep;

use std::{
    fs,
    io::{self, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use simulate::{Input, Options, Outcome, shape::Form};

/// What was asked for cannot be done: an unknown flag (by clap) or a file that cannot be read.
const USAGE: u8 = 2;
/// A run that takes longer than this shows how far it is.
const SHOW_PROGRESS_AFTER: Duration = Duration::from_secs(1);
/// Characters of the progress bar.
const BAR: u32 = 40;

/// Arguments of `tandem simulate`.
#[derive(Debug, Clone, Args)]
pub struct SimulateArgs {
    /// Files and folders with manifests; histories are looked for in a folder history beside them, as
    /// NAMESPACE.NAME.TRIGGER.csv.
    #[arg(long = "filename", short = 'f', value_name = "FILE", required_unless_present = "generate")]
    pub files: Vec<PathBuf>,
    /// The history of a trigger: NAMESPACE/NAME[:TRIGGER]=FILE.csv, lines "time,value".
    #[arg(long = "metric", value_name = "OBJECT=FILE", value_parser = read::metric)]
    pub metrics: Vec<read::MetricFile>,
    /// The target of a trigger of which only its server knows it (external, external-push): NAMESPACE/NAME[:TRIGGER]=VALUE.
    #[arg(long = "target", value_name = "OBJECT=VALUE", value_parser = read::target)]
    pub targets: Vec<(String, f64)>,
    /// A built-in history (step, ramp, daily, burst, noise) for triggers without one.
    #[arg(long, value_name = "SHAPE")]
    pub shape: Option<Form>,
    /// Asks this server for the history of prometheus triggers, from --start to --end.
    #[arg(long, value_name = "URL", requires = "start", requires = "end")]
    pub prometheus: Option<String>,
    /// The first moment; the first sample of any history by default.
    #[arg(long, visible_alias = "from", value_name = "TIME")]
    pub start: Option<Timestamp>,
    /// The last moment; the end of the longest history by default.
    #[arg(long, visible_alias = "to", value_name = "TIME")]
    pub end: Option<Timestamp>,
    /// Time between points of the series, of samples from --prometheus, and of samples that --generate makes.
    #[arg(long, value_parser = simulate::duration, value_name = "DURATION")]
    pub step: Option<u32>,
    /// The control plane's version, whose HPA controller is played.
    #[arg(long, value_parser = simulate::minor, value_name = "VERSION")]
    pub kubernetes_version: Option<u32>,
    /// Time from a pod's binding to its readiness, where its probes do not say.
    #[arg(long, value_parser = simulate::duration, value_name = "DURATION")]
    pub pod_start: Option<u32>,
    /// Time from the request of a node to its readiness: DURATION, or TYPE=DURATION for one type or group.
    #[arg(long, value_parser = read::node_start, value_name = "[TYPE=]DURATION")]
    pub node_start: Vec<(Option<String>, u32)>,
    /// The most pods that nodes are asked for before they exist, as tandem run has it (100); 0 turns it off.
    #[arg(long, value_name = "PODS")]
    pub max_expected_pods: Option<u32>,
    /// How often the capacity of a spot node of a pool is taken back, on average (0); --seed says when.
    #[arg(long, value_name = "NUMBER", value_parser = simulate::interruptions)]
    pub spot_interruptions_per_day: Option<f64>,
    /// How the result is printed.
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// Writes the result as one page for a browser.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Prints a history of this shape, or that of an example (web-shop, say), as CSV instead, and simulates nothing.
    #[arg(long, value_name = "SHAPE", conflicts_with_all = ["files", "metrics", "report", "prometheus"])]
    pub generate: Option<generate::Generated>,
    /// What a generated history looks like.
    #[command(flatten)]
    pub generated: generate::GenerateArgs,
    /// Other worlds beside it.
    #[command(flatten)]
    pub several: sweep::SweepArgs,
}

/// How the result is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A summary for people.
    Text,
    /// Everything, as one JSON object.
    Json,
    /// A line for each object and point.
    Csv,
}

/// Runs it. 0: there is a result; 1: the input is wrong; 2: a file could not be read or written.
pub fn run(args: &SimulateArgs) -> ExitCode {
    if let Some(what) = args.generate {
        return printed(&generate::csv(what, args));
    }
    let read = read::read(args);
    if !read.unreadable.is_empty() {
        return complain(&read.unreadable, USAGE);
    }
    if !read.errors.is_empty() {
        return complain(&read.errors, 1);
    }
    let mut input = read.input.clone();
    let located = |problems: Vec<simulate::Problem>| -> Vec<String> {
        problems.into_iter().map(|problem| read.locate(problem).to_string()).collect()
    };
    let options = match options(args, &input) {
        Ok(options) => options,
        Err(problems) => return complain(&located(problems), 1),
    };
    if let Some(url) = &args.prometheus
        && let Err(problems) = prometheus::fetch(&mut input, &options, url, args)
    {
        return complain(&located(problems), 1);
    }
    if args.several.is_asked() {
        return sweep::run(args, &read, &input, &options);
    }
    match play(&input, &options) {
        Ok(outcome) => tell(&outcome, args),
        Err(problems) => complain(&located(problems), 1),
    }
}

/// What the manifests say, and over it the flags.
fn options(args: &SimulateArgs, input: &Input) -> Result<Options, Vec<simulate::Problem>> {
    let mut options = Options::of(input)?;
    options.start = args.start.or(options.start);
    options.end = args.end.or(options.end);
    options.step = args.step.filter(|_| args.prometheus.is_none()).or(options.step);
    options.kubernetes_minor = args.kubernetes_version.unwrap_or(options.kubernetes_minor);
    options.targets.extend(args.targets.iter().cloned());
    options.max_expected_pods = args.max_expected_pods.unwrap_or(options.max_expected_pods);
    options.spot_interruptions_per_day =
        args.spot_interruptions_per_day.unwrap_or(options.spot_interruptions_per_day);
    options.seed = args.generated.seed.unwrap_or(options.seed);
    options.pod_start = args.pod_start.unwrap_or(options.pod_start);
    for (name, seconds) in &args.node_start {
        match name {
            None => options.node_start = *seconds,
            Some(name) => {
                options.node_starts.insert(name.clone(), *seconds);
            }
        }
    }
    if let Some(form) = args.shape {
        options.shape = Some(args.generated.shape(form, args.step));
    }
    Ok(options)
}

/// Plays the world, with a bar on a terminal if that takes a while.
fn play(input: &Input, options: &Options) -> Result<Outcome, Vec<simulate::Problem>> {
    let (begun, shows) = (Instant::now(), io::stderr().is_terminal());
    let mut drawn = None;
    let mut progress = |share: f64| {
        if !shows || begun.elapsed() < SHOW_PROGRESS_AFTER {
            return;
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of one")]
        let done = (share * f64::from(BAR)) as u32;
        if drawn.replace(done) != Some(done) {
            let (full, empty) = ("#".repeat(done as usize), ".".repeat((BAR - done.min(BAR)) as usize));
            // Nobody is left to tell when standard error is closed.
            let _ = write!(io::stderr(), "\r[{full}{empty}]");
        }
    };
    let outcome = simulate::run_with(input, options, &mut progress);
    if drawn.is_some() {
        let _ = write!(io::stderr(), "\r{}\r", " ".repeat(BAR as usize + 2));
    }
    outcome
}

fn tell(outcome: &Outcome, args: &SimulateArgs) -> ExitCode {
    if let Some(path) = &args.report
        && let Err(error) = fs::write(path, simulate::report::page(std::slice::from_ref(outcome)))
    {
        return complain(&[format!("cannot write {}: {error}", path.display())], USAGE);
    }
    printed(&match args.output {
        Output::Text => print::text(outcome),
        Output::Json => print::json(outcome),
        Output::Csv => print::csv(outcome),
    })
}

fn printed(text: &str) -> ExitCode {
    // A reader that went away (`| head`) has seen what it wanted.
    let _ = io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn complain(problems: &[String], code: u8) -> ExitCode {
    for problem in problems {
        let _ = writeln!(io::stderr(), "error: {problem}");
    }
    ExitCode::from(code)
}
