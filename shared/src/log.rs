//! Log lines other than the one for each request ([`crate::metrics`]): JSON on standard output, which Lambda sends to
//! CloudWatch. No line contains a token, cookie, body or URL.
use crate::environment::variable;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{filter::Targets, fmt, layer::SubscriberExt as _, registry, util::SubscriberInitExt as _};

/// Starts logging at the level that the environment sets. An invalid level is reported with the other settings.
///
/// Only lines of `targets` are logged: those of the Lambda runtime can quote the event, and with it tokens and bodies.
pub fn begin(targets: &[&'static str]) {
    let level = level(variable).unwrap_or(LevelFilter::INFO);
    let lines =
        fmt::layer().json().flatten_event(true).with_current_span(false).with_span_list(false).with_target(false);
    let ours = Targets::new().with_targets(targets.iter().map(|target| (*target, level)));
    registry().with(lines).with(ours).init();
}

/// Returns the level: `LOG_LEVEL`, else Lambda's `AWS_LAMBDA_LOG_LEVEL`, else info.
pub(crate) fn level(get: impl Fn(&str) -> Option<String>) -> Result<LevelFilter, String> {
    for name in ["LOG_LEVEL", "AWS_LAMBDA_LOG_LEVEL"] {
        if let Some(value) = get(name) {
            return match value.to_ascii_lowercase().as_str() {
                "off" => Ok(LevelFilter::OFF),
                "fatal" | "error" => Ok(LevelFilter::ERROR),
                "warn" => Ok(LevelFilter::WARN),
                "info" => Ok(LevelFilter::INFO),
                "debug" => Ok(LevelFilter::DEBUG),
                "trace" => Ok(LevelFilter::TRACE),
                _ => Err(format!("{name} is not one of off, error, warn, info, debug, trace")),
            };
        }
    }
    Ok(LevelFilter::INFO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::not_blank;

    #[test]
    fn the_level_is_read_with_white_space_around_it_and_a_blank_one_is_not_set() {
        for (ours, lambdas, read) in [
            (" debug ", "", LevelFilter::DEBUG),
            ("Trace", "error", LevelFilter::TRACE),
            (" ", " WARN", LevelFilter::WARN),
            ("", "fatal", LevelFilter::ERROR),
            ("", "", LevelFilter::INFO),
        ] {
            let get = |name: &str| not_blank(if name == "LOG_LEVEL" { ours } else { lambdas });
            assert_eq!(level(get), Ok(read), "{ours:?} {lambdas:?}");
        }
    }
}
