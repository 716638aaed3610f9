//! Changes since a cursor: the query parameters, the cursor, and a page of changes.
//!
//! Every task has the id of the transaction that changed it last, and so has every removed task. A round of pages reads all of
//! them from a mark on. The next mark is the oldest transaction that was still running when the round's first page was read:
//! every transaction below it had ended, so the round has seen what it did. What a later one did comes in the next round, or
//! again.
use crate::{
    error::Error,
    http::{
        body::{Array, Body},
        request::Request,
    },
    tasks::{
        page::{MAX_LIMIT, MAX_PAGE_BYTES, SentParameters, TASK_CAPACITY_BYTES, UNKNOWN_CURSOR, parse_number},
        precondition,
        task::Task,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio_postgres::Row;

/// Seconds for which a cursor can be answered with 304. A 304 has no new cursor, so a client that polls gets one at least once
/// a day, and its cursor never grows old.
const NOT_MODIFIED_WITHIN_S: i64 = 24 * 60 * 60;

/// The value of `cursor` for a client without a copy, which only wants to notice changes.
const LATEST: &str = "latest";

/// Bytes of a page that are left for the fields beside the tasks, with a removed id in each row.
const OTHER_FIELDS_BYTES: usize = 16 * 1024;

/// The query of `GET /api/tasks/changes`.
#[derive(Debug)]
pub struct ChangesQuery {
    limit: Option<i64>,
    cursor: Option<Start>,
    /// Entity tags, or `*`.
    if_none_match: Option<String>,
}

impl ChangesQuery {
    /// Reads `cursor` and `limit`, and the header `If-None-Match`. Unknown parameters are ignored.
    ///
    /// # Errors
    /// [`Error::Invalid`] with an entry for each parameter that has an invalid value, or if the list of tags is too long.
    pub fn from_request(request: &Request) -> Result<Self, Error> {
        let mut sent = SentParameters::from_request(request);
        let query = Self {
            limit: sent.read("limit", |text| parse_number(text, 1..=MAX_LIMIT)),
            cursor: sent.read("cursor", Start::parse),
            if_none_match: precondition::tags(request, "If-None-Match")?.map(str::to_owned),
        };
        sent.errors.finish(Some(query))
    }

    /// Maximum number of changes on the page.
    pub(crate) fn limit(&self) -> i64 {
        self.limit.unwrap_or(MAX_LIMIT)
    }

    /// The transaction and id after which the page begins.
    pub(crate) fn after(&self) -> (String, i32) {
        let (changed, id) = match &self.cursor {
            Some(Start::Cursor(Cursor { place: Some(place), .. })) => (place.changed, place.id),
            Some(Start::Cursor(Cursor { mark, .. })) => (mark.saturating_sub(1), i32::MAX),
            Some(Start::Latest) => (u64::MAX, i32::MAX),
            None => (0, i32::MAX),
        };
        (changed.to_string(), id)
    }

    fn cursor(&self) -> Option<&Cursor> {
        match &self.cursor {
            Some(Start::Cursor(cursor)) => Some(cursor),
            Some(Start::Latest) | None => None,
        }
    }

    /// Whether removed tasks are of interest. A client without a copy has none of them: what is removed while it reads the
    /// pages of its first round comes in the second.
    pub(crate) fn wants_removed(&self) -> bool {
        self.cursor().is_some_and(|cursor| !cursor.is_first_round())
    }

    /// Whether the client may keep its cursor if nothing is new: only at the beginning of a round, where the cursor misses
    /// nothing that commits later.
    fn can_be_unmodified(&self, now: i64) -> bool {
        let cursor = self.cursor().filter(|cursor| cursor.place.is_none());
        cursor.is_some_and(|cursor| (0..NOT_MODIFIED_WITHIN_S).contains(&now.saturating_sub(cursor.marked_at)))
    }

    /// Whether the client has this version. Tags are compared weakly.
    fn has_tag(&self, tag: &str) -> bool {
        let opaque = |text: &str| text.trim().trim_start_matches("W/").to_owned();
        let tag = opaque(tag);
        self.if_none_match.as_deref().is_some_and(|list| list == "*" || list.split(',').any(|it| opaque(it) == tag))
    }
}

/// Where a page begins.
#[derive(Debug)]
enum Start {
    Cursor(Cursor),
    /// After everything that has ended: the page is empty, and its cursor is for what comes.
    Latest,
}

impl Start {
    fn parse(text: &str) -> Result<Self, String> {
        if text == LATEST { Ok(Self::Latest) } else { Cursor::parse(text).map(Self::Cursor) }
    }
}

/// A place within a round.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    changed: u64,
    id: i32,
    /// Whether it is the round in which the client makes its copy.
    is_first_round: bool,
}

/// Where a client continues. It is valid for one user.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cursor {
    /// The history that the transaction ids belong to.
    history: String,
    /// The mark of the next round: every transaction below had ended before this round.
    mark: u64,
    /// When the mark was read, in seconds since 1970, by the database's clock.
    marked_at: i64,
    /// Where this round goes on; `None` begins the next one.
    place: Option<Place>,
    /// The digest that belongs to this cursor and its user.
    digest: String,
}

