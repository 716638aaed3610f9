//! The request, in the format of API Gateway's HTTP API (payload format 2.0).
//!
//! lambda_http's conversion is not used: one non-ASCII character in any header makes it refuse the event, one in any
//! cookie makes it drop all cookies, and a body that is not valid base64 makes it panic. Clients control all three.
use crate::error::Error;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use lambda_http::http::Method;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::{borrow::Cow, collections::HashMap};

/// Maximum size of a body, in bytes.
const MAX_BODY_BYTES: usize = 256 * 1024;

/// A request as the client sent it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    #[serde(default)]
    route_key: Option<String>,
    #[serde(default)]
    raw_path: Option<String>,
    #[serde(default)]
    raw_query_string: Option<String>,
    #[serde(default)]
    cookies: Option<Vec<String>>,
    #[serde(default)]
    headers: Option<HashMap<String, String>>,
    #[serde(default)]
    path_parameters: Option<HashMap<String, String>>,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    is_base64_encoded: bool,
    request_context: RequestContext,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RequestContext {
    #[serde(default)]
    request_id: Option<String>,
    http: HttpContext,
}

#[derive(Deserialize)]
struct HttpContext {
    #[serde(deserialize_with = "method")]
    method: Method,
}

impl Request {
    /// Parses the body, which must be a JSON object.
    ///
    /// # Errors
    /// [`Error::UnsupportedMediaType`], [`Error::PayloadTooLarge`], [`Error::BadRequest`] if it is not JSON, and
    /// [`Error::Invalid`] if it is JSON but not an object.
    pub fn json_object(&self) -> Result<Map<String, Value>, Error> {
        if !self.header("content-type").is_none_or(is_json) {
            return Err(Error::UnsupportedMediaType);
        }
        match serde_json::from_slice(&self.body()?) {
            Ok(Value::Object(object)) => Ok(object),
            Ok(_) => Err(Error::invalid("body", "must be a JSON object")),
            Err(_) => Err(Error::BadRequest("The body is not valid JSON.")),
        }
    }

    /// Whether the body is absent or empty.
    pub fn has_no_body(&self) -> bool {
        self.body.as_deref().unwrap_or_default().is_empty()
    }

    /// The query parameters, decoded, in the order in which they were sent.
    pub fn query(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        form_urlencoded::parse(self.raw_query_string.as_deref().unwrap_or_default().as_bytes())
    }

    /// The value of a header. `name` must be in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        // API Gateway sends names in lower case. The second look-up is for emulators that do not.
        let headers = self.headers.as_ref()?;
        let value = headers
            .get(name)
            .or_else(|| headers.iter().find_map(|(known, value)| known.eq_ignore_ascii_case(name).then_some(value)));
        value.map(String::as_str)
    }

    pub(crate) fn method(&self) -> &Method {
        &self.request_context.http.method
    }

    /// The path. API Gateway decodes its percent-encoding.
    pub fn path(&self) -> &str {
        self.raw_path.as_deref().unwrap_or_default()
    }

    /// Refuses a path that goes on below the route's. API Gateway has no routes that end with a slash, so
    /// `/api/tasks/{proxy+}` accepts `/api/tasks/`, and it matches all deeper paths too.
    ///
    /// # Errors
    /// [`Error::NoSuchPath`].
    pub(crate) fn check_end_of_path(&self) -> Result<(), Error> {
        let below = self.path_parameter("proxy").unwrap_or_default();
        if below.trim_matches('/').is_empty() { Ok(()) } else { Err(Error::NoSuchPath) }
    }

    /// The user id in the path, in `/api/{user_id}/tasks`.
    pub(crate) fn path_user_id(&self) -> Option<String> {
        self.path_parameter("user_id").map(Cow::into_owned)
    }

    /// All cookies, in the order in which they were sent.
    pub(crate) fn cookies(&self) -> impl Iterator<Item = &str> {
        let listed = self.cookies.iter().flatten().map(String::as_str);
        // API Gateway moves the header's content into the list; emulators leave it in the header.
        let header = if self.cookies.as_ref().is_none_or(Vec::is_empty) { self.header("cookie") } else { None };
        listed.chain(header)
    }

    /// API Gateway's id of the request, which is also in its access log.
    pub(crate) fn gateway_request_id(&self) -> &str {
        self.request_context.request_id.as_deref().unwrap_or_default()
    }

    /// The matched route for the log, such as `GET /api/tasks/{id}`. If the gateway does not name one, as with `cargo
    /// lambda watch`, only the method is logged: a path can contain a client's data, and the log names the function
    /// anyway.
    pub(crate) fn route(&self) -> String {
        match self.route_key() {
            Some(route_key) => route_key.to_owned(),
            None => format!("{} ...", self.method()),
        }
    }

    /// A path parameter, decoded once. An HTTP API has decoded it (a captured event:
    /// github.com/aws-powertools/powertools-lambda-python/issues/1098); `cargo lambda watch`, which names no route, has
    /// not.
    pub(crate) fn path_parameter(&self, name: &str) -> Option<Cow<'_, str>> {
        let value = self.path_parameters.as_ref()?.get(name)?;
        let is_decoded = self.route_key().is_some();
        Some(if is_decoded { value.into() } else { percent_decode_str(value).decode_utf8_lossy() })
    }

    /// The matched route, if the gateway names it.
    fn route_key(&self) -> Option<&str> {
        self.route_key.as_deref().filter(|key| key.contains(" /"))
    }

    fn body(&self) -> Result<Cow<'_, [u8]>, Error> {
        let body = self.body.as_deref().unwrap_or_default();
        let body = if self.is_base64_encoded {
            if body.len() / 4 * 3 > MAX_BODY_BYTES + 2 {
                return Err(Error::PayloadTooLarge);
            }
            Cow::Owned(STANDARD.decode(body).map_err(|_| Error::BadRequest("The body is not valid base64."))?)
        } else {
            Cow::Borrowed(body.as_bytes())
        };
        if body.len() > MAX_BODY_BYTES { Err(Error::PayloadTooLarge) } else { Ok(body) }
    }
}

