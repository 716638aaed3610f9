//! The query of `GET /api/session`, which returns the caller's session.
use crate::{caller::Caller, error::Error, statement::authorised_read, timestamp::Timestamp};
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
