//! API Gateway as a function meets it: which route a request takes, and the event that comes of it (payload format 2.0).
use crate::openapi::{OpenApi, Route};
use serde_json::{Map, Value, json};

/// A request as API Gateway passes it on.
#[derive(Debug, Clone, Default)]
pub struct GatewayRequest {
    /// In upper case.
    pub method: String,
    /// Without the query.
    pub path: String,
    /// Without its question mark.
    pub query: String,
    /// By names in lower case, without cookies.
    pub headers: Map<String, Value>,
    /// Each as `name=value`.
    pub cookies: Vec<String>,
    /// As it stands in the event.
    pub body: Option<String>,
    /// Whether the body is marked as base64.
    pub is_base64: bool,
    /// API Gateway's id of the request.
    pub id: String,
    /// When it arrived, in milliseconds since 1970.
    pub time_ms: u64,
}

impl OpenApi {
    /// The route that a request takes, and its parameters as they stand in the path: of several routes that match, the one with
    /// the fewest parameters.
    pub fn route(&self, method: &str, path: &str) -> Option<(&Route, Map<String, Value>)> {
        let segments: Vec<_> = path.split('/').collect();
        let matching = self.routes.iter().filter(|route| route.method == method).filter_map(|route| {
            let pattern: Vec<_> = route.path.split('/').collect();
            let mut parameters = Map::new();
            for (part, segment) in pattern.iter().zip(&segments) {
                match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
                    Some(_) if segment.is_empty() => return None,
                    Some(name) => drop(parameters.insert(name.to_owned(), Value::from(*segment))),
                    None if part == segment => {}
                    None => return None,
                }
            }
            (pattern.len() == segments.len()).then_some((route, parameters))
        });
        matching.min_by_key(|(_, parameters)| parameters.len())
    }
}

impl GatewayRequest {
    /// The event that the function behind a route gets.
    pub fn event(&self, route: &Route, parameters: &Map<String, Value>) -> Value {
        let route_key = route.to_string();
        let mut event = json!({
            "version": "2.0",
            "routeKey": &route_key,
            "rawPath": &self.path,
            "rawQueryString": &self.query,
            "headers": &self.headers,
            "requestContext": {
                "accountId": "123456789012",
                "apiId": "local",
                "domainName": "127.0.0.1",
                "domainPrefix": "127",
                "http": {
                    "method": &self.method,
                    "path": &self.path,
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
