//! Paginated lists: the query parameters, where a page ends, and the cursor to the next page.
use crate::{
    error::{Error, FieldErrors},
    http::body::{Array, Body},
    http::request::Request,
    tasks::{
        input::{MAX_TITLE_CHARACTERS, text_of_at_most},
        task::Task,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Datelike as _, NaiveDateTime};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest as _, Sha256};
use std::{borrow::Cow, collections::BTreeMap, ops::RangeInclusive};
use tokio_postgres::Row;

/// Maximum number of tasks on a page, and the default.
pub(crate) const MAX_LIMIT: i64 = 1000;

/// Maximum size of a page's body in Lambda's response, in bytes. There it is JSON inside a JSON string, so a quote in a
/// text takes four bytes.
///
/// Lambda's limit for the whole response is 6,291,556 bytes; the difference is left for the headers.
pub(crate) const MAX_PAGE_BYTES: u32 = 6_200_000;

/// Bytes to reserve per task: enough for most, so that the buffer rarely grows.
pub(crate) const TASK_CAPACITY_BYTES: usize = 512;

/// Largest limit at which the rows from the database cannot exceed a response, whatever they hold: each task has at
/// most 10,200 characters of four bytes, and one task more than the limit is fetched.
const SMALL_PAGE_LIMIT: i64 = 150;

/// Maximum `offset`. Each skipped task costs the database a row.
const MAX_OFFSET: i64 = 10_000;

/// How many tasks one page of a search looks at. Each costs the database up to 0.25 ms (10,000 characters), so a page
/// takes half a second at most.
macro_rules! search_window {
    () => {
        "2000"
    };
}
pub(crate) use search_window;

/// How many tasks somebody has at most who may run several searches at once, as while they type. A search among them takes
/// about 0.1 s at most.
macro_rules! many_tasks {
    () => {
        "500"
    };
}
pub(crate) use many_tasks;

/// Maximum length of a search text in characters.
const MAX_SEARCH_CHARACTERS: usize = 200;

/// Parameters of other APIs, and what to use here. If they were ignored, the list would look right and be unsorted or
/// unfiltered.
const OTHER_NAMES: [(&str, &str); 2] = [("order", "sort, such as sort=-created_at"), ("search", "q")];

/// The order of a list. Tasks with equal timestamps or titles are sorted by id.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Sort {
    #[default]
    Newest,
    Oldest,
    LatestChange,
    EarliestChange,
    Title,
    TitleDescending,
}

impl Sort {
    const ALL: [Self; 6] =
        [Self::Newest, Self::Oldest, Self::LatestChange, Self::EarliestChange, Self::Title, Self::TitleDescending];

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            // Aliases that front ends written against FastAPI send.
            "created" => Ok(Self::Newest),
            "updated" => Ok(Self::LatestChange),
            name => one_of(&Self::ALL, Self::name, name),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Newest => "-created_at",
            Self::Oldest => "created_at",
            Self::LatestChange => "-updated_at",
            Self::EarliestChange => "updated_at",
            Self::Title => "title",
            Self::TitleDescending => "-title",
        }
    }

    /// What this order sorts by.
    fn key(self, task: &Task<&str>) -> SortKey {
        match self {
            Self::Newest | Self::Oldest => SortKey::Time(task.created_at.0),
            Self::LatestChange | Self::EarliestChange => SortKey::Time(task.updated_at.0),
            Self::Title | Self::TitleDescending => SortKey::Title(task.title.to_owned()),
        }
    }

    pub(crate) fn is_by_title(self) -> bool {
        matches!(self, Self::Title | Self::TitleDescending)
    }
}

/// What a list is sorted by: the part of a task that decides its place, before the id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SortKey {
    Time(NaiveDateTime),
    /// As it is; PostgreSQL ignores its case.
    Title(String),
}

/// The filter of a list by completion.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Status {
    /// All tasks.
    #[default]
    All,
    /// Tasks that are not completed.
    Pending,
    /// Tasks that are completed.
    Completed,
}

impl Status {
    fn parse(text: &str) -> Result<Self, String> {
        one_of(&[Self::All, Self::Pending, Self::Completed], Self::name, text)
    }

    fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Pending => "pending",
            Self::Completed => "completed",
        }
    }

    /// The value of `completed` in the listed tasks, or `None` for both.
    pub(crate) fn completed(self) -> Option<bool> {
        match self {
            Self::All => None,
            Self::Pending => Some(false),
            Self::Completed => Some(true),
        }
    }
}

/// The query parameters of a list request.
#[derive(Debug, Default)]
pub struct ListQuery {
    status: Status,
    sort: Sort,
    search: Option<String>,
    limit: Option<i64>,
    offset: Option<i64>,
    cursor: Option<Cursor>,
}

impl ListQuery {
    /// Reads `status`, `sort`, `q`, `limit`, `offset` and `cursor`. Unknown parameters are ignored, except the names that
    /// other APIs have for these.
    ///
    /// # Errors
    /// [`Error::Invalid`] with an entry for each parameter that has an invalid value, or another API's name.
    pub fn from_request(request: &Request) -> Result<Self, Error> {
        let mut sent = SentParameters::from_request(request);
        let query = Self {
            status: sent.read("status", Status::parse).unwrap_or_default(),
            sort: sent.read("sort", Sort::parse).unwrap_or_default(),
            search: sent.read("q", parse_search).flatten(),
            limit: sent.read("limit", |text| parse_number(text, 1..=MAX_LIMIT)),
            offset: sent.read("offset", |text| parse_number(text, 0..=MAX_OFFSET)),
            cursor: sent.read("cursor", Cursor::parse),
        };
        if query.cursor.as_ref().is_some_and(|cursor| cursor.list != query.list_name()) {
            sent.errors.add("cursor", "belongs to a list with another status, sort or q");
        }
        if query.cursor.is_some() && query.offset.is_some() {
            sent.errors.add("offset", "cannot be used together with cursor");
        }
        for (name, instead) in OTHER_NAMES {
            if sent.values.contains_key(name) {
                sent.errors.add(name, format!("is not a parameter: use {instead}"));
            }
        }
        sent.errors.finish(Some(query))
    }

    /// Whether this is the first page in the default order, of any status.
    pub(crate) fn is_usual_first_page(&self) -> bool {
        let Self { status: _, sort, search, limit: _, offset, cursor } = self;
        let is_first_page = *sort == Sort::Newest && offset.unwrap_or_default() == 0;
        is_first_page && search.is_none() && cursor.is_none()
    }

    /// Whether the limit is small enough that the database need not bound the bytes it sends.
    pub(crate) fn has_small_limit(&self) -> bool {
        self.limit() <= SMALL_PAGE_LIMIT
    }

    pub(crate) fn status(&self) -> Status {
        self.status
    }

    pub(crate) fn sort(&self) -> Sort {
        self.sort
    }

    /// The text that the title or the description must contain.
    pub(crate) fn search(&self) -> Option<&str> {
        self.search.as_deref()
    }

    pub(crate) fn limit(&self) -> i64 {
        self.limit.unwrap_or(MAX_LIMIT)
    }

    /// How many of the listed tasks to skip.
    pub(crate) fn offset(&self) -> i64 {
        self.cursor.as_ref().map(|cursor| cursor.skip).or(self.offset).unwrap_or_default()
    }

    /// The key and id of the last task on the previous page.
    pub(crate) fn after(&self) -> Option<(&SortKey, i32)> {
        self.cursor.as_ref().map(|cursor| (&cursor.key, cursor.id))
    }

    /// Identifies the list that a cursor belongs to: order, filter and a digest of the search text.
    fn list_name(&self) -> String {
        let mut name = format!("{} {}", self.sort.name(), self.status.name());
        if let Some(search) = &self.search {
            name.push(' ');
            name.extend(Sha256::digest(search).iter().take(8).map(|byte| format!("{byte:02x}")));
        }
        name
    }

    /// The query string of the page that starts after `last` and skips `skip` tasks there.
    fn next(&self, last: &Task<&str>, skip: i64) -> String {
        let mut next = String::new();
        if self.status != Status::All {
            next += &format!("status={}&", self.status.name());
        }
        if self.sort != Sort::default() {
            next += &format!("sort={}&", self.sort.name());
        }
        if let Some(search) = &self.search {
            next += &format!("q={}&", utf8_percent_encode(search, NON_ALPHANUMERIC));
        }
        if let Some(limit) = self.limit {
            next += &format!("limit={limit}&");
        }
        let cursor = Cursor { list: self.list_name(), key: self.sort.key(last), id: last.id, skip };
        next + "cursor=" + &cursor.encode()
    }
}

