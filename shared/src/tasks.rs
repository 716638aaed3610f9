//! The task queries: each one statement, one round trip, as the caller.
use crate::{
    Caller, Error, FieldError, Request,
    database::{Parameters, authorised},
    page::{MAX_PAGE_BYTES, Page},
};
use chrono::{NaiveDateTime, SecondsFormat};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use tokio_postgres::{
    Row,
    types::{FromSql, Type},
};

pub use crate::page::{ListQuery, Status};

/// A title's longest length, in characters: Unicode scalar values, as PostgreSQL's varchar(200) counts.
const MAX_TITLE_CHARACTERS: usize = 200;
/// A description's longest length, in characters.
const MAX_DESCRIPTION_CHARACTERS: usize = 10_000;

/// A page of the caller's tasks, newest first.
///
/// # Errors
/// [`Error::Unauthenticated`] without a live session, [`Error::Forbidden`] on another user's path.
pub async fn list(caller: &Caller, query: &ListQuery) -> Result<Page, Error> {
    // The running sum ends what the database sends with the row after which no answer could hold more: see `Page`. The
    // one caller's rows come in the lateral query's order, which is that of an index.
    let sql = authorised!(
        "select s.mine, t.id, t.user_id::text, t.title, t.description, t.completed, t.created_at, t.updated_at
        from s left join lateral (
            select p.*, sum(octet_length(p.title) + coalesce(octet_length(p.description), 0))
                over (order by p.created_at desc, p.id desc rows between unbounded preceding and 1 preceding) as bytes_before
            from (
                select id, user_id, title, description, completed, created_at, updated_at
                from tasks
                where s.mine and tasks.user_id = s.user_id
                    and ($3 is null or completed = $3)
                    and ($4 is null or (created_at, id) < ($4, $5))
                order by created_at desc, id desc
                limit $6
            ) p
        ) t on coalesce(t.bytes_before, 0) <= $7"
    );
    let after = query.after();
    let parameters: Parameters<'_> = &[
        (&query.status().completed(), Type::BOOL),
        (&after.map(|(created_at, _)| created_at), Type::TIMESTAMP),
        (&after.map(|(_, id)| id), Type::INT4),
        (&(query.limit() + 1), Type::INT8),
        (&MAX_PAGE_BYTES, Type::INT8),
    ];
    let rows = caller.query(sql, parameters).await?;
    let tasks = rows.iter().map(Task::from_row).collect::<Result<Option<Vec<_>>, _>>()?;
    Page::new(tasks.unwrap_or_default(), query)
}

/// A new task of the caller's.
///
/// # Errors
/// [`Error::Unauthenticated`] without a live session, [`Error::Forbidden`] on another user's path.
pub async fn create(caller: &Caller, new: &NewTask) -> Result<Task, Error> {
    let sql = authorised!(
        ", made as (
            insert into tasks (user_id, title, description, completed, created_at, updated_at)
            select s.user_id, $3, $4, false, utc.now, utc.now
            from s, (select clock_timestamp() at time zone 'utc' as now) utc
            where s.mine
            returning *)
        select s.mine, made.id, made.user_id::text, made.title, made.description, made.completed, made.created_at, made.updated_at
        from s left join made on true"
    );
    let parameters: Parameters<'_> =
        &[(&new.title.0, Type::TEXT), (&new.description.as_ref().map(|it| &it.0), Type::TEXT)];
    let row = caller.query_one(sql.never_repeated(), parameters).await?;
    Task::from_row(&row)?.ok_or_else(|| Error::Internal("the new task was not returned".to_owned()))
}

/// One of the caller's tasks.
///
/// # Errors
/// [`Error::NotFound`] when there is none with this id, or it is someone else's.
pub async fn get(caller: &Caller, id: TaskId) -> Result<Task, Error> {
    let sql = authorised!(
        "select s.mine, t.id, t.user_id::text, t.title, t.description, t.completed, t.created_at, t.updated_at
        from s left join tasks t on s.mine and t.user_id = s.user_id and t.id = $3"
    );
    let row = caller.query_one(sql, &[(&id.0, Type::INT4)]).await?;
    Task::from_row(&row)?.ok_or(Error::NotFound)
}

