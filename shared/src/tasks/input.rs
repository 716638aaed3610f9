//! The input that clients may send, parsed once into types that hold only valid values.
use crate::{
    error::{Error, FieldErrors},
    http::request::Request,
};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use std::ops::RangeInclusive;

/// Maximum length of a title in characters: Unicode scalar values, which PostgreSQL's varchar(200) counts too.
pub(crate) const MAX_TITLE_CHARACTERS: usize = 200;
/// Maximum length of a description in characters.
const MAX_DESCRIPTION_CHARACTERS: usize = 10_000;
/// Maximum length of an idempotency key in characters.
const MAX_KEY_CHARACTERS: usize = 255;

/// Characters that are drawn as nothing, apart from white space and control characters: Unicode's
/// Default_Ignorable_Code_Point (unicode.org/Public/16.0.0/ucd/DerivedCoreProperties.txt), and the empty braille pattern.
const INVISIBLE: [RangeInclusive<char>; 18] = [
    '\u{AD}'..='\u{AD}',
    '\u{34F}'..='\u{34F}',
    '\u{61C}'..='\u{61C}',
    '\u{115F}'..='\u{1160}',
    '\u{17B4}'..='\u{17B5}',
    '\u{180B}'..='\u{180F}',
    '\u{200B}'..='\u{200F}',
    '\u{202A}'..='\u{202E}',
    '\u{2060}'..='\u{206F}',
    '\u{2800}'..='\u{2800}',
    '\u{3164}'..='\u{3164}',
    '\u{FE00}'..='\u{FE0F}',
    '\u{FEFF}'..='\u{FEFF}',
    '\u{FFA0}'..='\u{FFA0}',
    '\u{FFF0}'..='\u{FFF8}',
    '\u{1BCA0}'..='\u{1BCA3}',
    '\u{1D173}'..='\u{1D17A}',
    '\u{E0000}'..='\u{E0FFF}',
];

/// A title: 1 to 200 characters that PostgreSQL can store, at least one of them visible, without leading or trailing white
/// space.
#[derive(Debug)]
pub(crate) struct Title(pub(crate) String);

impl Title {
    fn parse(text: &str) -> Result<Self, String> {
        let title = text.trim();
        match title.chars().count() {
            0 => Err("must not be empty".to_owned()),
            _ if !title.chars().any(is_visible) => Err("must have a visible character".to_owned()),
            _ => text_of_at_most(MAX_TITLE_CHARACTERS, title).map(Self),
        }
    }
}

fn is_visible(character: char) -> bool {
    !character.is_whitespace()
        && !character.is_control()
        && !INVISIBLE.iter().any(|invisible| invisible.contains(&character))
}

/// A description: at most 10,000 characters that PostgreSQL can store.
#[derive(Debug)]
pub(crate) struct Description(pub(crate) String);

impl Description {
    fn parse(text: &str) -> Result<Self, String> {
        text_of_at_most(MAX_DESCRIPTION_CHARACTERS, text).map(Self)
    }
}

/// A text that PostgreSQL can store, of at most `max` characters.
pub(crate) fn text_of_at_most(max: usize, text: &str) -> Result<String, String> {
    if text.chars().count() > max { Err(format!("must have at most {max} characters")) } else { storable(text) }
}

fn storable(text: &str) -> Result<String, String> {
    if text.contains('\0') {
        return Err("must not contain the character U+0000".to_owned());
    }
    Ok(text.to_owned())
}

/// The content of a task to create.
#[derive(Debug)]
pub struct NewTask {
    pub(crate) title: Title,
    pub(crate) description: Option<Description>,
}

impl NewTask {
    /// Reads `{"title": string, "description"?: string|null}`.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the title is missing; otherwise as [`TaskChanges::from_put_request`].
    pub fn from_request(request: &Request) -> Result<Self, Error> {
        let body = request.json_object()?;
        let mut fields = Fields::new(&body);
        let task = Self::read(&mut fields);
        fields.finish(|| task)
    }

    pub(crate) fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let title = fields.required("title", text(Title::parse));
        let description = fields.optional("description", Description::parse);
        Some(Self { title: title?, description: description? })
    }

    /// A fingerprint of the task, stored with its idempotency key: SHA-256 over title and description.
    pub(crate) fn hash(&self) -> Vec<u8> {
        let description = self.description.as_ref().map(|it| &it.0);
        // The separator is unambiguous, because neither text can contain U+0000.
        let hash = Sha256::new().chain_update(&self.title.0).chain_update([0, u8::from(description.is_some())]);
        hash.chain_update(description.map_or("", |it| it)).finalize().to_vec()
    }
}

/// The fields that an update changes. Fields that it does not name keep their values.
#[derive(Debug)]
pub struct TaskChanges {
    pub(crate) title: Option<Title>,
    /// `Some(None)` removes the description.
    pub(crate) description: Option<Option<Description>>,
    pub(crate) completed: Completed,
}

/// The change to `completed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Completed {
    Keep,
    Set(bool),
    /// Inverts the current value.
    Toggle,
}

impl TaskChanges {
    /// Reads the body of a PUT, `{"title"?: string, "description"?: string, "completed"?: bool}`. A null counts as
    /// absent.
    ///
    /// # Errors
    /// [`Error::BadRequest`] if the body is not JSON, [`Error::Invalid`] with an entry for each invalid field, or if all
    /// fields are unknown, [`Error::PayloadTooLarge`], [`Error::UnsupportedMediaType`].
    pub fn from_put_request(request: &Request) -> Result<Self, Error> {
        let body = request.json_object()?;
        Self::from_fields(Fields { ignores_null: true, ..Fields::new(&body) })
    }

