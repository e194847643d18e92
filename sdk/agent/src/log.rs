//! The log: what it contains and how it is written. `JIT_LOG` means the same as the broker's.

use std::io::IsTerminal as _;
use std::str::FromStr;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::cli::LogFormat;

/// How the targets of the agent's own lines begin.
const OURS: &str = "jit_";

/// What the log contains. `debug` alone holds for the agent: the libraries write thousands of lines there, and do so
/// when they are named (`debug,rustls=debug`). `trace` is everything.
#[derive(Debug, Clone)]
pub(crate) struct LogFilter(Targets);

impl FromStr for LogFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut directives = Vec::new();
        for directive in text.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
            match directive.parse::<LevelFilter>() {
                Ok(LevelFilter::DEBUG) => directives.extend(["info".to_owned(), format!("{OURS}=debug")]),
                _ => directives.push(directive.to_owned()),
            }
        }
        if directives.is_empty() {
            directives.push("info".to_owned());
        }
        let wrong = |_| "write error, warn, info, debug, trace, or MODULE=LEVEL, with commas between".to_owned();
        directives.join(",").parse().map(Self).map_err(wrong)
    }
}

/// Starts it, on stderr.
pub(crate) fn start(LogFilter(targets): LogFilter, format: LogFormat) {
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(targets)).init();
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use tracing::Level;

    use super::*;

    fn has(text: &str, target: &str, level: Level) -> bool {
        text.parse::<LogFilter>().unwrap().0.would_enable(target, &level)
    }

    #[test]
    fn debug_is_the_agents_own() {
        assert!(has("debug", "jit_agent::keep", Level::DEBUG) && has("debug", "jit_client::client", Level::DEBUG));
        assert!(has("debug", "rustls::conn", Level::INFO) && !has("debug", "rustls::conn", Level::DEBUG));
        assert!(has("debug,rustls=debug", "rustls::conn", Level::DEBUG));
        assert!(has("trace", "hyper::proto", Level::TRACE));
        assert!(has("warn", "jit_agent", Level::WARN) && !has("warn", "jit_agent", Level::INFO));
        assert!(has("", "jit_agent", Level::INFO) && !has("", "jit_agent", Level::DEBUG));
        assert!(!has("off", "jit_agent", Level::ERROR));
        assert!("jit_agent=loud".parse::<LogFilter>().is_err_and(|why| why.contains("MODULE=LEVEL")));
    }
}
