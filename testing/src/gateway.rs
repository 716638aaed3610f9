//! API Gateway as a function sees it: chooses the route of a request and builds the event (payload format 2.0).
use crate::openapi::{GREEDY, OpenApi, Route};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

/// A request as API Gateway forwards it to a function.
#[derive(Debug, Clone, Default)]
pub struct GatewayRequest {
    /// Upper case.
    pub method: String,
    /// Without the query, as the client sends it.
    pub path: String,
    /// Without the question mark.
    pub query: String,
    /// Names are in lower case. Cookies are not included.
    pub headers: Map<String, Value>,
    /// One `name=value` each.
    pub cookies: Vec<String>,
    /// As in the event.
    pub body: Option<String>,
    /// Whether the event marks the body as base64.
    pub is_base64: bool,
    /// API Gateway's request id.
    pub id: String,
    /// Time of arrival, in milliseconds since 1970.
    pub time_ms: u64,
}

impl OpenApi {
    /// Returns the route of a request and its path parameters, decoded. A full match wins over a greedy one, then the one
    /// with the fewest parameters.
    pub fn route(&self, method: &str, path: &str) -> Option<(&Route, Map<String, Value>)> {
        let segments: Vec<_> = path.split('/').collect();
        let routes = self.routes.iter().filter(|route| route.method == method);
        let matching = routes.flat_map(|route| {
            let paths = route.gateway_paths().into_iter();
            paths.filter_map(|path| path_parameters(&path, &segments)).map(move |parameters| (route, parameters))
        });
        matching.min_by_key(|(_, parameters)| (parameters.contains_key(GREEDY), parameters.len()))
    }
}

/// Returns the path parameters if the path of a route matches these segments.
fn path_parameters(path: &str, segments: &[&str]) -> Option<Map<String, Value>> {
    let (path, is_greedy) = match path.strip_suffix(&format!("/{{{GREEDY}+}}")) {
        Some(path) => (path, true),
        None => (path, false),
    };
    let parts: Vec<_> = path.split('/').collect();
    let (own, below) = segments.split_at_checked(parts.len())?;
    if is_greedy == below.is_empty() {
        return None;
    }
    let mut parameters = Map::new();
    for (part, segment) in parts.iter().zip(own) {
        match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            Some(_) if segment.is_empty() => return None,
            Some(name) => drop(parameters.insert(name.to_owned(), Value::from(decoded(segment)))),
            None if part == segment => {}
            None => return None,
        }
    }
    if is_greedy {
        parameters.insert(GREEDY.to_owned(), Value::from(decoded(&below.join("/"))));
    }
    Some(parameters)
}

/// Decodes a path as HTTP APIs do, before a function sees it.
fn decoded(path: &str) -> String {
    percent_decode_str(path).decode_utf8_lossy().into_owned()
}

impl GatewayRequest {
    /// Builds the event that a route's function receives.
    pub fn event(&self, route: &Route, parameters: &Map<String, Value>) -> Value {
        let greedy = if parameters.contains_key(GREEDY) { format!("/{{{GREEDY}+}}") } else { String::new() };
        let route_key = format!("{route}{greedy}");
        let path = decoded(&self.path);
        let mut event = json!({
            "version": "2.0",
            "routeKey": &route_key,
            "rawPath": &path,
            "rawQueryString": &self.query,
            "headers": &self.headers,
            "requestContext": {
                "accountId": "123456789012",
                "apiId": "local",
                "domainName": "127.0.0.1",
                "domainPrefix": "127",
                "http": {
                    "method": &self.method,
                    "path": &path,
                    "protocol": "HTTP/1.1",
                    "sourceIp": "127.0.0.1",
                    "userAgent": self.headers.get("user-agent"),
                },
                "requestId": &self.id,
                "routeKey": &route_key,
                "stage": "$default",
                "timeEpoch": self.time_ms,
            },
            "isBase64Encoded": self.is_base64,
        });
        if !self.cookies.is_empty() {
            event["cookies"] = json!(self.cookies);
        }
        if !parameters.is_empty() {
            event["pathParameters"] = json!(parameters);
        }
        if let Some(body) = &self.body {
            event["body"] = json!(body);
        }
        event
    }
}
