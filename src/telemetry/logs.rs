//! Log output: level and format, with the names KEDA's users know.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Encoder {
    /// One line of text.
    Console,
    /// One JSON object a line.
    Json,
}

/// Installs the process-wide subscriber, on stderr. `level` is `debug`, `info`, `error`, a number of
/// zap's (`1` and above are debug), or a full `tracing` filter such as `info,tandem::samples=debug`.
pub fn install(level: &str, encoder: Encoder) {
    let filter = EnvFilter::try_new(directives(level)).unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    // A subscriber that is already there (tests) stays.
    let _ = match encoder {
        Encoder::Console => builder.with_target(true).try_init(),
        Encoder::Json => builder.json().flatten_event(true).try_init(),
    };
}

fn directives(level: &str) -> String {
    match level.parse::<u8>() {
        // The client says of each lost connection what whoever used it says with the name of what was lost.
        Ok(0) => "info,kube_client::client=off".to_owned(),
        Ok(_) => "debug,hyper_util=info,h2=info,rustls=info,tower=info,kube_client=info".to_owned(),
        Err(_) if level == "debug" => directives("1"),
        Err(_) if level == "info" => directives("0"),
        Err(_) => level.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::directives;

    #[test]
    fn zap_levels_translate() {
        assert_eq!(directives("0"), directives("info"));
        assert!(directives("info").starts_with("info,"));
        assert!(directives("2").starts_with("debug,"));
        assert_eq!(directives("debug"), directives("1"));
        assert_eq!(directives("error"), "error");
    }
}
