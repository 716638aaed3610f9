//! A check of the database for the health endpoint.
use crate::{
    database::Database,
    error::Error,
    metrics::Measures,
    settings::{RENEW_AFTER_S, Settings},
    statement::without_caller,
};
use std::sync::Arc;

/// Access to the database without a session: it can only check whether the database answers. Reads no setting and opens no
/// connection before that.
pub struct Probe {
    pub(crate) settings: Arc<Settings>,
    pub(crate) measures: Arc<Measures>,
}

impl Probe {
    /// Runs an empty query in one round trip.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the database does not answer, and [`Error::NoSettings`] if its URL cannot be fetched.
    pub async fn ping(&self) -> Result<(), Error> {
        let snapshot = self.settings.current(RENEW_AFTER_S).await?;
        let database = Database::new(self.settings.clone(), snapshot, self.measures.clone());
        database.run(&without_caller!("select"), &[]).await?;
        Ok(())
    }
}
