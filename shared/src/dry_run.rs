//! A function without a database, for tests that run a million events. It is not part of the API: see `testing_support`
//! in lib.rs.
use crate::{
    credential::{Access, SessionRules},
    error::Error,
    http::{request::Request, response::Response},
    jwt::known::KnownKeys,
    metrics::{Metrics, RequestRecord},
    serve::finish_response,
    settings::config::Config,
};
use lambda_runtime::Context;
use std::sync::Arc;

/// Parses, authorises and answers events as [`crate::serve_reads`] and [`crate::serve_writes`] do, up to the first statement.
pub struct DryRun {
    rules: SessionRules,
    metrics: Metrics,
}

impl DryRun {
    /// Creates a function with these settings.
    pub fn new(config: Config) -> Self {
        Self { rules: config.session_rules, metrics: Metrics::from_env() }
    }

    /// Returns the response to an event of a function with this `access`, and its log line. `read` replaces the function's handler: it reads the request
    /// as the handler would, and returns the response.
    ///
    /// # Errors
    /// If the event is not a valid one of API Gateway, which would be a failed invocation.
    pub fn answer(
        &self,
        event: &[u8],
        access: Access,
        read: impl FnOnce(&Request) -> Result<Response, Error>,
    ) -> Result<(Response, String), serde_json::Error> {
        let request = serde_json::from_slice(event)?;
        let context = Context::default();
        let record = RequestRecord::begin(&request, &context, self.metrics.is_cold_start());
        let admission = self.rules.admit(&request, access, self.rules.verify_jwt(&request, &KnownKeys::default()));
        let verdict = admission.and_then(|admission| admission.verdict).and_then(|()| request.check_end_of_path());
        let result = verdict.and_then(|()| read(&request));
        let (response, error) = finish_response(result, request.path(), &context);
        let line = self.metrics.line(&record.end(&response, error, Arc::default()));
        Ok((response, String::from_utf8_lossy(&line.unwrap_or_default()).into_owned()))
    }
}
