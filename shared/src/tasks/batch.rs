//! A batch: several operations on the caller's tasks in one request, and their results.
use crate::{
    error::{Error, FieldErrors, Limit},
    http::{
        body::{Array, Body},
        request::Request,
        response::Problem,
    },
    tasks::{
        input::{Completed, Fields, IdempotencyKey, NewTask, TaskChanges, key_lifetime, text},
        page::{MAX_PAGE_BYTES, TASK_CAPACITY_BYTES},
        task::{EntityTag, NO_SUCH_TASK, TASK_HAS_CHANGED, Task, TaskId},
    },
    timestamp::Timestamp,
};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use tokio_postgres::Row;

/// Maximum number of operations in a batch.
const MAX_OPERATIONS: usize = 100;

/// Maximum number of errors in the answer to an invalid batch.
const MAX_ERRORS: usize = 10;

/// An entity tag that no task has.
const UNKNOWN_TAG: i64 = i64::MIN;

/// Bytes of a response that are left for results without their task.
const RESULTS_BYTES: usize = MAX_OPERATIONS * 800;

/// The body of `POST /api/tasks/batch`.
#[derive(Debug)]
pub struct Batch {
    operations: Vec<Operation>,
    key: Option<IdempotencyKey>,
    /// A fingerprint of the operations, stored with the key.
    hash: Vec<u8>,
    /// The path of the request.
    path: String,
}

#[derive(Debug)]
enum Operation {
    Create {
        task: NewTask,
        key: Option<IdempotencyKey>,
    },
    Change {
        id: TaskId,
        changes: TaskChanges,
        /// The tag that the task must have.
        tag: Option<i64>,
    },
    Delete {
        id: TaskId,
        tag: Option<i64>,
    },
}

#[derive(Clone, Copy)]
enum Kind {
    Create,
    Update,
    Complete,
    Delete,
}

impl Kind {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "create" => Ok(Self::Create),
            "update" => Ok(Self::Update),
            "complete" => Ok(Self::Complete),
            "delete" => Ok(Self::Delete),
            _ => Err("must be one of create, update, complete, delete".to_owned()),
        }
    }
}

impl Operation {
    fn parse(value: &Value) -> Result<Self, Error> {
        let Value::Object(body) = value else { return Err(Error::invalid("body", "must be a JSON object")) };
        let mut fields = Fields::new(body);
        let Some(kind) = fields.required("op", text(Kind::parse)) else { return fields.finish(|| None) };
        if let Kind::Create = kind {
            let key = fields.optional("key", IdempotencyKey::parse);
            let task = NewTask::read(&mut fields);
            return fields.finish(|| Some(Self::Create { task: task?, key: key? }));
        }
        let id = fields.required("id", task_id);
        let tag = fields.optional("if_match", |text| Ok(parse_tag(text)));
        let changes = match kind {
            Kind::Update => TaskChanges::read(&mut fields).map(Some),
            Kind::Complete => TaskChanges::read_completion(&mut fields).map(Some),
            _ => Some(None),
        };
        if changes.as_ref().is_some_and(|it| it.as_ref().is_some_and(TaskChanges::is_empty)) {
            fields.refuse("changes nothing: it needs title, description or completed");
        }
        fields.finish(|| {
            let (id, tag) = (id?, tag?.flatten());
            Some(match changes? {
                Some(changes) => Self::Change { id, changes, tag },
                None => Self::Delete { id, tag },
            })
        })
    }

    fn id(&self) -> Option<TaskId> {
        match self {
            Self::Create { .. } => None,
            Self::Change { id, .. } | Self::Delete { id, .. } => Some(*id),
        }
    }

    fn tag(&self) -> Option<i64> {
        match self {
            Self::Create { .. } => None,
            Self::Change { tag, .. } | Self::Delete { tag, .. } => *tag,
        }
    }

    fn key(&self) -> Option<&str> {
        match self {
            Self::Create { key, .. } => key.as_ref().map(|key| &*key.0),
            _ => None,
        }
    }
}

fn task_id(value: &Value) -> Result<TaskId, String> {
    let id = value.as_i64().filter(|id| *id > 0).and_then(|id| i32::try_from(id).ok());
    id.map(TaskId).ok_or_else(|| "must be the id of a task, a whole number".to_owned())
}

/// Reads a tag as `If-Match` has it. A tag that no task can have matches nothing, and `*` is any.
fn parse_tag(text: &str) -> Option<i64> {
    match text.trim() {
        "*" => None,
        tag => Some(EntityTag::parse(tag).map_or(UNKNOWN_TAG, |tag| tag.0)),
    }
}

