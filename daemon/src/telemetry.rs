//! Logs: to stderr, as text or as one JSON object a line.

use std::io;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// A filter that does not parse.
#[derive(Debug, thiserror::Error)]
#[error("--log: {filter:?} is no filter such as \"info\" or \"daemon=debug,warn\"")]
pub struct FilterError {
    filter: String,
    source: ParseError,
}

/// Starts logging, once.
pub fn start(filter: &str, format: Format) -> Result<(), FilterError> {
    let parsed = EnvFilter::builder()
        .parse(filter)
        .map_err(|source| FilterError { filter: filter.to_owned(), source })?;
    let builder = tracing_subscriber::fmt().with_env_filter(parsed).with_writer(io::stderr);
    match format {
        Format::Text => builder.with_ansi(false).init(),
        Format::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_does_not_parse_is_named() {
        let error = start("daemon=loud", Format::Text).unwrap_err();
        insta::assert_snapshot!(
            error,
            @r#"--log: "daemon=loud" is no filter such as "info" or "daemon=debug,warn""#
        );
    }
}