impl Cursor {
    fn new(history: &str, mark: u64, marked_at: i64, place: Option<Place>, user_id: &str) -> Self {
        let mut cursor = Self { history: history.to_owned(), mark, marked_at, place, digest: String::new() };
        cursor.digest = cursor.digest_for(user_id);
        cursor
    }

    fn is_first_round(&self) -> bool {
        self.place.as_ref().is_some_and(|place| place.is_first_round)
    }

    /// The oldest transaction of which the client still needs to know what it removed.
    fn needs_removed_since(&self) -> u64 {
        match &self.place {
            Some(place) if !place.is_first_round => place.changed.min(self.mark),
            _ => self.mark,
        }
    }

    /// The newest transaction that this cursor knows of.
    fn newest(&self) -> u64 {
        self.place.as_ref().map_or(self.mark, |place| place.changed.max(self.mark))
    }

    fn content(&self) -> String {
        let Self { history, mark, marked_at, place, digest: _ } = self;
        let place = match place {
            None => "-".to_owned(),
            Some(Place { changed, id, is_first_round }) => format!("{changed}:{id}:{}", u8::from(*is_first_round)),
        };
        format!("changes {history} {mark} {marked_at} {place}")
    }

    /// Against mistakes, such as a cursor that an application keeps for the wrong user. It is no signature: a made-up cursor
    /// can only make its own user miss changes.
    fn digest_for(&self, user_id: &str) -> String {
        let digest = Sha256::digest(format!("{}\0{user_id}", self.content()));
        digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(format!("{} {}", self.content(), self.digest))
    }

    fn parse(text: &str) -> Result<Self, String> {
        Self::decode(text).ok_or_else(|| UNKNOWN_CURSOR.to_owned())
    }

    fn decode(text: &str) -> Option<Self> {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let mut words = text.split(' ');
        let mut next = || words.next();
        let (kind, history, mark, marked_at, place, digest) = (next()?, next()?, next()?, next()?, next()?, next()?);
        let place = match place {
            "-" => None,
            place => {
                let (changed, rest) = place.split_once(':')?;
                let (id, is_first_round) = rest.split_once(':')?;
                Some(Place {
                    changed: changed.parse().ok()?,
                    id: id.parse().ok()?,
                    is_first_round: is_first_round == "1",
                })
            }
        };
        let cursor = Self {
            history: history.to_owned(),
            mark: mark.parse().ok()?,
            marked_at: marked_at.parse().ok()?,
            place,
            digest: digest.to_owned(),
        };
        // Only the exact text that we send is accepted.
        (kind == "changes" && cursor.encode() == URL_SAFE_NO_PAD.encode(&text)).then_some(cursor)
    }
}