impl Batch {
    /// Reads `{"operations": [...]}` and the header `Idempotency-Key`.
    ///
    /// # Errors
    /// [`Error::Invalid`] with an entry for each invalid field of each operation, for operations on the same task or with the
    /// same key, and for a key of the whole beside keys of operations; otherwise as [`NewTask::from_request`].
    pub fn from_request(request: &Request) -> Result<Self, Error> {
        let body = request.json_object()?;
        let key = IdempotencyKey::from_request(request)?;
        let mut fields = Fields::new(&body);
        let operations = fields.required("operations", |value| match value {
            Value::Array(operations) if (1..=MAX_OPERATIONS).contains(&operations.len()) => Ok(operations.clone()),
            Value::Array(_) => Err(format!("must have 1 to {MAX_OPERATIONS} operations")),
            _ => Err("must be a list".to_owned()),
        });
        let sent = fields.finish(|| operations)?;
        let mut errors = FieldErrors::default();
        let parsed: Vec<_> = sent.iter().map(Operation::parse).collect();
        let mut operations = Vec::with_capacity(parsed.len());
        for (place, operation) in parsed.into_iter().enumerate() {
            match operation {
                Ok(operation) => operations.push(operation),
                Err(error) => error.fields().iter().for_each(|error| {
                    let field = match &*error.field {
                        "body" => at(place),
                        field => format!("{}.{field}", at(place)),
                    };
                    errors.add(&field, &*error.message);
                }),
            }
        }
        if operations.len() == sent.len() {
            errors = repetitions(&operations);
        }
        if let (Some(_), Some(place)) = (&key, operations.iter().position(|operation| operation.key().is_some())) {
            errors.add(
                "Idempotency-Key",
                format!("is for the whole batch, and {}.key for a part of it: send one", at(place)),
            );
        }
        // The parser sorts the fields of an object, so the same operations have the same text.
        let text = Value::Array(sent).to_string();
        // A task's fingerprint has no such beginning.
        let hash = Sha256::new().chain_update(b"batch\0\x02").chain_update(text).finalize().to_vec();
        errors.truncate(MAX_ERRORS);
        errors.finish(Some(Self { operations, key, hash, path: request.path().to_owned() }))
    }

    /// Whether the server remembers that it has done this batch.
    pub(crate) fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// The values of the statement's parameters.
    pub(crate) fn columns(&self) -> Columns<'_> {
        let mut columns = Columns { key: self.key.as_ref().map(|key| &*key.0), hash: &self.hash, ..Columns::default() };
        for operation in &self.operations {
            columns.push(operation);
        }
        columns
    }
}

/// The place of an operation in the request.
fn at(place: usize) -> String {
    format!("operations[{place}]")
}

/// What is wrong with operations on the same task, or with the same key. In one statement, the second would be lost.
fn repetitions(operations: &[Operation]) -> FieldErrors {
    let mut errors = FieldErrors::default();
    let (mut ids, mut keys) = (HashMap::new(), HashMap::new());
    for (place, operation) in operations.iter().enumerate() {
        if let Some(first) = operation.id().and_then(|id| ids.insert(id.0, place)) {
            let message = format!("is the task of {} too: a batch can have one operation for a task", at(first));
            errors.add(&format!("{}.id", at(place)), message);
        }
        if let Some(first) = operation.key().and_then(|key| keys.insert(key, place)) {
            errors.add(&format!("{}.key", at(place)), format!("is the key of {} too", at(first)));
        }
    }
    errors
}

/// The operations, a list for each of their parts.
#[derive(Default)]
pub(crate) struct Columns<'b> {
    pub(crate) kinds: Vec<&'static str>,
    pub(crate) ids: Vec<Option<i32>>,
    pub(crate) tags: Vec<Option<i64>>,
    pub(crate) titles: Vec<Option<&'b str>>,
    pub(crate) sets_description: Vec<bool>,
    pub(crate) descriptions: Vec<Option<&'b str>>,
    pub(crate) toggles: Vec<bool>,
    pub(crate) completed: Vec<Option<bool>>,
    pub(crate) keys: Vec<Option<&'b str>>,
    pub(crate) hashes: Vec<Option<Vec<u8>>>,
    pub(crate) key: Option<&'b str>,
    pub(crate) hash: &'b [u8],
}

impl<'b> Columns<'b> {
    fn push(&mut self, operation: &'b Operation) {
        let (mut title, mut description, mut completed) = (None, None, Completed::Keep);
        let mut hash = None;
        self.kinds.push(match operation {
            Operation::Create { task, key } => {
                title = Some(&*task.title.0);
                description = Some(task.description.as_ref());
                hash = key.as_ref().map(|_| task.hash());
                "create"
            }
            Operation::Change { changes, .. } => {
                title = changes.title.as_ref().map(|title| &*title.0);
                description = changes.description.as_ref().map(Option::as_ref);
                completed = changes.completed;
                "change"
            }
            Operation::Delete { .. } => "delete",
        });
        self.ids.push(operation.id().map(|id| id.0));
        self.tags.push(operation.tag());
        self.titles.push(title);
        self.sets_description.push(description.is_some());
        self.descriptions.push(description.flatten().map(|description| &*description.0));
        self.toggles.push(completed == Completed::Toggle);
        self.completed.push(if let Completed::Set(completed) = completed { Some(completed) } else { None });
        self.keys.push(operation.key());
        self.hashes.push(hash);
    }
}