/// Changes what `changes` names, and nothing else.
///
/// # Errors
/// [`Error::NotFound`] when there is no such task, or it is someone else's.
pub async fn update(caller: &Caller, id: TaskId, changes: &TaskChanges) -> Result<Task, Error> {
    // A writer that waited for another's lock may have an older clock reading: updated_at only ever grows.
    let sql = authorised!(
        ", updated as (
            update tasks t
            set title = coalesce($4, t.title),
                description = coalesce($5, t.description),
                completed = coalesce($6, t.completed),
                updated_at = greatest(clock_timestamp() at time zone 'utc', t.updated_at + interval '1 microsecond')
            from s where s.mine and t.user_id = s.user_id and t.id = $3
            returning t.*)
        select s.mine, u.id, u.user_id::text, u.title, u.description, u.completed, u.created_at, u.updated_at
        from s left join updated u on true"
    );
    let parameters: Parameters<'_> = &[
        (&id.0, Type::INT4),
        (&changes.title.as_ref().map(|it| &it.0), Type::TEXT),
        (&changes.description.as_ref().map(|it| &it.0), Type::TEXT),
        (&changes.completed, Type::BOOL),
    ];
    let row = caller.query_one(sql, parameters).await?;
    Task::from_row(&row)?.ok_or(Error::NotFound)
}

/// Sets whether a task is completed, or turns it over.
///
/// # Errors
/// [`Error::NotFound`] when there is no such task, or it is someone else's.
pub async fn complete(caller: &Caller, id: TaskId, completion: Completion) -> Result<Task, Error> {
    let sql = authorised!(
        ", updated as (
            update tasks t
            set completed = coalesce($4, not t.completed),
                updated_at = greatest(clock_timestamp() at time zone 'utc', t.updated_at + interval '1 microsecond')
            from s where s.mine and t.user_id = s.user_id and t.id = $3
            returning t.*)
        select s.mine, u.id, u.user_id::text, u.title, u.description, u.completed, u.created_at, u.updated_at
        from s left join updated u on true"
    );
    let (sql, completed) = match completion {
        Completion::Set(completed) => (sql, Some(completed)),
        Completion::Toggle => (sql.never_repeated(), None),
    };
    let row = caller.query_one(sql, &[(&id.0, Type::INT4), (&completed, Type::BOOL)]).await?;
    Task::from_row(&row)?.ok_or(Error::NotFound)
}

/// Removes one of the caller's tasks.
///
/// # Errors
/// [`Error::NotFound`] when there is no such task, or it is someone else's.
pub async fn delete(caller: &Caller, id: TaskId) -> Result<(), Error> {
    let sql = authorised!(
        ", deleted as (
            delete from tasks t using s
            where s.mine and t.user_id = s.user_id and t.id = $3
            returning t.id)
        select s.mine, d.id from s left join deleted d on true"
    );
    let row = caller.query_one(sql, &[(&id.0, Type::INT4)]).await?;
    row.try_get::<_, Option<i32>>("id")?.map(drop).ok_or(Error::NotFound)
}

/// A task as the API shows it.
#[derive(Debug, Serialize)]
pub struct Task {
    /// Its number, unique over all users.
    pub id: i32,
    /// Its owner.
    pub user_id: String,
    /// What is to be done.
    pub title: String,
    /// More about it.
    pub description: Option<String>,
    /// Whether it is done.
    pub completed: bool,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed; grows with every change.
    pub updated_at: Timestamp,
}

impl Task {
    /// `None` for the row that only says that the caller is signed in.
    fn from_row(row: &Row) -> Result<Option<Self>, Error> {
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

    /// A strong entity tag (RFC 9110, section 8.8.3): it changes with every change of the task.
    pub(crate) fn etag(&self) -> String {
        format!("\"{:x}\"", self.updated_at.0.and_utc().timestamp_micros())
    }
}

/// A moment in UTC, of microseconds, from a `timestamp` column that holds UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timestamp(pub(crate) NaiveDateTime);

impl Serialize for Timestamp {
    /// `2026-01-31T12:34:56.123456Z` (RFC 3339), always with six digits.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.and_utc().to_rfc3339_opts(SecondsFormat::Micros, true))
    }
}

impl<'a> FromSql<'a> for Timestamp {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        NaiveDateTime::from_sql(ty, raw).map(Self)
    }

    fn accepts(ty: &Type) -> bool {
        <NaiveDateTime as FromSql>::accepts(ty)
    }
}

/// A task's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskId(i32);

impl TaskId {
    /// Reads the id of a path; what no task can have for an id is not found.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| is_number).map(Self).ok_or(Error::NotFound)
    }
}

/// Text without white space around it, of 1 to 200 characters that PostgreSQL can store.
#[derive(Debug)]
struct Title(String);