/// The parameters that a client sent.
pub(crate) struct SentParameters<'r> {
    /// If a parameter is repeated, its last value counts.
    values: BTreeMap<Cow<'r, str>, Cow<'r, str>>,
    pub(crate) errors: FieldErrors,
}

impl<'r> SentParameters<'r> {
    pub(crate) fn from_request(request: &'r Request) -> Self {
        Self { values: request.query().collect(), errors: FieldErrors::default() }
    }

    /// Reads a parameter. It is `None` if it is absent or invalid.
    pub(crate) fn read<T>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        self.errors.keep(name, parse(self.values.get(name)?))
    }
}

/// Returns the value that has this name.
fn one_of<T: Copy>(all: &[T], name_of: impl Fn(T) -> &'static str, name: &str) -> Result<T, String> {
    let names = || all.iter().map(|value| name_of(*value)).collect::<Vec<_>>().join(", ");
    all.iter().copied().find(|value| name_of(*value) == name).ok_or_else(|| format!("must be one of {}", names()))
}

/// Parses a text to search for. An empty one is no filter.
fn parse_search(text: &str) -> Result<Option<String>, String> {
    text_of_at_most(MAX_SEARCH_CHARACTERS, text).map(|text| Some(text).filter(|text| !text.is_empty()))
}

/// Parses a whole number that consists of digits only: no sign.
pub(crate) fn parse_number(text: &str, allowed: RangeInclusive<i64>) -> Result<i64, String> {
    let has_digits_only = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|number| has_digits_only && allowed.contains(number));
    number.ok_or_else(|| format!("must be a whole number from {} to {}", allowed.start(), allowed.end()))
}

/// Why a text is refused as a cursor.
pub(crate) const UNKNOWN_CURSOR: &str = "is not one that this API has made";

/// A keyset cursor: the position in the order after which a page begins. It is valid for one list only.
#[derive(Debug, PartialEq, Eq)]
struct Cursor {
    list: String,
    key: SortKey,
    id: i32,
    /// How many tasks to skip after this position: the part of an `offset` that a search has not passed yet.
    skip: i64,
}

impl Cursor {
    fn encode(&self) -> String {
        let Self { list, key, id, skip } = self;
        let id = if *skip == 0 { id.to_string() } else { format!("{id}+{skip}") };
        URL_SAFE_NO_PAD.encode(match key {
            SortKey::Time(time) => format!("{list} {} {id}", time.and_utc().timestamp_micros()),
            // No title contains U+0000.
            SortKey::Title(title) => format!("{list} {id}\0{title}"),
        })
    }

    fn parse(text: &str) -> Result<Self, String> {
        Self::decode(text).ok_or_else(|| UNKNOWN_CURSOR.to_owned())
    }

    fn decode(text: &str) -> Option<Self> {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let (head, title) = text.split_once('\0').map_or((&*text, None), |(head, title)| (head, Some(title)));
        let (head, id) = head.rsplit_once(' ')?;
        let (list, key) = match title {
            Some(title) => (head, parse_title_key(title)?),
            None => head.rsplit_once(' ').and_then(|(list, micros)| Some((list, parse_time_key(micros)?)))?,
        };
        let sort = Sort::parse(list.split(' ').next()?).ok()?;
        if sort.is_by_title() != title.is_some() {
            return None;
        }
        let (id, skip) = match id.split_once('+') {
            Some((id, skip)) => (id, parse_number(skip, 1..=MAX_OFFSET).ok()?),
            None => (id, 0),
        };
        Some(Self { list: list.to_owned(), key, id: id.parse().ok()?, skip })
    }
}

fn parse_time_key(micros: &str) -> Option<SortKey> {
    let time = DateTime::from_timestamp_micros(micros.parse().ok()?)?.naive_utc();
    // PostgreSQL's timestamp begins in 4713 BC (its documentation, table 8.9), chrono's calendar earlier.
    (time.year() >= -4711).then_some(SortKey::Time(time))
}

fn parse_title_key(title: &str) -> Option<SortKey> {
    text_of_at_most(MAX_TITLE_CHARACTERS, title).ok().map(SortKey::Title)
}

