//! The caller: the user whose session a request carries. Only code that has a caller can query that user's data.
use crate::{
    credential::{Access, Identity},
    database::{Database, Failure},
    error::{AuthFailure, Error},
    jwt::failure::JwtFailure,
    statement::{DIGEST_TYPE, JWT_TYPE, PATH_TYPE, Statement, Values, authorised_read},
    timestamp::Timestamp,
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tokio_postgres::{
    Row,
    types::{ToSql, Type},
};

/// The user whose session a request carries. Only [`crate::serve_reads`] and [`crate::serve_writes`] create
/// one, and every statement checks the session as it runs.
#[derive(Clone)]
pub struct Caller {
    database: Database,
    identity: Identity,
    access: Access,
    /// The user id in the path, in `/api/{user_id}/tasks`.
    path_user_id: Option<String>,
    has_queried: Arc<AtomicBool>,
}

impl Caller {
    pub(crate) fn new(database: Database, identity: Identity, access: Access, path_user_id: Option<String>) -> Self {
        // PostgreSQL's text cannot contain U+0000, so no user id does. The replacement keeps it an id that nobody has.
        let path_user_id = path_user_id.map(|id| id.replace('\0', "\u{FFFD}"));
        Self { database, identity, access, path_user_id, has_queried: Arc::default() }
    }

    /// The user id in the path, if it has one. Unless it is the caller's own, every statement fails.
    pub fn path_user_id(&self) -> Option<&str> {
        self.path_user_id.as_deref()
    }

    /// When the JWT expires, if the caller sent one.
    pub(crate) fn jwt_expires_at(&self) -> Option<Timestamp> {
        match &self.identity {
            Identity::Session(_) => None,
            Identity::Jwt(jwt) => Timestamp::from_unix_seconds(jwt.expires_at),
        }
    }

    /// The error if the database does not find the caller.
    fn unknown(&self) -> Error {
        Error::Unauthenticated(match &self.identity {
            Identity::Session(_) => AuthFailure::NoSession,
            Identity::Jwt(_) => AuthFailure::Jwt(JwtFailure::NoSession),
        })
    }

    /// Names the task that the request is about, for its line in the log.
    pub(crate) fn log_task(&self, id: i32) {
        self.database.measures().set_task_id(id);
    }

    /// How many tasks the caller may have.
    pub(crate) fn max_tasks(&self) -> i64 {
        self.database.max_tasks_per_user()
    }

    /// Runs a statement as this caller and returns its rows. There is at least one.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] without a live session, [`Error::Forbidden`] if the path names another user, [`Error::Internal`] if the
    /// statement writes in a function of [`crate::serve_reads`], and errors of the database.
    pub(crate) async fn query(&self, statement: Statement, values: Values<'_>) -> Result<Vec<Row>, Error> {
        if statement.is_write() && self.access == Access::Read {
            return Err(Error::Internal("a function that serves reads writes: it has to use serve_writes".to_owned()));
        }
        self.has_queried.store(true, Ordering::Relaxed);
        let rows = self.find_and_run(statement, values).await?;
        let first = rows.first().ok_or_else(|| self.unknown())?;
        self.database.measures().set_user_id(first.try_get("user_id")?);
        if first.try_get("mine")? { Ok(rows) } else { Err(Error::Forbidden(self.why_not_mine())) }
    }

    /// Why the path is not the caller's. `/api/v1/tasks` has the form of `/api/{user_id}/tasks`, so its client needs
    /// another hint.
    fn why_not_mine(&self) -> &'static str {
        match &self.path_user_id {
            Some(id) if is_version(id) => {
                "The path names another user, because there is no version in the paths: use /api/tasks."
            }
            _ => "The path names another user.",
        }
    }

    /// Runs a statement with what the database finds the caller by: the token's digest or, where it cannot look that up, the
    /// token. Of a JWT, which the function has verified, its user and time.
    async fn find_and_run(&self, statement: Statement, values: Values<'_>) -> Result<Vec<Row>, Error> {
        let token = match &self.identity {
            Identity::Session(token) => token,
            Identity::Jwt(jwt) => return Ok(self.run(statement, (&jwt.claims, JWT_TYPE), values).await?),
        };
        if !self.database.looks_up_tokens() {
            let digest: &[u8] = &token.digest();
            match self.run(statement, (&digest, DIGEST_TYPE), values).await {
                // Nothing has run: the server did not find caller(bytea) while it parsed the statement.
                Err(Failure::UndefinedFunction(_)) => self.database.look_up_tokens(),
                result => return Ok(result?),
            }
        }
        let token = token.secret();
        Ok(self.run(statement, (&token, Type::TEXT), values).await?)
    }

    async fn run(
        &self,
        statement: Statement,
        session: (&(dyn ToSql + Sync), Type),
        values: Values<'_>,
    ) -> Result<Vec<Row>, Failure> {
        if values.len() != statement.types().len() {
            return Err(Error::Internal("a statement has other parameters than its types say".to_owned()).into());
        }
        let mut all = Vec::with_capacity(2 + values.len());
        all.push(session);
        all.push((&self.path_user_id as &(dyn ToSql + Sync), PATH_TYPE));
        all.extend(values.iter().copied().zip(statement.types().iter().cloned()));
        self.database.run(&statement, &all).await
    }

    /// Like [`Caller::query`], for a statement that returns one row.
    pub(crate) async fn query_one(&self, statement: Statement, values: Values<'_>) -> Result<Row, Error> {
        self.query(statement, values).await?.into_iter().next().ok_or_else(|| self.unknown())
    }

    /// Checks the session if the request has not queried the database yet, so that an error such as an invalid title is
    /// not reported to someone without a session.
    pub(crate) async fn prove(&self) -> Result<(), Error> {
        if self.has_queried.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.query(authorised_read!("1", ""), &[]).await.map(drop)
    }
}

/// Whether a segment of a path looks like the version of an API, such as `v1`.
fn is_version(segment: &str) -> bool {
    let digits = segment.strip_prefix(['v', 'V']).unwrap_or_default();
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}
