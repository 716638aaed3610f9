//! Whether the database answers.
use crate::{database::Database, error::Error, statement::without_caller};

/// What may be run without a session: whether the database answers.
pub struct Probe(pub(crate) Database);

impl Probe {
    /// Asks the database for nothing, in one round trip.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it does not answer.
    pub async fn ping(&self) -> Result<(), Error> {
        self.0.run(&without_caller!("select"), &[]).await.map(drop)
    }
}
