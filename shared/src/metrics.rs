//! One line for each request. It is both the log entry and the source of CloudWatch's metrics, in the embedded metric
//! format
//! (docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html).
//!
//! No line contains a token, cookie, body or URL.
use crate::{
    environment::variable,
    error::{AuthFailure, Error, Limit},
    http::{request::Request, response::Response},
    jwt::failure::JwtFailure,
};
use lambda_runtime::Context;
use metrique_writer::{
    Entry, EntryWriter,
    format::Format as _,
    unit::{AsCount, AsMilliseconds},
};
use metrique_writer_format_emf::{Emf, NoMetric};
use serde_json::{Map, Value};
use std::{
    io::Write as _,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

/// What is learned about a request as it runs: the time and retries that it spends on the database, who the caller is, and
/// the task.
#[derive(Default)]
pub(crate) struct Measures {
    database_us: AtomicU64,
    connect_us: AtomicU64,
    retries: AtomicU64,
    user_id: OnceLock<String>,
    task_id: OnceLock<u32>,
}

impl Measures {
    pub(crate) fn add_database_time(&self, time: Duration) {
        add(&self.database_us, time);
    }

    pub(crate) fn add_connect_time(&self, time: Duration) {
        add(&self.connect_us, time);
    }

    pub(crate) fn count_retry(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// Sets the caller's id. The first call counts.
    pub(crate) fn set_user_id(&self, id: &str) {
        self.user_id.get_or_init(|| id.to_owned());
    }

    /// Sets the id of the task that the request is about. The first call counts.
    pub(crate) fn set_task_id(&self, id: i32) {
        self.task_id.get_or_init(|| id.unsigned_abs());
    }
}

fn add(sum_us: &AtomicU64, time: Duration) {
    sum_us.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// Returns the total, or `None` if there was nothing to measure.
fn sum(sum_us: &AtomicU64) -> Option<AsMilliseconds<Duration>> {
    let us = sum_us.load(Ordering::Relaxed);
    (us > 0).then(|| Duration::from_micros(us).into())
}

/// Writes the lines of this process.
pub(crate) struct Metrics {
    service: String,
    function: String,
    format: Mutex<Emf>,
    /// Whether lines carry metric definitions for CloudWatch. Without metrics, the lines are for people, who do not
    /// need the definitions.
    has_directives: bool,
    is_warm: AtomicBool,
}

impl Metrics {
    /// Configures itself from the environment: `METRICS_NAMESPACE`, without which there are no metrics, and
    /// `SERVICE_NAME`, the only dimension (default `task-api`).
    pub(crate) fn from_env() -> Self {
        let namespace = variable("METRICS_NAMESPACE");
        Self {
            service: variable("SERVICE_NAME").unwrap_or_else(|| "task-api".to_owned()),
            function: variable("AWS_LAMBDA_FUNCTION_NAME").unwrap_or_default(),
            has_directives: namespace.is_some(),
            format: Mutex::new(Emf::no_validations(namespace.unwrap_or_default(), vec![vec!["Service".to_owned()]])),
            is_warm: AtomicBool::default(),
        }
    }

    /// Returns true on the first call only: for the request that caused the cold start.
    pub(crate) fn is_cold_start(&self) -> bool {
        !self.is_warm.swap(true, Ordering::Relaxed)
    }

    /// Writes a line. A failure is ignored: it must not fail a request.
    pub(crate) fn write(&self, record: &impl Entry) {
        if let Some(line) = self.line(record) {
            let _ = std::io::stdout().lock().write_all(&line);
        }
    }

    /// Formats a record as a line. Returns `None` if that fails.
    pub(crate) fn line(&self, record: &impl Entry) -> Option<Vec<u8>> {
        let mut line = Vec::with_capacity(1024);
        let entry = Line { metrics: self, record };
        let formatted = self.format.lock().unwrap_or_else(PoisonError::into_inner).format(&entry, &mut line);
        if !self.has_directives
            && let Ok(mut fields) = serde_json::from_slice::<Map<String, Value>>(&line)
        {
            fields.remove("_aws");
            line = format!("{}\n", Value::from(fields)).into_bytes();
        }
        formatted.ok().map(|()| line)
    }
}

/// A record with the fields that every line has.
struct Line<'m, R> {
    metrics: &'m Metrics,
    record: &'m R,
}

impl<R: Entry> Entry for Line<'_, R> {
    fn write<'a>(&'a self, writer: &mut impl EntryWriter<'a>) {
        writer.timestamp(SystemTime::now());
        writer.value("Service", self.metrics.service.as_str());
        writer.value("function", self.metrics.function.as_str());
        self.record.write(writer);
    }
}

/// What is known about a request before it is answered.
pub(crate) struct RequestRecord {
    began: Instant,
    request_id: String,
    gateway_request_id: String,
    trace_id: Option<String>,
    route: String,
    is_cold_start: bool,
}

