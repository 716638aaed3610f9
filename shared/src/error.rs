//! Every way in which a request can fail, and its status.
use crate::jwt::failure::JwtFailure;
use lambda_http::http::StatusCode;
use std::{borrow::Cow, error::Error as StdError};
use tokio_postgres::error::SqlState;

/// The error that a request ends with.
#[derive(Debug)]
pub enum Error {
    /// 401: there is no live session. The response is the same whatever the cause.
    Unauthenticated(AuthFailure),
    /// 403: the session is live but may not do this. Holds the reason.
    Forbidden(&'static str),
    /// 404: nothing has this id, or it belongs to another user. Holds the kind of thing, such as "task".
    NotFound(&'static str),
    /// 404: there is nothing at this path.
    NoSuchPath,
    /// 400: the body cannot be parsed. Holds the reason.
    BadRequest(&'static str),
    /// 410: the cursor is too old, or from before a restore of the database.
    HistoryGone,
    /// 412: it has changed since the client read it. Holds the kind of thing, such as "task".
    PreconditionFailed(&'static str),
    /// 413: the body is larger than 256 KiB.
    PayloadTooLarge,
    /// 415: the body is not JSON, by its media type.
    UnsupportedMediaType,
    /// 422: fields or parameters with invalid values.
    Invalid(Vec<FieldError>),
    /// 422 or 429: the user has as much as one user may have.
    LimitReached(Limit),
    /// 503: the database cannot be reached or cannot work now. Holds the cause, for the log only.
    Unavailable(String),
    /// 503: the settings in Secrets Manager cannot be fetched now. Holds the cause, for the log only.
    NoSettings(String),
    /// 500: a bug on our side. Holds the cause, for the log only.
    Internal(String),
}

/// Why there is no session. For the log and the metrics: of a response, only the header `WWW-Authenticate` tells a JWT's
/// reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthFailure {
    /// The request has no credential.
    Missing,
    /// The signature is wrong, or its form is one that Better Auth does not accept.
    BadSignature,
    /// The token does not belong to a live session.
    NoSession,
    /// The bearer is a JWT that is not accepted.
    Jwt(JwtFailure),
}

impl AuthFailure {
    /// The name in the log.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::BadSignature => "bad_signature",
            Self::NoSession => "no_session",
            Self::Jwt(failure) => failure.name(),
        }
    }
}

/// What one user may have, so that the others get their share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// 422, because to wait does not help: this many tasks.
    Tasks(i64),
    /// 429, because keys are forgotten by themselves: this many idempotency keys.
    Keys(i64),
    /// 429: one search at a time for somebody who has many tasks.
    Searches,
}

/// A field or parameter with an invalid value.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct FieldError {
    /// The name of the field or parameter.
    pub field: String,
    /// What is wrong with the value, for people to read.
    pub message: String,
}

/// Collects what is wrong with the fields or parameters of a request, so that one answer names them all.
#[derive(Debug, Default)]
pub(crate) struct FieldErrors(Vec<FieldError>);

impl FieldErrors {
    /// Returns a parsed value, or adds why it cannot be parsed.
    pub(crate) fn keep<T>(&mut self, field: &str, parsed: Result<T, String>) -> Option<T> {
        parsed.map_err(|message| self.add(field, message)).ok()
    }

    pub(crate) fn add(&mut self, field: &str, message: impl Into<String>) {
        self.0.push(FieldError { field: field.to_owned(), message: message.into() });
    }

    /// Keeps only the first errors.
    pub(crate) fn truncate(&mut self, count: usize) {
        self.0.truncate(count);
    }

    /// Returns what was made of the values.
    ///
    /// # Errors
    /// [`Error::Invalid`] with everything that was added.
    pub(crate) fn finish<T>(self, made: Option<T>) -> Result<T, Error> {
        made.filter(|_| self.0.is_empty()).ok_or(Error::Invalid(self.0))
    }
}

