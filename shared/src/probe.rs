//! A check of the database for the health endpoint.
use crate::{database::Database, error::Error, statement::without_caller};

/// Access to the database without a session: it can only check whether the database answers.
pub struct Probe(pub(crate) Database);

impl Probe {
    /// Runs an empty query in one round trip.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the database does not answer.
    pub async fn ping(&self) -> Result<(), Error> {
        self.0.run(&without_caller!("select"), &[]).await?;
        Ok(())
    }
}
