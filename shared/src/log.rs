//! What the functions say beside a line for each request ([`crate::metrics`]): JSON lines on standard output, which Lambda
//! hands to CloudWatch. No token, cookie, body or URL is ever in one.
use crate::settings::config::log_level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{filter::Targets, fmt, layer::SubscriberExt as _, registry, util::SubscriberInitExt as _};

/// Begins logging at the level that the environment names; a wrong one is reported with the other settings.
///
/// Lines of `targets` only: the Lambda runtime's own can quote the event, and with it tokens and bodies.
pub fn begin(targets: &[&'static str]) {
    let get = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let level = log_level(&get).unwrap_or(LevelFilter::INFO);
    let lines =
        fmt::layer().json().flatten_event(true).with_current_span(false).with_span_list(false).with_target(false);
    let ours = Targets::new().with_targets(targets.iter().map(|target| (*target, level)));
    registry().with(lines).with(ours).init();
}