/// Where the database is in its history, as a page's statement saw it.
struct Position {
    history: String,
    /// The newest transaction of which it is forgotten what it removed.
    purged_to: u64,
    /// Every transaction below has ended.
    oldest_running: u64,
    /// The next transaction id to assign, or a later one than is assigned.
    next: u64,
    /// Seconds since 1970.
    now: i64,
}

impl Position {
    fn from_row(row: &Row) -> Result<Self, Error> {
        Ok(Self {
            history: row.try_get("history")?,
            purged_to: transaction(row, "purged_to")?,
            oldest_running: transaction(row, "oldest_running")?,
            next: transaction(row, "next_xid")?,
            now: row.try_get("now_s")?,
        })
    }

    /// Whether all that happened since the cursor is still known.
    fn remembers(&self, cursor: &Cursor) -> bool {
        // The purges of another cluster, whose dump this is, may be ahead of this one's transactions.
        let is_purged = self.purged_to < self.next && cursor.needs_removed_since() <= self.purged_to;
        cursor.history == self.history && cursor.newest() <= self.next && !is_purged
    }
}

/// Reads a transaction id, which the statement returns as text.
fn transaction(row: &Row, column: &str) -> Result<u64, Error> {
    let text: &str = row.try_get(column)?;
    text.parse().map_err(|_| Error::Internal(format!("{column} is not a transaction id")))
}

/// A page of changes, or the news that there are none.
pub struct Changes {
    /// `None` is 304.
    pub(crate) body: Option<Body>,
    /// The entity tag of what changed, without the cursor. A page that others follow has none.
    pub(crate) tag: Option<String>,
}

/// What a page has beside the tasks.
#[derive(Serialize)]
struct OtherFields<'a> {
    removed: &'a [i32],
    cursor: &'a str,
    more: bool,
}

impl Changes {
    /// Cuts the rows off at the limit and at the size of a response. `rows` holds one row more than the limit if there are
    /// more changes, and fewer rows if those that follow would be too large for one response.
    ///
    /// # Errors
    /// [`Error::Invalid`] for another user's cursor, [`Error::HistoryGone`] for one that is too old or from another history.
    pub(crate) fn new(rows: &[Row], query: &ChangesQuery) -> Result<Self, Error> {
        let failed = |error: serde_json::Error| Error::Internal(error.to_string());
        let Some(first) = rows.first() else { return Err(Error::Internal("no row".to_owned())) };
        let user_id: &str = first.try_get("user_id")?;
        let position = Position::from_row(first)?;
        if let Some(cursor) = query.cursor() {
            if cursor.digest != cursor.digest_for(user_id) {
                return Err(Error::invalid("cursor", "is not one that this API has made for this user"));
            }
            if !position.remembers(cursor) {
                return Err(Error::HistoryGone);
            }
        }
        let mut tasks = Array::in_object("tasks", TASK_CAPACITY_BYTES * rows.len());
        let mut removed = Vec::new();
        let mut last = None;
        let mut more = false;
        for (count, row) in (0..).zip(rows) {
            let Some(id) = row.try_get::<_, Option<i32>>("id")? else { break };
            if count == query.limit() {
                more = true;
                break;
            }
            if row.try_get("is_removed")? {
                removed.push(id);
            } else if let Some(task) = Task::<&str>::from_row(row)? {
                tasks.push(&task).map_err(failed)?;
                if count > 0 && tasks.len() + OTHER_FIELDS_BYTES > MAX_PAGE_BYTES as usize {
                    tasks.pop();
                    more = true;
                    break;
                }
            }
            last = Some((transaction(row, "changed")?, id));
        }
        // Other pages of the round keep the mark of the first.
        let (mark, marked_at) = match query.cursor() {
            Some(Cursor { place: Some(_), mark, marked_at, .. }) => (*mark, *marked_at),
            _ => (position.oldest_running, position.now),
        };
        let is_first_round = !query.wants_removed();
        let place = last.filter(|_| more).map(|(changed, id)| Place { changed, id, is_first_round });
        let cursor = Cursor::new(&position.history, mark, marked_at, place, user_id).encode();
        let tag = (!more).then(|| tag(tasks.elements(), &removed));
        if tag.as_deref().is_some_and(|tag| query.can_be_unmodified(position.now) && query.has_tag(tag)) {
            return Ok(Self { body: None, tag });
        }
        let others = OtherFields { removed: &removed, cursor: &cursor, more };
        Ok(Self { body: Some(tasks.finish_object(&others).map_err(failed)?), tag })
    }
}

