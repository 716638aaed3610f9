//! A task, as the database stores it and the API returns it.
use crate::{error::Error, http::request::Request, timestamp::Timestamp};
use serde::Serialize;
use std::fmt;
use tokio_postgres::{Row, types::FromSql};

/// No task has this id, or it belongs to another user.
pub(crate) const NO_SUCH_TASK: Error = Error::NotFound("task");

/// The task has changed since the client read it.
pub(crate) const TASK_HAS_CHANGED: Error = Error::PreconditionFailed("task");

/// A task as the API returns it. Strings are owned (`Task<String>`) or borrowed from the row (`Task<&str>`).
#[derive(Debug, Serialize)]
pub struct Task<Text = String> {
    /// The id, unique across all users.
    pub id: i32,
    /// The id of the user who owns it.
    pub user_id: Text,
    /// The title, 1 to 200 characters.
    pub title: Text,
    /// An optional longer text, up to 10,000 characters.
    pub description: Option<Text>,
    /// Whether the task is done.
    pub completed: bool,
    /// The time of creation.
    pub created_at: Timestamp,
    /// The time of the last change. It grows with every change.
    pub updated_at: Timestamp,
}

/// The columns that a task is read from: `columns!()` those of the table, `columns!("t")` those of the alias `t`, for a
/// result row, which has the user's id from the caller.
macro_rules! columns {
    () => {
        "id, user_id, title, description, completed, created_at, updated_at"
    };
    ($of:literal) => {
        concat!(
            $of,
            ".id, ",
            $of,
            ".title, ",
            $of,
            ".description, ",
            $of,
            ".completed, ",
            $of,
            ".created_at, ",
            $of,
            ".updated_at"
        )
    };
}
pub(crate) use columns;

impl<'r, Text: FromSql<'r>> Task<Text> {
    /// Returns `None` for a row without a task, which only shows that the caller is signed in.
    pub(crate) fn from_row(row: &'r Row) -> Result<Option<Self>, Error> {
        let Some(id) = row.try_get("id")? else { return Ok(None) };
        Ok(Some(Self {
            id,
            user_id: row.try_get("user_id")?,
            title: row.try_get("title")?,
            description: row.try_get("description")?,
            completed: row.try_get("completed")?,
            created_at: row.try_get("created_at")?,
            updated_at: row.try_get("updated_at")?,
        }))
    }
}

impl<Text> Task<Text> {
    /// A strong entity tag (RFC 9110, section 8.8.3): it is different after every change.
    pub(crate) fn etag(&self) -> EntityTag {
        EntityTag(self.updated_at.0.and_utc().timestamp_micros())
    }
}

/// A task's entity tag: its `updated_at` in microseconds since 1970, as hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EntityTag(pub(crate) i64);

impl EntityTag {
    /// Parses a tag in its wire form, `"..."`. Returns `None` for text that cannot be a task's tag.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('"')?.strip_suffix('"')?;
        // Only the exact text that we send is accepted: a tag is opaque, not a number.
        i64::from_str_radix(digits, 16).ok().map(Self).filter(|tag| tag.to_string() == text)
    }
}

impl fmt::Display for EntityTag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "\"{:x}\"", self.0)
    }
}

/// The id of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskId(pub(crate) i32);

impl TaskId {
    /// Reads `{id}` from the path.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it is not a valid task id.
    pub fn from_request(request: &Request) -> Result<Self, Error> {
        request.path_parameter("id").and_then(|id| Self::parse(&id)).ok_or(NO_SUCH_TASK)
    }

    fn parse(text: &str) -> Option<Self> {
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| is_number).map(Self)
    }
}
