//! A function without its database, for tests that have a million events. It is no part of the API: see `testing_support` in
//! lib.rs.
use crate::{
    credential::SessionRules,
    error::Error,
    http::{request::Request, response::Response},
    metrics::{Metrics, RequestRecord},
    serve::conclude,
    settings::config::Config,
};
use lambda_runtime::Context;
use std::sync::Arc;

/// Reads, judges and answers what clients and gateways send as [`crate::serve()`] does it, up to the first statement.
pub struct DryRun {
    rules: SessionRules,
    metrics: Metrics,
}

impl DryRun {
    /// A function with these settings.
    pub fn new(config: Config) -> Self {
        Self { rules: config.session_rules, metrics: Metrics::from_env() }
    }

    /// The answer to an event, and its line in the log. `read` reads from the request what the function's handler does, and
    /// answers instead of it.
    ///
    /// # Errors
    /// What is not a valid event of API Gateway: a failed invocation.
    pub fn answer(
        &self,
        event: &[u8],
        read: impl FnOnce(&Request) -> Result<Response, Error>,
    ) -> Result<(Response, String), serde_json::Error> {
        let request = serde_json::from_slice(event)?;
        let context = Context::default();
        let record = RequestRecord::begin(&request, &context, self.metrics.is_cold_start());
        let admission = self.rules.admit(&request);
        let result = admission.and_then(|admission| admission.verdict).and_then(|()| read(&request));
        let (response, error) = conclude(result, request.path(), &context);
        let line = self.metrics.line(&record.end(&response, error, Arc::default()));
        Ok((response, String::from_utf8_lossy(&line.unwrap_or_default()).into_owned()))
    }
}