impl RequestRecord {
    /// Starts a record when the request arrives.
    pub(crate) fn begin(request: &Request, context: &Context, is_cold_start: bool) -> Self {
        Self {
            began: Instant::now(),
            request_id: context.request_id.clone(),
            gateway_request_id: request.gateway_request_id().to_owned(),
            trace_id: context.xray_trace_id.as_deref().map(|header| trace_root(header).to_owned()),
            route: request.route(),
            is_cold_start,
        }
    }

    /// Completes the record with the response; `error` is set if the request failed.
    pub(crate) fn end(self, response: &Response, error: Option<Error>, measures: Arc<Measures>) -> AnsweredRequest {
        let status = u64::try_from(response.status()).unwrap_or_default();
        AnsweredRequest { latency: self.began.elapsed().into(), request: self, status, error, measures }
    }
}

/// Extracts the trace id from Lambda's `Root=1-...;Parent=...;Sampled=1`.
fn trace_root(header: &str) -> &str {
    header.split(';').find_map(|part| part.trim().strip_prefix("Root=")).unwrap_or(header)
}

/// A request and its outcome.
pub(crate) struct AnsweredRequest {
    request: RequestRecord,
    latency: AsMilliseconds<Duration>,
    status: u64,
    error: Option<Error>,
    measures: Arc<Measures>,
}

impl Entry for AnsweredRequest {
    fn write<'a>(&'a self, writer: &mut impl EntryWriter<'a>) {
        let Self { request, latency, status, error, measures } = self;
        let cause = error.as_ref().and_then(Error::cause);
        writer.value("level", if cause.is_some() { "ERROR" } else { "INFO" });
        writer.value("message", if cause.is_some() { "request failed" } else { "request" });
        writer.value("request_id", request.request_id.as_str());
        writer.value("gateway_request_id", request.gateway_request_id.as_str());
        writer.value("trace_id", &request.trace_id);
        writer.value("route", request.route.as_str());
        writer.value("status", &NoMetric::from(*status));
        writer.value("cause", &cause);
        let auth_failure = error.as_ref().and_then(Error::auth_failure);
        writer.value("auth_failure", &auth_failure.map(AuthFailure::name));
        let security_event = error.as_ref().and_then(Error::security_event);
        writer.value("security", &security_event);
        writer.value("user_id", &measures.user_id.get().map(String::as_str));
        writer.value("task_id", &measures.task_id.get().map(|id| NoMetric::from(*id)));

        let count = |is_so: bool| AsCount::from(u64::from(is_so));
        writer.value("Requests", &count(true));
        writer.value("Latency", latency);
        writer.value("ColdStart", &count(request.is_cold_start));
        writer.value("DatabaseTime", &sum(&measures.database_us));
        writer.value("ConnectTime", &sum(&measures.connect_us));
        writer.value("Retries", &AsCount::from(measures.retries.load(Ordering::Relaxed)));
        writer.value("DatabaseFailures", &count(matches!(error, Some(Error::Unavailable(_)))));
        writer.value("Faults", &count((500..600).contains(status)));
        writer.value("ClientErrors", &count((400..500).contains(status)));
        // Only what occurred: a metric without a value costs nothing.
        if security_event.is_some() {
            writer.value("Refusals", &count(true));
        }
        let kind = match error {
            Some(Error::Unauthenticated(AuthFailure::Missing)) => "AuthMissing",
            Some(Error::Unauthenticated(AuthFailure::BadSignature)) => "AuthBadSignature",
            Some(Error::Unauthenticated(AuthFailure::NoSession | AuthFailure::Jwt(JwtFailure::NoSession))) => {
                "AuthNoSession"
            }
            Some(Error::Unauthenticated(AuthFailure::Jwt(_))) => "AuthBadJwt",
            Some(Error::Forbidden(_)) => "AuthForbidden",
            Some(Error::LimitReached(Limit::Tasks(_))) => "LimitTasks",
            Some(Error::LimitReached(Limit::Keys(_))) => "LimitKeys",
            Some(Error::LimitReached(Limit::Searches)) => "LimitSearches",
            _ => return,
        };
        writer.value(kind, &count(true));
    }
}

/// The record of a process that has started.
pub(crate) struct Started<'r> {
    pub(crate) init_time: Duration,
    /// The part of it spent on reading the settings, including the secret if there is one.
    pub(crate) settings_time: Duration,
    pub(crate) measures: &'r Measures,
    /// Whether the index is missing by which sessions are found.
    pub(crate) lacks_session_index: bool,
}

impl Entry for Started<'_> {
    fn write<'a>(&'a self, writer: &mut impl EntryWriter<'a>) {
        writer.value("level", "INFO");
        writer.value("message", "started");
        writer.value("InitTime", &AsMilliseconds::from(self.init_time));
        writer.value("settings_ms", &NoMetric::from(self.settings_time.as_secs_f64() * 1e3));
        writer.value("ConnectTime", &sum(&self.measures.connect_us));
        if self.lacks_session_index {
            writer.value("SessionIndexMissing", &AsCount::from(1_u64));
        }
    }
}
