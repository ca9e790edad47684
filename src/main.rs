//! The `tandem` binary.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // One crypto provider for every TLS user in the process; a second install is harmless.
    let _ = rustls::crypto::ring::default_provider().install_default();
    tandem::cli::Cli::parse().execute()
}
