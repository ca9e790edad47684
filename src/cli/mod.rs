//! The command line: one file a subcommand.

pub mod address;
pub mod check;
pub mod election;
pub mod explain;
pub mod interruption;
pub mod nodes;
pub mod pools;
pub mod report;
pub mod run;
pub mod scheduler;
pub mod simulate;
pub mod without_effect;

use std::{ffi::OsString, process::ExitCode};

use clap::{Arg, CommandFactory, FromArgMatches, Parser, Subcommand, builder::Resettable};

/// Autoscaling for Kubernetes: of pods by events, with the objects of KEDA, and of nodes by pods, with the flags of Cluster
/// Autoscaler and the objects of Karpenter.
#[derive(Debug, Parser)]
#[command(name = "tandem", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the controllers, the metrics API and the admission webhooks.
    Run(Box<run::RunArgs>),
    /// Check manifests offline, with the rules of the admission webhooks.
    Check(check::CheckArgs),
    /// Explain a decision on a live cluster; writes nothing.
    Explain(explain::ExplainArgs),
    /// Play what manifests would have done with the history of their metrics.
    Simulate(Box<simulate::SimulateArgs>),
    /// Show what a dry run (`tandem run --dry-run`) would have done, beside what the others did.
    Report(report::ReportArgs),
}

impl Cli {
    /// The command line and the environment of this process; what is wrong with them is said, and ends it. Flags may be
    /// written with underscores, as Cluster Autoscaler takes them, too.
    pub fn of_this_process() -> Self {
        let arguments = std::env::args_os().map(with_hyphens);
        let matches = without_empty_variables(Self::command()).get_matches_from(arguments);
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }

    /// Runs the subcommand to its end.
    pub fn execute(self) -> ExitCode {
        match self.command {
            Command::Run(args) => run::run(*args),
            Command::Check(args) => check::run(&args),
            Command::Explain(args) => explain::run(&args),
            Command::Simulate(args) => simulate::run(&args),
            Command::Report(args) => report::run(&args),
        }
    }
}

/// A variable that is empty is none, as for KEDA (`pkg/util/env_resolver.go`): templates write out what nobody set.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty = |arg: &Arg| {
        let value = arg.get_env().and_then(std::env::var_os);
        value.is_some_and(|value| value.is_empty())
    };
    let read = |arg: Arg| if is_empty(&arg) { arg.env(Resettable::Reset) } else { arg };
    command.mut_subcommands(|subcommand| subcommand.mut_args(read))
}

/// `--scan_interval=10s` as `--scan-interval=10s`.
fn with_hyphens(argument: OsString) -> OsString {
    match argument.to_str().filter(|text| text.starts_with("--")) {
        Some(text) => {
            let (name, value) = text.split_at(text.find('=').unwrap_or(text.len()));
            (name.replace('_', "-") + value).into()
        }
        None => argument,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn names_of_flags_may_have_underscores_and_values_keep_theirs() {
        for (given, taken) in [
            ("--scan_interval=10s", "--scan-interval=10s"),
            ("--cluster_name=a_b", "--cluster-name=a_b"),
            ("--skip_headers", "--skip-headers"),
            ("a_b", "a_b"),
            ("-v=1_0", "-v=1_0"),
        ] {
            assert_eq!(super::with_hyphens(given.into()), taken);
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
