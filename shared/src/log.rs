//! Logging: JSON lines on standard output, which Lambda hands to CloudWatch. No token, cookie, body or URL is ever in one.
use crate::{Error, Request, config::log_level, http::Response};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{filter::Targets, fmt, layer::SubscriberExt as _, registry, util::SubscriberInitExt as _};

/// Begins logging at the level that the environment names; a wrong one is reported with the other settings.
pub(crate) fn begin() {
    let get = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let level = log_level(&get).unwrap_or(LevelFilter::INFO);
    let lines =
        fmt::layer().json().flatten_event(true).with_current_span(false).with_span_list(false).with_target(false);
    // Ours only: the Lambda runtime's own lines can quote the event, and with it tokens and bodies.
    registry().with(lines).with(Targets::new().with_target("shared", level)).init();
}

/// Begins at the request's arrival and writes its one line at the end.
pub(crate) struct RequestLog {
    began: Instant,
    request_id: String,
    gateway_request_id: String,
    route: String,
    cold_start: bool,
}

impl RequestLog {
    pub(crate) fn begin(request: &Request, request_id: &str) -> Self {
        static IS_WARM: AtomicBool = AtomicBool::new(false);
        Self {
            began: Instant::now(),
            request_id: request_id.to_owned(),
            gateway_request_id: request.gateway_request_id().to_owned(),
            route: request.route(),
            cold_start: !IS_WARM.swap(true, Ordering::Relaxed),
        }
    }

    /// The one line; `error` is what the request ended with, if not with success.
    pub(crate) fn end(self, response: &Response, error: Option<&Error>) {
        let Self { began, request_id, gateway_request_id, route, cold_start } = self;
        let duration_ms = (began.elapsed().as_micros() as f64) / 1000.0;
        let status = response.status_code;
        match error.and_then(Error::cause) {
            Some(cause) => {
                tracing::error!(
                    request_id,
                    gateway_request_id,
                    route,
                    status,
                    duration_ms,
                    cold_start,
                    cause,
                    "request failed"
                );
            }
            None => tracing::info!(request_id, gateway_request_id, route, status, duration_ms, cold_start, "request"),
        }
    }
}
