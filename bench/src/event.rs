//! Events in the format of API Gateway's HTTP APIs (payload format 2.0).
use serde_json::{Map, Value, json};

/// A request to a function.
pub struct Call<'c> {
    pub method: &'c str,
    pub path: String,
    /// The part of the URL after the question mark.
    pub query: &'c str,
    /// The task id in the path.
    pub task: Option<i64>,
    /// The session token.
    pub token: &'c str,
    pub body: Option<Value>,
}

impl Call<'_> {
    /// Returns the event as JSON text.
    pub fn event(&self) -> String {
        let Self { method, path, query, task, token, body } = self;
        let mut headers = json!({
            "accept": "application/json",
            "authorization": format!("Bearer {token}"),
            "host": "abc123.execute-api.eu-central-1.amazonaws.com",
            "user-agent": "bench/0.1",
            "x-amzn-trace-id": "Root=1-65f00000-0123456789abcdef01234567",
            "x-forwarded-for": "203.0.113.7",
            "x-forwarded-port": "443",
            "x-forwarded-proto": "https",
        });
        let body = body.as_ref().map(Value::to_string);
        if let Some(body) = &body {
            headers["content-type"] = json!("application/json");
            headers["content-length"] = json!(body.len().to_string());
        }
        let mut event = json!({
            "version": "2.0",
            "routeKey": "$default",
            "rawPath": path,
            "rawQueryString": query,
            "headers": headers,
            "requestContext": {
                "accountId": "123456789012",
                "apiId": "abc123",
                "domainName": "abc123.execute-api.eu-central-1.amazonaws.com",
                "domainPrefix": "abc123",
                "http": {
                    "method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "203.0.113.7", "userAgent": "bench/0.1",
                },
                "requestId": "JKJaXmPLvHcESHA=",
                "routeKey": "$default",
                "stage": "$default",
                "time": "12/Mar/2026:19:03:58 +0000",
                "timeEpoch": 1_773_342_238_000_u64,
            },
            "isBase64Encoded": false,
        });
        if !query.is_empty() {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            let pairs: Map<_, _> = pairs.map(|(name, value)| (name.to_owned(), json!(value))).collect();
            event["queryStringParameters"] = pairs.into();
        }
        if let Some(task) = task {
            event["pathParameters"] = json!({"id": task.to_string()});
        }
        if let Some(body) = body {
            event["body"] = json!(body);
        }
        event.to_string()
    }
}
