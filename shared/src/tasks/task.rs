//! A task, as the database has it and as the API shows it.
use crate::{error::Error, http::request::Request, timestamp::Timestamp};
use serde::Serialize;
use std::fmt;
use tokio_postgres::{Row, types::FromSql};

/// There is no task with this id, or it is someone else's.
pub(crate) const NO_SUCH_TASK: Error = Error::NotFound("task");

/// The task has been changed since the client saw it.
pub(crate) const TASK_HAS_CHANGED: Error = Error::PreconditionFailed("task");

/// A task as the API shows it. Strings are owned (`Task<String>`) or borrowed from the row (`Task<&str>`).
#[derive(Debug, Serialize)]
pub struct Task<Text = String> {
    /// The number, unique over all users.
    pub id: i32,
    /// The owner.
    pub user_id: Text,
    /// What is to be done.
    pub title: Text,
    /// More about it.
    pub description: Option<Text>,
    /// Whether it is done.
    pub completed: bool,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed; grows with every change.
    pub updated_at: Timestamp,
}

/// The columns that a task is read from: those of the table, or `columns!("t")` those of `t` for an answer.
macro_rules! columns {
    () => {
        "id, user_id, title, description, completed, created_at, updated_at"
    };
    ($of:literal) => {
        concat!(
            $of,
            ".id, ",
            $of,
            ".user_id::text, ",
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
    /// `None` for the row that only says that the caller is signed in.
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
    /// A strong entity tag (RFC 9110, section 8.8.3): it changes with every change of the task.
    pub(crate) fn etag(&self) -> EntityTag {
        EntityTag(self.updated_at.0.and_utc().timestamp_micros())
    }
}

/// A task's entity tag: the microseconds of its `updated_at`, in hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EntityTag(pub(crate) i64);

impl EntityTag {
    /// Reads one as it is written, `"..."`; `None` for what no task can have for a tag.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('"')?.strip_suffix('"')?;
        // As it is written, and in no other way: a tag is opaque, and no number.
        i64::from_str_radix(digits, 16).ok().map(Self).filter(|tag| tag.to_string() == text)
    }
}

impl fmt::Display for EntityTag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "\"{:x}\"", self.0)
    }
}

/// A task's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskId(pub(crate) i32);

impl TaskId {
    /// Reads the path's `{id}`.
    ///
    /// # Errors
    /// [`Error::NotFound`] for what is not a valid id of a task.
    pub fn from_request(request: &Request) -> Result<Self, Error> {
        request.path_parameter("id").and_then(|id| Self::parse(&id)).ok_or(NO_SUCH_TASK)
    }

    fn parse(text: &str) -> Option<Self> {
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| is_number).map(Self)
    }
}