impl Title {
    fn parse(text: &str) -> Result<Self, FieldError> {
        let title = text.trim();
        match title.chars().count() {
            0 => Err(field_error("title", "must not be empty")),
            1..=MAX_TITLE_CHARACTERS => storable("title", title).map(Self),
            _ => Err(field_error("title", &format!("must have at most {MAX_TITLE_CHARACTERS} characters"))),
        }
    }
}

/// Text of at most 10,000 characters that PostgreSQL can store.
#[derive(Debug)]
struct Description(String);

impl Description {
    fn parse(text: &str) -> Result<Self, FieldError> {
        if text.chars().count() > MAX_DESCRIPTION_CHARACTERS {
            return Err(field_error(
                "description",
                &format!("must have at most {MAX_DESCRIPTION_CHARACTERS} characters"),
            ));
        }
        storable("description", text).map(Self)
    }
}

fn storable(field: &str, text: &str) -> Result<String, FieldError> {
    if text.contains('\0') {
        return Err(field_error(field, "must not contain the character U+0000"));
    }
    Ok(text.to_owned())
}

fn field_error(field: &str, message: &str) -> FieldError {
    FieldError { field: field.to_owned(), message: message.to_owned() }
}

/// What a task is made from.
#[derive(Debug)]
pub struct NewTask {
    title: Title,
    description: Option<Description>,
}

impl NewTask {
    /// Reads `{"title": string, "description"?: string|null}`.
    ///
    /// # Errors
    /// As [`TaskChanges::parse`]; a missing title is [`Error::Invalid`].
    pub fn parse(request: &Request) -> Result<Self, Error> {
        let body = request.json_object()?;
        let title = text_field(&body, "title", Title::parse);
        let title = title.and_then(|title| title.ok_or_else(|| field_error("title", "is required")));
        match (title, text_field(&body, "description", Description::parse)) {
            (Ok(title), Ok(description)) => Ok(Self { title, description }),
            (title, description) => {
                Err(Error::Invalid([title.err(), description.err()].into_iter().flatten().collect()))
            }
        }
    }
}

/// What an update sets; what is absent stays as it is.
#[derive(Debug)]
pub struct TaskChanges {
    title: Option<Title>,
    description: Option<Description>,
    completed: Option<bool>,
}

impl TaskChanges {
    /// Reads `{"title"?: string, "description"?: string, "completed"?: bool}`, where null is the same as absent.
    ///
    /// # Errors
    /// [`Error::BadRequest`] for a body that is not JSON, [`Error::Invalid`] for each field with a wrong value,
    /// [`Error::PayloadTooLarge`], [`Error::UnsupportedMediaType`].
    pub fn parse(request: &Request) -> Result<Self, Error> {
        let body = request.json_object()?;
        let title = text_field(&body, "title", Title::parse);
        let description = text_field(&body, "description", Description::parse);
        let completed = match body.get("completed") {
            Some(Value::Null) | None => Ok(None),
            Some(value) => boolean("completed", value).map(Some),
        };
        match (title, description, completed) {
            (Ok(title), Ok(description), Ok(completed)) => Ok(Self { title, description, completed }),
            (title, description, completed) => {
                let errors = [title.err(), description.err(), completed.err()];
                Err(Error::Invalid(errors.into_iter().flatten().collect()))
            }
        }
    }
}

/// What completing does.
#[derive(Debug, Clone, Copy)]
pub enum Completion {
    /// Makes it so.
    Set(bool),
    /// The other of what it is.
    Toggle,
}

impl Completion {
    /// Reads `{"completed": bool}`; no body, or one without that field, toggles.
    ///
    /// # Errors
    /// As [`TaskChanges::parse`].
    pub fn parse(request: &Request) -> Result<Self, Error> {
        if request.has_no_body() {
            return Ok(Self::Toggle);
        }
        match request.json_object()?.get("completed") {
            None => Ok(Self::Toggle),
            Some(value) => boolean("completed", value).map(Self::Set).map_err(|error| Error::Invalid(vec![error])),
        }
    }
}

/// A field of text, absent or null or what `parse` makes of it.
fn text_field<T>(
    body: &Map<String, Value>,
    field: &str,
    parse: impl Fn(&str) -> Result<T, FieldError>,
) -> Result<Option<T>, FieldError> {
    match body.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => parse(text).map(Some),
        Some(_) => Err(field_error(field, "must be a string")),
    }
}

fn boolean(field: &str, value: &Value) -> Result<bool, FieldError> {
    value.as_bool().ok_or_else(|| field_error(field, "must be true or false"))
}