/// Whether it is `application/json`, with or without parameters, or a type based on JSON (RFC 6839).
fn is_json(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media_type == "application/json" || (media_type.starts_with("application/") && media_type.ends_with("+json"))
}

/// Parses the method. An event with an invalid one is refused: it cannot have matched a route.
fn method<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Method, D::Error> {
    let text = Cow::<str>::deserialize(deserializer)?;
    Method::from_bytes(text.as_bytes()).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn request(mut event: Value) -> Request {
        if event["requestContext"].is_null() {
            event["requestContext"] = json!({"http": {"method": "GET"}});
        }
        serde_json::from_value(event).unwrap()
    }

    #[test]
    fn the_route_is_logged_without_parameter_values() {
        let keyed = request(json!({"routeKey": "GET /api/tasks/{id}", "rawPath": "/api/tasks/7"}));
        assert_eq!(keyed.route(), "GET /api/tasks/{id}");
        let slash = request(json!({"routeKey": "GET /api/tasks/{proxy+}", "rawPath": "/api/tasks/a-token"}));
        assert_eq!(slash.route(), "GET /api/tasks/{proxy+}");
        let unknown = request(json!({"routeKey": "$default", "rawPath": "/api/a-token/tasks"}));
        assert_eq!(unknown.route(), "GET ...", "a client's data must not reach the log");
    }

    #[test]
    fn a_path_parameter_is_decoded_once_whoever_does_it() {
        let parameter = |route_key: &str, value: &str| {
            let event = request(json!({"routeKey": route_key, "pathParameters": {"user_id": value}}));
            event.path_user_id().unwrap()
        };
        for (sent, id) in [("ada", "ada"), ("a%20b", "a b"), ("%2561da", "%61da"), ("100%", "100%")] {
            let decoded = percent_decode_str(sent).decode_utf8_lossy().into_owned();
            assert_eq!(parameter("GET /api/{user_id}/tasks", &decoded), id, "API Gateway: {sent}");
            assert_eq!(parameter("$default", sent), id, "cargo lambda watch: {sent}");
        }
    }

    #[test]
    fn a_path_may_end_with_a_slash_and_with_nothing_more() {
        let with = |below: Value| request(json!({"pathParameters": {"proxy": below}}));
        for end in ["", "/", "%2F"] {
            assert!(with(json!(end)).check_end_of_path().is_ok(), "{end}");
        }
        assert!(request(json!({"pathParameters": {"id": "7"}})).check_end_of_path().is_ok());
        assert!(request(json!({})).check_end_of_path().is_ok());
        for more in ["7", "7/", "/7", "%37", " ", "\0"] {
            assert!(matches!(with(json!(more)).check_end_of_path(), Err(Error::NoSuchPath)), "{more}");
        }
    }

    #[test]
    fn characters_outside_of_ascii_lose_no_header_and_no_cookie() {
        let request =
            request(json!({"headers": {"X-Name": "Zoë", "Origin": "https://a"}, "cookies": ["name=Zoë", "b=2"]}));
        assert_eq!(request.header("x-name"), Some("Zoë"));
        assert_eq!(request.header("origin"), Some("https://a"));
        assert_eq!(request.cookies().collect::<Vec<_>>(), ["name=Zoë", "b=2"]);
    }

    #[test]
    fn a_body_is_read_by_its_media_type_and_size() {
        let body = |content_type: Value, body: &str, base64: bool| {
            let headers = if content_type.is_null() { json!({}) } else { json!({"content-type": content_type}) };
            request(json!({"headers": headers, "body": body, "isBase64Encoded": base64})).json_object()
        };
        for media_type in [
            json!(null),
            json!("application/json"),
            json!("Application/JSON; charset=utf-8"),
            json!("application/merge-patch+json"),
        ] {
            assert!(body(media_type.clone(), "{}", false).is_ok(), "{media_type}");
        }
        for media_type in ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonp"] {
            assert!(matches!(body(json!(media_type), "{}", false), Err(Error::UnsupportedMediaType)), "{media_type}");
        }
        assert!(body(json!(null), "e30=", true).is_ok());
        for (text, base64) in
            [("", false), ("{", false), ("nonsense", false), ("{}", true), ("//79", true), ("\u{FEFF}{}", false)]
        {
            assert!(matches!(body(json!(null), text, base64), Err(Error::BadRequest(_))), "{text}");
        }
        for other in ["null", "[]", "1", "\"x\""] {
            assert!(matches!(body(json!(null), other, false), Err(Error::Invalid(_))), "{other}");
        }
        let padded = |length: usize| format!("{{}}{}", " ".repeat(length - 2));
        assert!(body(json!(null), &padded(MAX_BODY_BYTES), false).is_ok());
        assert!(matches!(body(json!(null), &padded(MAX_BODY_BYTES + 1), false), Err(Error::PayloadTooLarge)));
        assert!(body(json!(null), &STANDARD.encode(padded(MAX_BODY_BYTES)), true).is_ok());
        assert!(matches!(
            body(json!(null), &STANDARD.encode(padded(MAX_BODY_BYTES + 1)), true),
            Err(Error::PayloadTooLarge)
        ));
        assert!(matches!(body(json!(null), &"[".repeat(200), false), Err(Error::BadRequest(_))));
    }
}
