//! Conditional requests (RFC 9110, section 13): against lost updates, and against sending a task that
//! the client already has.
use crate::{
    error::Error,
    http::request::Request,
    tasks::task::{EntityTag, Task},
};

/// Maximum length of a list of entity tags, in bytes.
const MAX_TAGS_BYTES: usize = 8000;

/// The version that a task must have for the client's change to apply.
#[derive(Debug, PartialEq, Eq)]
pub enum IfMatch {
    /// Any version: the header is absent or `*`.
    Anything,
    /// A version with one of these tags.
    OneOf(Vec<i64>),
}

impl IfMatch {
    /// Reads the `If-Match` header. Weak tags, and tags that no task can have, match nothing.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the list is too long.
    pub fn from_request(request: &Request) -> Result<Self, Error> {
        Ok(match tags(request, "If-Match")? {
            None | Some("*") => Self::Anything,
            Some(list) => {
                Self::OneOf(list.split(',').filter_map(|tag| EntityTag::parse(tag.trim())).map(|it| it.0).collect())
            }
        })
    }

    pub(crate) fn tags(&self) -> Option<&[i64]> {
        match self {
            Self::Anything => None,
            Self::OneOf(tags) => Some(tags),
        }
    }
}

/// Whether `If-None-Match` shows that the client already has this version of `task`. Tags are compared weakly.
///
/// # Errors
/// [`Error::Invalid`] if the list is too long.
pub(crate) fn is_not_modified(request: &Request, task: &Task) -> Result<bool, Error> {
    let Some(list) = tags(request, "If-None-Match")? else { return Ok(false) };
    let tag = task.etag();
    let is_tag = |text: &str| EntityTag::parse(text.strip_prefix("W/").unwrap_or(text)) == Some(tag);
    Ok(list == "*" || list.split(',').any(|text| is_tag(text.trim())))
}

/// Returns the value of a header that holds a list of tags, or `*`.
///
/// # Errors
/// [`Error::Invalid`] if the list is too long.
pub(crate) fn tags<'r>(request: &'r Request, name: &str) -> Result<Option<&'r str>, Error> {
    match request.header(&name.to_ascii_lowercase()) {
        Some(list) if list.len() > MAX_TAGS_BYTES => {
            Err(Error::invalid(name, format!("must have at most {MAX_TAGS_BYTES} bytes")))
        }
        list => Ok(list.map(str::trim)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn if_match(header: Option<&str>) -> IfMatch {
        let mut event = serde_json::json!({"requestContext": {"http": {"method": "PUT"}}});
        if let Some(header) = header {
            event["headers"] = serde_json::json!({"if-match": header});
        }
        IfMatch::from_request(&serde_json::from_value(event).unwrap()).unwrap()
    }

    #[test]
    fn only_a_tag_as_it_was_sent_matches() {
        assert_eq!(if_match(None), IfMatch::Anything);
        assert_eq!(if_match(Some(" * ")), IfMatch::Anything);
        assert_eq!(if_match(Some("\"5f\"")), IfMatch::OneOf(vec![0x5f]));
        assert_eq!(if_match(Some("\"5f\" , \"60\"")), IfMatch::OneOf(vec![0x5f, 0x60]));
        for other in ["", "5f", "\"5F\"", "\"05f\"", "\"+5f\"", "W/\"5f\"", "\"\"", "\"ffffffffffffffff\"", "\"5f"] {
            assert_eq!(if_match(Some(other)), IfMatch::OneOf(vec![]), "{other}");
        }
    }
}