/// What became of an operation, as the statement returns it and stores it with a key. The numbers are those of HTTP's status
/// codes, but for the last.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Created,
    Changed,
    Deleted,
    NotFound,
    HasChanged,
    TooManyTasks,
    TooManyKeys,
    KeyOfAnotherTask,
}

impl Outcome {
    fn from_row(row: &Row) -> Result<Self, Error> {
        match row.try_get("outcome")? {
            201 => Ok(Self::Created),
            200 => Ok(Self::Changed),
            204 => Ok(Self::Deleted),
            404 => Ok(Self::NotFound),
            412 => Ok(Self::HasChanged),
            422 => Ok(Self::TooManyTasks),
            429 => Ok(Self::TooManyKeys),
            409 => Ok(Self::KeyOfAnotherTask),
            other => Err(Error::Internal(format!("{other} is no outcome of an operation"))),
        }
    }

    /// The status of a success, or what a request with this operation alone would fail with.
    fn status(self, max_tasks: i64) -> Result<u16, Error> {
        match self {
            Self::Created => Ok(201),
            Self::Changed => Ok(200),
            Self::Deleted => Ok(204),
            Self::NotFound => Err(NO_SUCH_TASK),
            Self::HasChanged => Err(TASK_HAS_CHANGED),
            Self::TooManyTasks => Err(Error::LimitReached(Limit::Tasks(max_tasks))),
            Self::TooManyKeys => Err(Error::LimitReached(Limit::Keys(max_tasks))),
            Self::KeyOfAnotherTask => {
                Err(Error::invalid("key", concat!("was used for another task within the last ", key_lifetime!())))
            }
        }
    }
}

/// The results of a batch, in the order of its operations.
pub struct BatchResults {
    pub(crate) body: Body,
    /// Whether an earlier request did the batch.
    pub(crate) is_replay: bool,
}

/// The result of one operation.
#[derive(Serialize)]
struct OperationResult<'a> {
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
    /// Whether an earlier request created the task.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    replayed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<&'a Task<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<Problem<'a>>,
}

/// What a response has beside the results.
#[derive(Serialize)]
struct OtherFields {
    refused: usize,
}

impl BatchResults {
    /// Reads one row for each operation.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the key of the batch was used for something else, [`Error::LimitReached`] if the user has too
    /// many keys for another one.
    pub(crate) fn new(rows: &[Row], batch: &Batch, max_tasks: i64) -> Result<Self, Error> {
        let failed = |error: serde_json::Error| Error::Internal(error.to_string());
        let Some(first) = rows.first() else { return Err(Error::Internal("no row".to_owned())) };
        if !first.try_get::<_, bool>("has_key_or_needs_none")? {
            return Err(Error::LimitReached(Limit::Keys(max_tasks)));
        }
        let is_same: Option<bool> = first.try_get("is_same")?;
        if is_same == Some(false) {
            let message = concat!("was used for another request within the last ", key_lifetime!());
            return Err(Error::invalid("Idempotency-Key", message));
        }
        let mut results = Array::in_object("results", TASK_CAPACITY_BYTES * rows.len());
        let mut refused = 0;
        for ((place, operation), row) in batch.operations.iter().enumerate().zip(rows) {
            let status = Outcome::from_row(row)?.status(max_tasks);
            let task = match operation {
                Operation::Create { task, .. } if status.is_ok() => Some(created(task, row)?),
                Operation::Create { .. } => None,
                _ => Task::<&str>::from_row(row)?,
            };
            let instance = format!("{}#/operations/{place}", batch.path);
            let mut result = OperationResult {
                status: status.as_ref().map_or_else(|error| error.status().as_u16(), |status| *status),
                id: task.as_ref().map(|task| task.id).or(operation.id().map(|id| id.0)),
                etag: task.as_ref().map(|task| task.etag().to_string()),
                replayed: row.try_get("is_replay")?,
                task: task.as_ref(),
                problem: status.as_ref().err().map(|error| Problem::new(error, &instance)),
            };
            refused += usize::from(status.is_err());
            results.push(&result).map_err(failed)?;
            // A client can fetch a task that the response has no room for.
            if results.len() + RESULTS_BYTES > MAX_PAGE_BYTES as usize {
                results.pop();
                result.task = None;
                results.push(&result).map_err(failed)?;
            }
        }
        let body = results.finish_object(&OtherFields { refused }).map_err(failed)?;
        Ok(Self { body, is_replay: is_same.is_some() })
    }
}

/// The task as it was created, now or by an earlier request with the same key.
fn created<'a>(task: &'a NewTask, row: &'a Row) -> Result<Task<&'a str>, Error> {
    let created_at: Timestamp = row.try_get("made_at")?;
    Ok(Task {
        id: row.try_get("made_id")?,
        user_id: row.try_get("user_id")?,
        title: &task.title.0,
        description: task.description.as_ref().map(|description| &*description.0),
        completed: false,
        created_at,
        updated_at: created_at,
    })
}
