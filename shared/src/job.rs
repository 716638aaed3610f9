//! Jobs that the schedule starts.
use crate::{database::Database, metrics::Metrics};
use std::{sync::Arc, time::SystemTime};

/// What a scheduled job works with. Only [`crate::serve_schedule`] creates one.
pub struct Job {
    pub(crate) database: Database,
    pub(crate) metrics: Arc<Metrics>,
    /// When Lambda ends the invocation.
    pub(crate) deadline: SystemTime,
}
