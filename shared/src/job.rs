//! What the schedule's event starts.
use crate::{database::Database, metrics::Metrics};
use std::{sync::Arc, time::SystemTime};

/// What a job works with.
pub struct Job {
    pub(crate) database: Database,
    pub(crate) metrics: Arc<Metrics>,
    /// When Lambda ends it.
    pub(crate) deadline: SystemTime,
}