impl Error {
    /// 422 for one field.
    pub fn invalid(field: &str, message: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldError { field: field.to_owned(), message: message.into() }])
    }

    /// The status of the response.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::NotFound(_) | Self::NoSuchPath => StatusCode::NOT_FOUND,
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::HistoryGone => StatusCode::GONE,
            Self::PreconditionFailed(_) => StatusCode::PRECONDITION_FAILED,
            Self::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Invalid(_) | Self::LimitReached(Limit::Tasks(_)) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::LimitReached(Limit::Keys(_) | Limit::Searches) => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable(_) | Self::NoSettings(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// What went wrong and what to do about it, for the client.
    pub fn detail(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Unauthenticated(_) => "This needs a live session: sign in.",
            Self::Forbidden(why) | Self::BadRequest(why) => why,
            Self::NotFound(what) => return format!("There is no such {what}.").into(),
            Self::NoSuchPath => "There is nothing at this path.",
            Self::HistoryGone => {
                "The changes since this cursor are no longer known: discard your copy, and start over without a cursor."
            }
            Self::PreconditionFailed(what) => {
                return format!("The {what} has been changed since: fetch it again.").into();
            }
            Self::PayloadTooLarge => "The body is larger than 256 KiB.",
            Self::UnsupportedMediaType => "The body has to be application/json.",
            Self::Invalid(_) | Self::LimitReached(Limit::Tasks(_)) => {
                let fields = self.fields();
                let sentences = fields.iter().map(|error| format!("{} {}.", error.field, error.message));
                return sentences.collect::<Vec<_>>().join(" ").into();
            }
            Self::LimitReached(Limit::Keys(max)) => {
                return format!("One user can have at most {max} idempotency keys, each for a day: try again later, or add the task without a key.").into();
            }
            Self::LimitReached(Limit::Searches) => "Another search of yours is still running: try again.",
            Self::Unavailable(_) => "The database does not answer. Try again.",
            Self::NoSettings(_) => "The API cannot read its settings. Try again.",
            Self::Internal(_) => "Something went wrong on our side.",
        })
    }

    /// Why the caller is not known, if that is the error.
    pub(crate) fn auth_failure(&self) -> Option<AuthFailure> {
        match self {
            Self::Unauthenticated(failure) => Some(*failure),
            _ => None,
        }
    }

    /// The kind of a refusal that can be an attack, in the words of OWASP's Logging Vocabulary, for the log. A request without
    /// any credential is not counted as one.
    pub(crate) fn security_event(&self) -> Option<&'static str> {
        match self {
            Self::Unauthenticated(AuthFailure::Missing) => None,
            Self::Unauthenticated(_) => Some("authn_fail"),
            Self::Forbidden(_) => Some("authz_fail"),
            _ => None,
        }
    }

    /// The fields with invalid values, of a 422.
    pub(crate) fn fields(&self) -> Cow<'_, [FieldError]> {
        match self {
            Self::Invalid(fields) => Cow::Borrowed(fields),
            Self::LimitReached(Limit::Tasks(max)) => {
                let message =
                    format!("must not be more than {max} for one user: delete some, such as the completed ones");
                Cow::Owned(vec![FieldError { field: "tasks".to_owned(), message }])
            }
            _ => Cow::default(),
        }
    }

    /// The cause of a failure that is not the client's, for the log only. Never part of a response.
    pub(crate) fn cause(&self) -> Option<&str> {
        match self {
            Self::Unavailable(cause) | Self::NoSettings(cause) | Self::Internal(cause) => Some(cause),
            _ => None,
        }
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        let cause = describe(&error);
        match error.code() {
            Some(code) if !is_server_condition(code) => Self::Internal(cause),
            None if error.source().is_some_and(|source| source.is::<tokio_postgres::types::WrongType>()) => {
                Self::Internal(cause)
            }
            _ => Self::Unavailable(cause),
        }
    }
}

impl From<deadpool_postgres::PoolError> for Error {
    fn from(error: deadpool_postgres::PoolError) -> Self {
        match error {
            deadpool_postgres::PoolError::Backend(error) => error.into(),
            error => Self::Unavailable(error.to_string()),
        }
    }
}

/// Whether an SQLSTATE reports the server's condition, not a fault of the statement.
///
/// The classes, from PostgreSQL's appendix A: 08 connection, 28 and 3D refused login, 53 out of resources, 57 operator
/// intervention (shutdown, timeout), 58 system error, 55P03 and 40 contention; 25006 is a server that has become
/// read-only.
fn is_server_condition(code: &SqlState) -> bool {
    ["08", "28", "3D", "40", "53", "57", "58"].iter().any(|class| code.code().starts_with(class))
        || *code == SqlState::LOCK_NOT_AVAILABLE
        || *code == SqlState::READ_ONLY_SQL_TRANSACTION
}

/// Describes a database error for the log. The server's message is included only if it is about the server's condition:
/// other messages can quote values.
fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) if is_server_condition(db.code()) => format!("{} (SQLSTATE {})", db.message(), db.code().code()),
        Some(db) => format!("the statement failed (SQLSTATE {})", db.code().code()),
        None => match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    }
}