/// A page of tasks: the response body, and the query string of the next page.
pub struct Page {
    pub(crate) body: Body,
    /// The query string of the next page, if there may be more tasks.
    pub(crate) next: Option<String>,
}

impl Page {
    /// Cuts the rows off at the limit and at the size of a response. `rows` holds one row more than the limit if there
    /// are more tasks, and fewer rows if those that follow would be too large for one response. A search's rows end with
    /// the last task that it looked at.
    pub(crate) fn new(rows: &[Row], query: &ListQuery) -> Result<Self, Error> {
        let failed = |error: serde_json::Error| Error::Internal(error.to_string());
        // Each task is serialised straight into the body and then dropped: most of a list's time goes into its texts.
        let mut page = Array::with_capacity(TASK_CAPACITY_BYTES * rows.len());
        let mut count = 0;
        let mut last: Option<Task<&str>> = None;
        // How many tasks the next page skips, if there is one.
        let mut next_skips = None;
        for row in rows {
            let Some(task) = Task::from_row(row)? else { break };
            let looked_at = query.search.as_ref().map(|_| LookedAt::from_row(row)).transpose()?;
            if looked_at.as_ref().is_none_or(|it| it.is_result) {
                page.push(&task).map_err(failed)?;
                if count == query.limit() || (count > 0 && page.len() > MAX_PAGE_BYTES as usize) {
                    page.pop();
                    next_skips = Some(0);
                    break;
                }
                count += 1;
            }
            last = Some(task);
            if let Some(LookedAt { is_end: true, found, .. }) = looked_at {
                next_skips = Some((query.offset() - found).max(0));
            }
        }
        let next = last.zip(next_skips).map(|(task, skip)| query.next(&task, skip));
        Ok(Self { body: page.finish().map_err(failed)?, next })
    }
}

/// What a search reports about a task that it looked at.
struct LookedAt {
    /// Whether the task belongs to the page.
    is_result: bool,
    /// Whether the search ended here, and there may be more tasks.
    is_end: bool,
    /// How many tasks up to this one match, with those that were skipped.
    found: i64,
}

impl LookedAt {
    fn from_row(row: &Row) -> Result<Self, Error> {
        Ok(Self { is_result: row.try_get("is_result")?, is_end: row.try_get("is_end")?, found: row.try_get("found")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_its_encoding() {
        let time = DateTime::from_timestamp_micros(1_700_000_000_123_456).unwrap().naive_utc();
        let longest = "\u{10FFFF}".repeat(MAX_TITLE_CHARACTERS);
        for (list, key) in [
            ("-created_at pending", SortKey::Time(time)),
            ("title all", SortKey::Title("Buy milk 7\n".to_owned())),
            ("-title completed 0123456789abcdef", SortKey::Title(longest)),
        ] {
            for skip in [0, MAX_OFFSET] {
                let cursor = Cursor { list: list.to_owned(), key: key.clone(), id: i32::MAX, skip };
                let encoded = cursor.encode();
                assert!(encoded.len() <= 1200, "openapi.yaml: the cursor's maxLength: {}", encoded.len());
                assert_eq!(Cursor::decode(&encoded), Some(cursor));
            }
        }
    }

    #[test]
    fn what_is_not_a_cursor_is_refused() {
        let encoded = |text: &str| URL_SAFE_NO_PAD.encode(text);
        for wrong in [
            String::new(),
            "!".to_owned(),
            encoded(""),
            encoded("2"),
            encoded("-created_at all x 2"),
            encoded("-created_at all 1 3000000000"),
            encoded("-created_at all 9223372036854775807 2"),
            encoded("-created_at all -9223372036854775808 2"),
            encoded("-created_at all 2\0x"),
            encoded("-created_at all 1 2+"),
            encoded("-created_at all 1 2+0"),
            encoded("-created_at all 1 2+-1"),
            encoded("-created_at all 1 2+10001"),
            encoded("title all 2+x\0x"),
            encoded("title all 1 2"),
            encoded("title all\0x"),
            encoded("title all 2\0x\0"),
            encoded("title all 3000000000\0x"),
            encoded(&format!("title all 2\0{}", "x".repeat(201))),
            encoded("colour all 2\0x"),
            URL_SAFE_NO_PAD.encode([0xff, 0xfe]),
        ] {
            assert!(Cursor::decode(&wrong).is_none(), "{wrong}");
        }
    }
}
