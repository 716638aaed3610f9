//! Listing in pages: what a page is asked for with, where it ends, and the cursor to the next.
use crate::{Error, FieldError, Request, tasks::Task};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Datelike as _, NaiveDateTime};

/// The most tasks on a page, and how many there are when nothing is said.
const MAX_LIMIT: i64 = 1000;

/// How many bytes the body of a page may take in Lambda's answer: JSON as a string within JSON, where a quote costs four.
///
/// Lambda's limit is 6,291,556 bytes for the whole answer; what is left over is for the headers.
pub(crate) const MAX_PAGE_BYTES: i64 = 6_200_000;

/// The only order there is, as cursors name it.
const SORT: &str = "-created_at";

/// Which tasks are listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Status {
    /// All of them.
    #[default]
    All,
    /// Those that are not completed.
    Pending,
    /// Those that are.
    Completed,
}

impl Status {
    fn parse(text: &str) -> Option<Self> {
        [Self::All, Self::Pending, Self::Completed].into_iter().find(|status| status.name() == text)
    }

    fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Pending => "pending",
            Self::Completed => "completed",
        }
    }

    /// The value that `completed` has in a listed task, or `None` for either.
    pub(crate) fn completed(self) -> Option<bool> {
        match self {
            Self::All => None,
            Self::Pending => Some(false),
            Self::Completed => Some(true),
        }
    }
}

/// What a page is asked for with.
#[derive(Debug, Default)]
pub struct ListQuery {
    status: Status,
    limit: Option<i64>,
    cursor: Option<Cursor>,
}

impl ListQuery {
    /// Reads `status`, `limit` and `cursor`; parameters that we do not know are ignored.
    ///
    /// # Errors
    /// [`Error::Invalid`] names each parameter with a value that it cannot have.
    pub fn parse(request: &Request) -> Result<Self, Error> {
        let mut query = Self::default();
        let mut errors = Vec::new();
        let mut wrong = |field: &str, message: String| errors.push(FieldError { field: field.to_owned(), message });
        for (name, value) in request.query() {
            match &*name {
                "status" => match Status::parse(&value) {
                    Some(status) => query.status = status,
                    None => wrong("status", "must be one of all, pending, completed".to_owned()),
                },
                "limit" => match value.parse() {
                    Ok(limit @ 1..=MAX_LIMIT) => query.limit = Some(limit),
                    _ => wrong("limit", format!("must be a whole number from 1 to {MAX_LIMIT}")),
                },
                "cursor" => match Cursor::decode(&value) {
                    Some(cursor) => query.cursor = Some(cursor),
                    None => wrong("cursor", "is not one that this API has made".to_owned()),
                },
                _ => {}
            }
        }
        if query.cursor.as_ref().is_some_and(|cursor| cursor.status != query.status) {
            wrong("cursor", "belongs to a list with another status".to_owned());
        }
        if errors.is_empty() { Ok(query) } else { Err(Error::Invalid(errors)) }
    }

    pub(crate) fn status(&self) -> Status {
        self.status
    }

    pub(crate) fn limit(&self) -> i64 {
        self.limit.unwrap_or(MAX_LIMIT)
    }

    /// The `created_at` and `id` of the last task of the page before.
    pub(crate) fn after(&self) -> Option<(NaiveDateTime, i32)> {
        self.cursor.as_ref().map(|cursor| (cursor.created_at, cursor.id))
    }

    /// The query string that asks for the page after this one.
    fn next(&self, cursor: &Cursor) -> String {
        let mut next = String::new();
        if self.status != Status::All {
            next = format!("status={}&", self.status.name());
        }
        if let Some(limit) = self.limit {
            next += &format!("limit={limit}&");
        }
        next + "cursor=" + &cursor.encode()
    }
}

/// A keyset cursor: the place in the order after which a page begins. It is bound to its order and filter.
#[derive(Debug)]
struct Cursor {
    status: Status,
    created_at: NaiveDateTime,
    id: i32,
}

impl Cursor {
    fn encode(&self) -> String {
        let micros = self.created_at.and_utc().timestamp_micros();
        URL_SAFE_NO_PAD.encode(format!("{SORT} {} {micros} {}", self.status.name(), self.id))
    }

    fn decode(text: &str) -> Option<Self> {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let mut parts = text.split(' ');
        let (sort, status, micros, id) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if sort != SORT || parts.next().is_some() {
            return None;
        }
        let created_at = DateTime::from_timestamp_micros(micros.parse().ok()?)?.naive_utc();
        // PostgreSQL's timestamp begins in 4713 BC (its documentation, table 8.9), later than chrono's calendar.
        if created_at.year() < -4711 {
            return None;
        }
        Some(Self { status: Status::parse(status)?, created_at, id: id.parse().ok()? })
    }
}

/// A page of tasks, as the JSON that is answered, and how to ask for the next.
#[derive(Debug)]
pub struct Page {
    pub(crate) json: String,
    /// The next page's query string, when there are more tasks.
    pub(crate) next: Option<String>,
}

impl Page {
    /// Cuts what the database gave to what was asked for and fits: `tasks` has one more than the limit where there are
    /// more, and fewer where those that follow would be too large for one answer.
    pub(crate) fn new(tasks: Vec<Task>, query: &ListQuery) -> Result<Self, Error> {
        let mut json = String::from("[");
        let mut encoded_bytes = 2;
        let mut last: Option<&Task> = None;
        let mut has_more = false;
        for (index, task) in (0..).zip(&tasks) {
            let text = serde_json::to_string(task).map_err(|error| Error::Internal(error.to_string()))?;
            // Within a JSON string, each quote and backslash of the inner JSON costs one byte more.
            encoded_bytes += 1 + text.len() + text.bytes().filter(|byte| matches!(byte, b'"' | b'\\')).count();
            if index == query.limit() || (encoded_bytes as i64 > MAX_PAGE_BYTES && last.is_some()) {
                has_more = true;
                break;
            }
            if last.is_some() {
                json.push(',');
            }
            json += &text;
            last = Some(task);
        }
        json.push(']');
        let next = last
            .filter(|_| has_more)
            .map(|task| query.next(&Cursor { status: query.status, created_at: task.created_at.0, id: task.id }));
        Ok(Self { json, next })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_its_encoding() {
        let created_at = DateTime::from_timestamp_micros(1_700_000_000_123_456).unwrap().naive_utc();
        let cursor = Cursor { status: Status::Pending, created_at, id: 42 };
        let decoded = Cursor::decode(&cursor.encode()).unwrap();
        assert_eq!((decoded.status, decoded.created_at, decoded.id), (Status::Pending, created_at, 42));
    }

    #[test]
    fn what_is_not_a_cursor_is_refused() {
        let encoded = |text: &str| URL_SAFE_NO_PAD.encode(text);
        for wrong in [
            String::new(),
            "!".to_owned(),
            encoded(""),
            encoded("-created_at all 1"),
            encoded("-created_at all 1 2 3"),
            encoded("-created_at some 1 2"),
            encoded("created_at all 1 2"),
            encoded("-created_at all x 2"),
            encoded("-created_at all 1 3000000000"),
            encoded("-created_at all 9223372036854775807 2"),
            encoded("-created_at all -9223372036854775808 2"),
            URL_SAFE_NO_PAD.encode([0xff, 0xfe]),
        ] {
            assert!(Cursor::decode(&wrong).is_none(), "{wrong}");
        }
    }
}
