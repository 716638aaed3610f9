//! Every way a request can fail, and the status it answers with.
use lambda_http::http::StatusCode;
use std::{borrow::Cow, error::Error as StdError};
use tokio_postgres::error::SqlState;

/// What a request ends with when it does not succeed.
#[derive(Debug)]
pub enum Error {
    /// 401: no live session. One answer whatever the cause.
    Unauthenticated(AuthFailure),
    /// 403: a live session that may not do this; says why.
    Forbidden(&'static str),
    /// 404: there is none with this id, or it is someone else's; names what was asked for.
    NotFound(&'static str),
    /// 404: there is nothing at this path.
    NoSuchFile,
    /// 400: a body that cannot be read at all; says why.
    BadRequest(&'static str),
    /// 412: it has been changed since the client saw it; names what.
    PreconditionFailed(&'static str),
    /// 413: a body over the limit.
    PayloadTooLarge,
    /// 415: a body of another media type than JSON.
    UnsupportedMediaType,
    /// 422: fields with values that they cannot have.
    Invalid(Vec<FieldError>),
    /// 503: the database cannot be reached or cannot work now. The cause is for the log only.
    Unavailable(String),
    /// 503: the settings that are in Secrets Manager cannot be fetched now. The cause is for the log only.
    NoSettings(String),
    /// 500: a mistake of ours. The cause is for the log only.
    Internal(String),
}

/// Why there is no session; for the metrics only, never part of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthFailure {
    /// The request has no credential.
    Missing,
    /// The signature does not fit, or the form is one that Better Auth would not read.
    BadSignature,
    /// The token is not that of a live session.
    NoSession,
}

/// One field or parameter that has a value which it cannot have.
#[derive(Debug, PartialEq, Eq, serde::Serialize)]
pub struct FieldError {
    /// The field's or parameter's name.
    pub field: String,
    /// What is wrong with it, for a person.
    pub message: String,
}

impl Error {
    /// 422 for one field.
    pub fn invalid(field: &str, message: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldError { field: field.to_owned(), message: message.into() }])
    }

    /// The answer's status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::NotFound(_) | Self::NoSuchFile => StatusCode::NOT_FOUND,
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::PreconditionFailed(_) => StatusCode::PRECONDITION_FAILED,
            Self::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
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
            Self::NoSuchFile => "There is nothing at this path.",
            Self::PreconditionFailed(what) => {
                return format!("The {what} has been changed since: fetch it again.").into();
            }
            Self::PayloadTooLarge => "The body is larger than 256 KiB.",
            Self::UnsupportedMediaType => "The body has to be application/json.",
            Self::Invalid(fields) => {
                let sentences = fields.iter().map(|error| format!("{} {}.", error.field, error.message));
                return sentences.collect::<Vec<_>>().join(" ").into();
            }
            Self::Unavailable(_) => "The database does not answer. Try again.",
            Self::NoSettings(_) => "The API cannot read its settings. Try again.",
            Self::Internal(_) => "Something went wrong on our side.",
        })
    }

    /// What the log says of a failure that is not the client's; never part of an answer.
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
            Some(code) if !is_about_the_server(code) => Self::Internal(cause),
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

/// Whether an SQLSTATE is about the server's condition rather than about the statement.
///
/// Classes of PostgreSQL's appendix A: 08 connection, 28 and 3D refused at the door, 53 out of resources, 57 operator
/// intervention (shutdown, timeout), 58 system error, 55P03 and 40 contention; 25006 is a server gone read-only.
fn is_about_the_server(code: &SqlState) -> bool {
    ["08", "28", "3D", "40", "53", "57", "58"].iter().any(|class| code.code().starts_with(class))
        || *code == SqlState::LOCK_NOT_AVAILABLE
        || *code == SqlState::READ_ONLY_SQL_TRANSACTION
}

/// A database error for the log. A server's message is told only where it is about the server: others can quote values.
fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) if is_about_the_server(db.code()) => format!("{} (SQLSTATE {})", db.message(), db.code().code()),
        Some(db) => format!("the statement failed (SQLSTATE {})", db.code().code()),
        None => match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    }
}
