//! The person asking: whoever has one can ask the database, and only as this person.
use crate::{
    credential::SessionToken,
    database::Database,
    error::{AuthFailure, Error},
    statement::{Parameters, Statement, authorised_read},
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tokio_postgres::{
    Row,
    types::{ToSql, Type},
};

/// The person asking. Only [`crate::serve()`] makes one, and every statement proves the session as it runs.
#[derive(Clone)]
pub struct Caller {
    database: Database,
    token: SessionToken,
    /// The user whom the path names, in `/api/{user_id}/tasks`.
    path_user_id: Option<String>,
    has_asked: Arc<AtomicBool>,
}

impl Caller {
    pub(crate) fn new(database: Database, token: SessionToken, path_user_id: Option<String>) -> Self {
        // PostgreSQL takes no U+0000, so no user's id has one; replaced, it is still nobody's.
        let path_user_id = path_user_id.map(|id| id.replace('\0', "\u{FFFD}"));
        Self { database, token, path_user_id, has_asked: Arc::default() }
    }

    /// The path's user, when it names one: the caller, or else no statement succeeds.
    pub fn path_user_id(&self) -> Option<&str> {
        self.path_user_id.as_deref()
    }

    /// Runs a statement as this caller and gives its rows, of which there is at least one.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] without a live session, [`Error::Forbidden`] when the path names another user, and what
    /// the database says.
    pub(crate) async fn query(&self, statement: Statement, parameters: Parameters<'_>) -> Result<Vec<Row>, Error> {
        self.has_asked.store(true, Ordering::Relaxed);
        let token = self.token.secret();
        let mut all: Vec<(&(dyn ToSql + Sync), Type)> = Vec::with_capacity(2 + parameters.len());
        all.push((&token, Type::TEXT));
        all.push((&self.path_user_id, Type::TEXT));
        all.extend_from_slice(parameters);

        let rows = self.database.run(&statement, &all).await?;
        let first = rows.first().ok_or(Error::Unauthenticated(AuthFailure::NoSession))?;
        if first.try_get("mine")? { Ok(rows) } else { Err(Error::Forbidden("The path names another user.")) }
    }

    /// Like [`Caller::query`], for statements that return one row.
    pub(crate) async fn query_one(&self, statement: Statement, parameters: Parameters<'_>) -> Result<Row, Error> {
        self.query(statement, parameters)
            .await?
            .into_iter()
            .next()
            .ok_or(Error::Unauthenticated(AuthFailure::NoSession))
    }

    /// Makes sure that the session has been proven before a request that asked the database nothing is answered: a wrong
    /// title is nobody's business without a session.
    pub(crate) async fn prove(&self) -> Result<(), Error> {
        if self.has_asked.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.query(authorised_read!("1", ""), &[]).await.map(drop)
    }
}