/// A weak entity tag: two responses with it have the same changes, and different cursors.
fn tag(tasks: &[u8], removed: &[i32]) -> String {
    let mut content = Sha256::new();
    content.update(tasks);
    for id in removed {
        content.update(id.to_be_bytes());
    }
    // An id is no part of a task, whose text ends with a brace.
    content.update(removed.len().to_be_bytes());
    let digest = content.finalize();
    format!("W/\"{}\"", digest.iter().take(12).map(|byte| format!("{byte:02x}")).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(mark: u64, place: Option<Place>) -> Cursor {
        Cursor::new("0123456789abcdef", mark, 1_700_000_000, place, "ada")
    }

    fn place(changed: u64, is_first_round: bool) -> Option<Place> {
        Some(Place { changed, id: i32::MAX, is_first_round })
    }

    #[test]
    fn a_cursor_survives_its_encoding_and_belongs_to_its_user() {
        for place in [None, place(u64::MAX, false), place(3, true)] {
            let cursor = cursor(u64::MAX, place);
            let encoded = cursor.encode();
            assert!(encoded.len() <= 200, "openapi.yaml: the cursor's maxLength: {}", encoded.len());
            assert_eq!(Cursor::decode(&encoded).as_ref(), Some(&cursor));
            assert_eq!(cursor.digest, cursor.digest_for("ada"));
            assert_ne!(cursor.digest, cursor.digest_for("bob"));
        }
    }

    #[test]
    fn what_is_not_a_cursor_of_changes_is_refused() {
        let good = format!("{} x", cursor(7, None).content());
        assert!(Cursor::decode(&URL_SAFE_NO_PAD.encode(&good)).is_some());
        for wrong in [
            "",
            "changes",
            "-created_at all 1 2",
            "changes a 1 2 - x y",
            "changes a 1 2 3 x",
            "changes a 1 2 3:4 x",
            "changes a 1 2 3:4:2 x",
            "changes a 1 2 3:3000000000:1 x",
            "changes a -1 2 - x",
            "changes a +1 2 - x",
            "changes a 18446744073709551616 2 - x",
            "other a 1 2 - x",
        ] {
            assert!(Cursor::decode(&URL_SAFE_NO_PAD.encode(wrong)).is_none(), "{wrong}");
        }
        assert!(Cursor::decode("!").is_none());
        assert!(Cursor::decode(&URL_SAFE_NO_PAD.encode([0xff, 0xfe])).is_none());
    }

    #[test]
    fn a_cursor_is_gone_only_if_something_after_it_is_forgotten() {
        let position = |purged_to, next| Position {
            history: "0123456789abcdef".to_owned(),
            purged_to,
            oldest_running: next,
            next,
            now: 0,
        };
        assert!(position(9, 100).remembers(&cursor(10, None)));
        assert!(!position(10, 100).remembers(&cursor(10, None)));
        assert!(position(200, 100).remembers(&cursor(10, None)), "the purge of another cluster");
        assert!(!position(9, 100).remembers(&cursor(101, None)), "the cluster was set back");
        assert!(!position(9, 100).remembers(&cursor(50, place(101, false))), "the cluster was set back");
        assert!(!position(30, 100).remembers(&cursor(50, place(20, false))), "the rest of the round");
        assert!(position(30, 100).remembers(&cursor(50, place(20, true))), "a copy has nothing to remove");
        let other = Cursor { history: "another".to_owned(), ..cursor(10, None) };
        assert!(!position(0, 100).remembers(&other));
    }
}
