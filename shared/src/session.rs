//! Sessions in the database: how they are found there, the keys of JWTs, and the query of `GET /api/session`.
use crate::{
    caller::Caller,
    database::{Database, Failure},
    error::Error,
    jwt::key::Keys,
    statement::{Statement, authorised_read, without_caller},
    timestamp::Timestamp,
};
use serde::Serialize;
use tokio_postgres::Row;

/// The user that a session belongs to, and its end.
#[derive(Debug, Serialize)]
pub struct Session {
    /// The user's id.
    pub user_id: String,
    /// When the session expires or, if it comes first, the JWT. This query does not extend either.
    pub expires_at: Timestamp,
}

const CURRENT_SESSION: Statement = authorised_read!("s.expires_at", "");

/// The statement of [`current`].
pub const CURRENT: &[Statement] = &[CURRENT_SESSION];

/// Returns the caller's session.
///
/// # Errors
/// [`Error::Unauthenticated`] without a live session.
pub async fn current(caller: &Caller) -> Result<Session, Error> {
    let row = caller.query_one(CURRENT_SESSION, &[]).await?;
    let ends = [row.try_get("expires_at")?, caller.jwt_expires_at()];
    let expires_at = ends.into_iter().flatten().min();
    let expires_at = expires_at.ok_or_else(|| Error::Internal("the session has no end".to_owned()))?;
    Ok(Session { user_id: row.try_get("user_id")?, expires_at })
}

/// Finds out how the database looks sessions up (migration 0014, `session_lookup()`), and logs what its operator has to mend.
/// If JWTs are accepted, the same statement loads their keys.
/// Returns whether the index is missing by which it finds sessions: each call then reads all of them. Somebody dropped it, as
/// `drizzle-kit push` does.
///
/// # Errors
/// Errors of the database. A function works without this: its first call finds out by itself.
pub(crate) async fn prepare_lookup(database: &Database, accepts_jwts: bool) -> Result<bool, Error> {
    let with_keys = without_caller!(
        "select lookup, keys.* from (select public.session_lookup() as lookup) sessions left join public.jwt_keys() keys on true"
    );
    let alone = without_caller!("select public.session_lookup() as lookup");
    // Schemas from before migration 0015 have no keys, and those from before 0014 nothing to ask.
    for (statement, has_keys) in [(with_keys, true), (alone, false)] {
        if has_keys && !accepts_jwts {
            continue;
        }
        let rows = match database.run(&statement, &[]).await {
            Err(Failure::UndefinedFunction(_)) => continue,
            rows => rows?,
        };
        if has_keys {
            database.jwt_keys().replace(keys(&rows)?);
        }
        let lookup = rows.first().map_or(Ok("hash"), |row| row.try_get("lookup"))?;
        match lookup {
            "token" => database.look_up_tokens(),
            "none" => {
                tracing::warn!(
                    "Better Auth has no tables yet, so nobody is signed in: migrate it, then run 'migrate up'"
                )
            }
            "missing index" => {
                tracing::error!(
                    "the index session_token_hash is missing, so each call reads all sessions: run 'migrate up'"
                )
            }
            _ => {}
        }
        return Ok(lookup == "missing index");
    }
    database.look_up_tokens();
    Ok(false)
}

/// Loads the keys of JWTs. Never prepared, as all statements without a caller: who has the API's password could otherwise
/// answer with keys of their own.
///
/// # Errors
/// Errors of the database. A schema from before migration 0015 has no keys.
pub(crate) async fn load_jwt_keys(database: &Database) -> Result<(), Error> {
    let load = without_caller!("select * from public.jwt_keys()");
    let rows = match database.run(&load, &[]).await {
        Err(Failure::UndefinedFunction(_)) => Vec::new(),
        rows => rows?,
    };
    database.jwt_keys().replace(keys(&rows)?);
    Ok(())
}

/// Reads the columns of `jwt_keys()`, which are null where there is no key.
fn keys(rows: &[Row]) -> Result<Keys, Error> {
    let mut keys = Vec::with_capacity(rows.len());
    for row in rows {
        if let (Some(id), Some(public_key)) = (row.try_get("id")?, row.try_get("public_key")?) {
            keys.push((id, public_key, row.try_get("algorithm")?, row.try_get("expires_at")?));
        }
    }
    Ok(Keys::from_rows(keys))
}
