//! Requests over HTTP to an API that runs already. They are written byte for byte, because HTTP clients change some of
//! the paths that the tests send.
use crate::api::Request;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::{Map, Value, json};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// Seconds to wait for a response before the test fails. It includes the start of a container.
const ANSWER_TIMEOUT_S: u64 = 60;

/// What the first line of a request cannot contain. Everything else is sent unchanged.
const UNSENDABLE: &AsciiSet = &CONTROLS.add(b' ');

/// Headers that the gateway adds to a function's response, apart from those for CORS.
const GATEWAY_HEADERS: [&str; 4] = ["connection", "content-length", "date", "server"];

/// Whether a function gets this request's event over HTTP: headers without control characters, and a body in UTF-8, which is
/// the only kind that SAM forwards.
pub fn is_sendable(request: &Request) -> bool {
    let is_text = |value: &str| !value.contains(|character: char| character.is_control());
    let mut headers = request.headers.values().filter_map(Value::as_str).chain(request.cookies.iter().map(|it| &**it));
    headers.all(is_text) && body(request).is_some_and(|body| String::from_utf8(body).is_ok())
}

/// Sends a request to an address, and returns the response as a function would have returned it.
pub async fn send(address: &str, request: &Request) -> Value {
    let what = format!("{} {}", request.method, request.path);
    assert!(is_sendable(request), "{what}: SAM does not forward this");
    let mut stream = TcpStream::connect(address).await.unwrap_or_else(|error| panic!("{address}: {error}"));
    let exchange = async {
        stream.write_all(&message(address, request)).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = timeout(Duration::from_secs(ANSWER_TIMEOUT_S), exchange).await;
    let answer =
        answer.unwrap_or_else(|_| panic!("{what}: no answer")).unwrap_or_else(|error| panic!("{what}: {error}"));
    parse(&answer).unwrap_or_else(|| panic!("{what}: not an HTTP response: {}", String::from_utf8_lossy(&answer)))
}

/// Returns the body's bytes. `None` if the event marks it as base64, but it is not valid base64.
fn body(request: &Request) -> Option<Vec<u8>> {
    let body = request.body.as_deref().unwrap_or_default();
    if request.is_base64 { STANDARD.decode(body).ok() } else { Some(body.as_bytes().to_vec()) }
}

fn message(address: &str, request: &Request) -> Vec<u8> {
    let encoded = |text: &str| utf8_percent_encode(text, UNSENDABLE).to_string();
    let query = if request.query.is_empty() { String::new() } else { format!("?{}", encoded(&request.query)) };
    let mut head = format!(
        "{} {}{query} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n",
        request.method,
        encoded(&request.path)
    );
    for (name, value) in &request.headers {
        head += &format!("{name}: {}\r\n", value.as_str().expect("text"));
    }
    if !request.cookies.is_empty() {
        head += &format!("cookie: {}\r\n", request.cookies.join("; "));
    }
    let body = body(request).expect("a sendable body");
    if request.body.is_some() {
        head += &format!("content-length: {}\r\n", body.len());
    }
    [head.as_bytes(), b"\r\n", &body].concat()
}

/// Parses a response that ends with the connection.
fn parse(answer: &[u8]) -> Option<Value> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let (head, body) = (std::str::from_utf8(&answer[..end]).ok()?, &answer[end + 4..]);
    let mut lines = head.split("\r\n");
    let status: u16 = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let mut headers = Map::new();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let name = name.to_ascii_lowercase();
        // SAM adds a media type to a response without a body.
        let is_added = GATEWAY_HEADERS.contains(&&*name) || (name == "content-type" && body.is_empty());
        if !is_added && !name.starts_with("access-control-") {
            headers.insert(name, json!(value.trim()));
        }
    }
    // As in the function's response: base64 if it is binary.
    let body = String::from_utf8(body.to_vec()).unwrap_or_else(|binary| STANDARD.encode(binary.as_bytes()));
    Some(json!({"statusCode": status, "headers": headers, "body": body}))
}
