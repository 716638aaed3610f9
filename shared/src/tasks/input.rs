//! What clients may send: read once into types that can hold nothing else.
use crate::{
    error::{Error, FieldError},
    http::request::Request,
};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

/// A title's longest length, in characters: Unicode scalar values, as PostgreSQL's varchar(200) counts.
const MAX_TITLE_CHARACTERS: usize = 200;
/// A description's longest length, in characters.
const MAX_DESCRIPTION_CHARACTERS: usize = 10_000;
/// An idempotency key's longest length, in characters.
const MAX_KEY_CHARACTERS: usize = 255;

/// Text without white space around it, of 1 to 200 characters that PostgreSQL can store.
#[derive(Debug)]
pub(crate) struct Title(pub(crate) String);

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
pub(crate) struct Description(pub(crate) String);

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
    pub(crate) title: Title,
    pub(crate) description: Option<Description>,
}

impl NewTask {
    /// Reads `{"title": string, "description"?: string|null}`.
    ///
    /// # Errors
    /// As [`TaskChanges::from_put_request`]; a missing title is [`Error::Invalid`].
    pub fn from_request(request: &Request) -> Result<Self, Error> {
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

impl NewTask {
    /// What tells it from another, for an idempotency key: SHA-256 over its two texts.
    pub(crate) fn hash(&self) -> Vec<u8> {
        let description = self.description.as_ref().map(|it| &it.0);
        // No text has a zero, so nothing that differs looks the same.
        let hash = Sha256::new().chain_update(&self.title.0).chain_update([0, u8::from(description.is_some())]);
        hash.chain_update(description.map_or("", |it| it)).finalize().to_vec()
    }
}

/// What an update sets; what it does not name stays as it is.
#[derive(Debug)]
pub struct TaskChanges {
    pub(crate) title: Option<Title>,
    /// `Some(None)` takes it away.
    pub(crate) description: Option<Option<Description>>,
    pub(crate) completed: Completed,
}

/// What becomes of `completed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Completed {
    Keep,
    Set(bool),
    /// The other of what it is.
    Toggle,
}

impl TaskChanges {
    /// Reads a PUT's `{"title"?: string, "description"?: string, "completed"?: bool}`, where null is the same as absent.
    ///
    /// # Errors
    /// [`Error::BadRequest`] for a body that is not JSON, [`Error::Invalid`] for each field with a wrong value,
    /// [`Error::PayloadTooLarge`], [`Error::UnsupportedMediaType`].
    pub fn from_put_request(request: &Request) -> Result<Self, Error> {
        let mut body = request.json_object()?;
        body.retain(|_, value| !value.is_null());
        Self::from_object(&body)
    }

    /// Reads a JSON Merge Patch (RFC 7396): null takes a field away, which only `description` allows.
    ///
    /// # Errors
    /// As [`TaskChanges::from_put_request`].
    pub fn from_patch_request(request: &Request) -> Result<Self, Error> {
        Self::from_object(&request.json_object()?)
    }

    /// Reads `{"completed": bool}`; no body, or one without that field, toggles it.
    ///
    /// # Errors
    /// As [`TaskChanges::from_put_request`].
    pub fn from_completion_request(request: &Request) -> Result<Self, Error> {
        let body = if request.has_no_body() { Map::new() } else { request.json_object()? };
        let completed = match body.get("completed") {
            None => Completed::Toggle,
            Some(value) => {
                boolean("completed", value).map(Completed::Set).map_err(|error| Error::Invalid(vec![error]))?
            }
        };
        Ok(Self { title: None, description: None, completed })
    }

    fn from_object(body: &Map<String, Value>) -> Result<Self, Error> {
        let title = body.get("title").map(|value| text("title", value, Title::parse)).transpose();
        let description = match body.get("description") {
            Some(Value::Null) => Ok(Some(None)),
            Some(value) => text("description", value, Description::parse).map(|it| Some(Some(it))),
            None => Ok(None),
        };
        let completed = match body.get("completed") {
            Some(value) => boolean("completed", value).map(Completed::Set),
            None => Ok(Completed::Keep),
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

/// How long an idempotency key counts, as PostgreSQL writes an interval and a person says it.
macro_rules! key_lifetime {
    () => {
        "24 hours"
    };
}
pub(crate) use key_lifetime;

/// What a client names a creation by, so that it can be asked for again without happening twice.
#[derive(Debug)]
pub struct IdempotencyKey(pub(crate) String);

impl IdempotencyKey {
    /// Reads the `Idempotency-Key` header (draft-ietf-httpapi-idempotency-key-header), if there is one.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an empty one, or one that is too long.
    pub fn from_request(request: &Request) -> Result<Option<Self>, Error> {
        let Some(key) = request.header("idempotency-key") else { return Ok(None) };
        match key.chars().count() {
            1..=MAX_KEY_CHARACTERS => {
                storable("Idempotency-Key", key).map(|key| Some(Self(key))).map_err(|error| Error::Invalid(vec![error]))
            }
            _ => Err(Error::invalid("Idempotency-Key", format!("must have 1 to {MAX_KEY_CHARACTERS} characters"))),
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
        Some(value) => text(field, value, parse).map(Some),
    }
}

fn text<T>(field: &str, value: &Value, parse: impl Fn(&str) -> Result<T, FieldError>) -> Result<T, FieldError> {
    match value {
        Value::String(text) => parse(text),
        _ => Err(field_error(field, "must be a string")),
    }
}

fn boolean(field: &str, value: &Value) -> Result<bool, FieldError> {
    value.as_bool().ok_or_else(|| field_error(field, "must be true or false"))
}
