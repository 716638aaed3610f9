//! The caller's session: the query of `GET /api/session`.
use crate::{caller::Caller, error::Error, statement::authorised_read, timestamp::Timestamp};
use serde::Serialize;

/// Who the caller is, and until when.
#[derive(Debug, Serialize)]
pub struct Session {
    /// The user's id.
    pub user_id: String,
    /// When the session ends; asking here does not extend it.
    pub expires_at: Timestamp,
}

/// The caller's own session.
///
/// # Errors
/// [`Error::Unauthenticated`] without a live session.
pub async fn current(caller: &Caller) -> Result<Session, Error> {
    let sql = authorised_read!("s.user_id::text, s.expires_at", "");
    let row = caller.query_one(sql, &[]).await?;
    Ok(Session { user_id: row.try_get("user_id")?, expires_at: row.try_get("expires_at")? })
}
