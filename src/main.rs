//! The `tandem` binary.

use std::process::ExitCode;

/// Gives back what the process no longer needs, where glibc's and musl's keep it; `.cargo/config.toml` says how soon.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // One crypto provider for every TLS user in the process; a second install is harmless.
    let _ = rustls::crypto::ring::default_provider().install_default();
    tandem::cli::Cli::of_this_process().execute()
}
