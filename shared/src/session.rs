//! Sessions in the database: how they are found there, and the query of `GET /api/session`.
use crate::{
    caller::Caller,
    database::{Database, Failure},
    error::Error,
    statement::{authorised_read, without_caller},
    timestamp::Timestamp,
};
use serde::Serialize;

/// The user that a session belongs to, and its end.
#[derive(Debug, Serialize)]
pub struct Session {
    /// The user's id.
    pub user_id: String,
    /// When the session expires. This query does not extend it.
    pub expires_at: Timestamp,
}

/// Returns the caller's session.
///
/// # Errors
/// [`Error::Unauthenticated`] without a live session.
pub async fn current(caller: &Caller) -> Result<Session, Error> {
    let sql = authorised_read!("s.user_id::text, s.expires_at", "");
    let row = caller.query_one(sql, &[]).await?;
    Ok(Session { user_id: row.try_get("user_id")?, expires_at: row.try_get("expires_at")? })
}

/// Finds out how the database looks sessions up (migration 0014, `session_lookup()`), and logs what its operator has to mend.
/// Returns whether the index is missing by which it finds them: each call then reads all sessions. Somebody dropped it, as
/// `drizzle-kit push` does.
///
/// # Errors
/// Errors of the database. A function works without this: its first call finds out by itself.
pub(crate) async fn prepare_lookup(database: &Database) -> Result<bool, Error> {
    let lookup = without_caller!("select public.session_lookup()").never_prepared();
    let rows = match database.run(&lookup, &[]).await {
        Err(Failure::UndefinedFunction(_)) => {
            database.look_up_tokens();
            return Ok(false);
        }
        rows => rows?,
    };
    let lookup = rows.first().map_or(Ok("hash"), |row| row.try_get(0))?;
    match lookup {
        "token" => database.look_up_tokens(),
        "none" => {
            tracing::warn!("Better Auth has no tables yet, so nobody is signed in: migrate it, then run 'migrate up'")
        }
        "missing index" => {
            tracing::error!(
                "the index session_token_hash is missing, so each call reads all sessions: run 'migrate up'"
            )
        }
        _ => {}
    }
    Ok(lookup == "missing index")
}
