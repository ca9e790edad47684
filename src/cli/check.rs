//! `tandem check`.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, ValueEnum};

use crate::check::{
    files,
    manifests::{self, Severity},
    render,
};

/// What was asked for cannot be done: an unknown flag (by clap) or a file that cannot be read.
const USAGE: u8 = 2;

/// Arguments of `tandem check`.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// Files, folders (all *.yaml, *.yml and *.json below them) and - for standard input.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// How findings are printed.
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// How findings are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Lines as compilers write them.
    Text,
    /// One JSON object.
    Json,
}

/// Checks the manifests and prints what was found. 0: no errors (warnings do not count); 1: errors; 2: a file could not be
/// read.
pub fn run(args: &CheckArgs) -> ExitCode {
    let mut unreadable = false;
    let mut texts = Vec::new();
    for text in files::read(&args.files, &mut io::stdin()) {
        match text {
            Ok(text) => texts.push(text),
            Err(error) => {
                unreadable = true;
                // Nobody is left to tell when standard error is closed.
                let _ = writeln!(io::stderr(), "error: {error}");
            }
        }
    }
    let outcome = manifests::check(&texts);
    let printed = match args.output {
        Output::Text => render::text(&outcome),
        Output::Json => render::json(&outcome),
    };
    // A reader that went away (`| head`) has seen what it wanted; the verdict stands.
    let _ = io::stdout().write_all(printed.as_bytes());
    match (unreadable, outcome.count(Severity::Error)) {
        (true, _) => ExitCode::from(USAGE),
        (false, 0) => ExitCode::SUCCESS,
        (false, _) => ExitCode::FAILURE,
    }
}