    /// Reads a JSON Merge Patch (RFC 7396). A null removes the field, which only `description` allows.
    ///
    /// # Errors
    /// As [`TaskChanges::from_put_request`].
    pub fn from_patch_request(request: &Request) -> Result<Self, Error> {
        let body = request.json_object()?;
        Self::from_fields(Fields::new(&body))
    }

    /// Reads `{"completed": bool}`. An empty body, or an empty object, toggles it.
    ///
    /// # Errors
    /// As [`TaskChanges::from_put_request`].
    pub fn from_completion_request(request: &Request) -> Result<Self, Error> {
        let body = if request.has_no_body() { Map::new() } else { request.json_object()? };
        let mut fields = Fields::new(&body);
        let changes = Self::read_completion(&mut fields);
        fields.refuse_only_unknown();
        fields.finish(|| changes)
    }

    fn from_fields(mut fields: Fields<'_>) -> Result<Self, Error> {
        let changes = Self::read(&mut fields);
        fields.refuse_only_unknown();
        fields.finish(|| changes)
    }

    pub(crate) fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let title = fields.value("title", text(Title::parse));
        let description = fields.value("description", or_null(text(Description::parse)));
        let completed = fields.value("completed", boolean);
        let completed = completed?.map_or(Completed::Keep, Completed::Set);
        Some(Self { title: title?, description: description?, completed })
    }

    pub(crate) fn read_completion(fields: &mut Fields<'_>) -> Option<Self> {
        let completed = fields.value("completed", boolean)?.map_or(Completed::Toggle, Completed::Set);
        Some(Self { title: None, description: None, completed })
    }

    /// Whether a task with these changes is as it was before.
    pub(crate) fn is_empty(&self) -> bool {
        self.title.is_none() && self.description.is_none() && self.completed == Completed::Keep
    }
}

/// How long an idempotency key is valid, in a form that serves both as a PostgreSQL interval and in messages.
macro_rules! key_lifetime {
    () => {
        "24 hours"
    };
}
pub(crate) use key_lifetime;

/// A client's key for a creation, so that a repeated request does not create a second task.
#[derive(Debug)]
pub struct IdempotencyKey(pub(crate) String);

impl IdempotencyKey {
    /// Reads the `Idempotency-Key` header (draft-ietf-httpapi-idempotency-key-header), if the request has one.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the key is empty, too long, or contains U+0000.
    pub fn from_request(request: &Request) -> Result<Option<Self>, Error> {
        let Some(key) = request.header("idempotency-key") else { return Ok(None) };
        Self::parse(key).map(Some).map_err(|message| Error::invalid("Idempotency-Key", message))
    }

    pub(crate) fn parse(key: &str) -> Result<Self, String> {
        match key.chars().count() {
            1..=MAX_KEY_CHARACTERS => storable(key).map(Self),
            _ => Err(format!("must have 1 to {MAX_KEY_CHARACTERS} characters")),
        }
    }
}

/// Reads the fields of a body. A field with an error is read as `None`.
pub(crate) struct Fields<'b> {
    body: &'b Map<String, Value>,
    /// Whether a field that is null counts as absent.
    ignores_null: bool,
    /// The fields that were read so far.
    known: Vec<&'static str>,
    errors: FieldErrors,
}

impl<'b> Fields<'b> {
    pub(crate) fn new(body: &'b Map<String, Value>) -> Self {
        Self { body, ignores_null: false, known: Vec::new(), errors: FieldErrors::default() }
    }

    /// A value that has to be there.
    pub(crate) fn required<T>(
        &mut self,
        field: &'static str,
        parse: impl Fn(&Value) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.value(field, or_null(parse))?.flatten();
        if value.is_none() {
            self.errors.add(field, "is required");
        }
        value
    }

    /// A text that may be absent or null.
    pub(crate) fn optional<T>(
        &mut self,
        field: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Option<T>> {
        self.value(field, or_null(text(parse))).map(Option::flatten)
    }

    /// A value of any type that may be absent.
    fn value<T>(&mut self, field: &'static str, parse: impl Fn(&Value) -> Result<T, String>) -> Option<Option<T>> {
        self.known.push(field);
        let sent = self.body.get(field).filter(|value| !(self.ignores_null && value.is_null()));
        self.errors.keep(field, sent.map(parse).transpose())
    }

    /// Refuses a body that has fields, none of which was read: the client believes that it changes something. The message
    /// lists the fields that are known, because an answer repeats nothing that the client sent.
    fn refuse_only_unknown(&mut self) {
        if !self.body.is_empty() && !self.known.iter().any(|field| self.body.contains_key(*field)) {
            self.errors.add("body", format!("has only unknown fields; known here: {}", self.known.join(", ")));
        }
    }

    /// Refuses the body for what its fields say together.
    pub(crate) fn refuse(&mut self, message: impl Into<String>) {
        self.errors.add("body", message);
    }

    /// What `make` makes of the fields, or all that is wrong with them.
    pub(crate) fn finish<T>(self, make: impl FnOnce() -> Option<T>) -> Result<T, Error> {
        self.errors.finish(make())
    }
}

pub(crate) fn text<T>(parse: impl Fn(&str) -> Result<T, String>) -> impl Fn(&Value) -> Result<T, String> {
    move |value| value.as_str().ok_or_else(|| "must be a string".to_owned()).and_then(&parse)
}

fn boolean(value: &Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| "must be true or false".to_owned())
}

fn or_null<T>(parse: impl Fn(&Value) -> Result<T, String>) -> impl Fn(&Value) -> Result<Option<T>, String> {
    move |value| if value.is_null() { Ok(None) } else { parse(value).map(Some) }
}
