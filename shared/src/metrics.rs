//! One line for each request: what the log says of it, and what CloudWatch makes metrics of, in the embedded metric format
//! (docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html).
//!
//! No token, cookie, body or URL is ever in one.
use crate::{
    environment::variable,
    error::{AuthFailure, Error},
    http::{request::Request, response::Response},
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
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

/// What a request's way to the database costs, gathered as it goes.
#[derive(Default)]
pub(crate) struct Measures {
    database_us: AtomicU64,
    connect_us: AtomicU64,
    retries: AtomicU64,
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
}

fn add(sum_us: &AtomicU64, time: Duration) {
    sum_us.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// The time so far, or nothing where nothing was done.
fn sum(sum_us: &AtomicU64) -> Option<AsMilliseconds<Duration>> {
    let us = sum_us.load(Ordering::Relaxed);
    (us > 0).then(|| Duration::from_micros(us).into())
}

/// Writes the lines of this process.
pub(crate) struct Metrics {
    service: String,
    function: String,
    format: Mutex<Emf>,
    /// Whether CloudWatch reads the lines. Elsewhere they are for people, who need no list of metrics in each.
    has_directives: bool,
    is_warm: AtomicBool,
}

impl Metrics {
    /// Named by the environment: `METRICS_NAMESPACE`, without which there are no metrics, and `SERVICE_NAME`, their one
    /// dimension (by default `task-api`).
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

    /// Whether this is asked for the first time: the request that a cold start was for.
    pub(crate) fn is_cold_start(&self) -> bool {
        !self.is_warm.swap(true, Ordering::Relaxed)
    }

    /// Writes a line. One that cannot be written is not worth a request.
    pub(crate) fn write(&self, record: &impl Entry) {
        if let Some(line) = self.line(record) {
            let _ = std::io::stdout().lock().write_all(&line);
        }
    }

    /// A record as a line; none where it cannot be written as one.
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

/// A record with what every line has.
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

/// What is known of a request before it is answered.
pub(crate) struct RequestRecord {
    began: Instant,
    request_id: String,
    gateway_request_id: String,
    trace_id: Option<String>,
    route: String,
    is_cold_start: bool,
}

impl RequestRecord {
    /// Begins at the request's arrival.
    pub(crate) fn begin(request: &Request, context: &Context, is_cold_start: bool) -> Self {
        Self {
            began: Instant::now(),
            request_id: context.request_id.clone(),
            gateway_request_id: request.gateway_request_id().to_owned(),
            trace_id: context.xray_trace_id.as_deref().map(|header| root(header).to_owned()),
            route: request.route(),
            is_cold_start,
        }
    }

    /// The record, once it is answered; `error` is what it ended with, if not with success.
    pub(crate) fn end(self, response: &Response, error: Option<Error>, measures: Arc<Measures>) -> AnsweredRequest {
        let status = u64::try_from(response.status()).unwrap_or_default();
        AnsweredRequest { latency: self.began.elapsed().into(), request: self, status, error, measures }
    }
}

/// The trace's id in Lambda's `Root=1-...;Parent=...;Sampled=1`.
fn root(header: &str) -> &str {
    header.split(';').find_map(|part| part.trim().strip_prefix("Root=")).unwrap_or(header)
}

/// A request and how it ended.
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
        // Only the kind that it was: a metric with no value costs nothing.
        let kind = match error {
            Some(Error::Unauthenticated(AuthFailure::Missing)) => "AuthMissing",
            Some(Error::Unauthenticated(AuthFailure::BadSignature)) => "AuthBadSignature",
            Some(Error::Unauthenticated(AuthFailure::NoSession)) => "AuthNoSession",
            Some(Error::Forbidden(_)) => "AuthForbidden",
            _ => return,
        };
        writer.value(kind, &count(true));
    }
}

/// A process that has started.
pub(crate) struct Started<'r> {
    pub(crate) init_time: Duration,
    /// Of that, reading the settings, with the secret where there is one.
    pub(crate) settings_time: Duration,
    pub(crate) measures: &'r Measures,
}

impl Entry for Started<'_> {
    fn write<'a>(&'a self, writer: &mut impl EntryWriter<'a>) {
        writer.value("level", "INFO");
        writer.value("message", "started");
        writer.value("InitTime", &AsMilliseconds::from(self.init_time));
        writer.value("settings_ms", &NoMetric::from(self.settings_time.as_secs_f64() * 1e3));
        writer.value("ConnectTime", &sum(&self.measures.connect_us));
    }
}
