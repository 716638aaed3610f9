//! The parts of the floor: a minimal Lambda runtime and one SQL statement.
use chrono::NaiveDateTime;
use native_tls::{Certificate, TlsConnector};
use postgres_native_tls::MakeTlsConnector;
use serde::Serialize;
use std::{
    env,
    error::Error,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
};
use tokio_postgres::{Client, Row, types::Type};

/// Session check and list in one statement. No row: no valid session. One row of nulls: no tasks.
const LIST: &str = "
    select t.id, t.user_id, t.title, t.description, t.completed, t.created_at, t.updated_at
    from session s
    left join lateral (
        select * from tasks where user_id = s.user_id
        order by created_at desc, id desc
        limit 50) t on true
    where s.token = $1 and s.expires_at > now() at time zone 'UTC'";

#[derive(Serialize)]
struct Task<'row> {
    id: i32,
    user_id: &'row str,
    title: &'row str,
    description: Option<&'row str>,
    completed: bool,
    created_at: NaiveDateTime,
    updated_at: NaiveDateTime,
}

/// Opens one TLS connection. The server's certificate is verified with `roots` (PEM).
pub async fn connect(url: &str, roots: &[u8]) -> Result<Client, Box<dyn Error>> {
    let roots = Certificate::from_pem(roots)?;
    let tls = TlsConnector::builder().disable_built_in_roots(true).add_root_certificate(roots).build()?;
    let (client, connection) = tokio_postgres::connect(url, MakeTlsConnector::new(tls)).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Returns the status and body for a session token.
pub async fn list(client: &Client, token: &str) -> Result<(u16, String), Box<dyn Error>> {
    let rows = client.query_typed(LIST, &[(&token, Type::TEXT)]).await?;
    if rows.is_empty() {
        return Ok((401, r#"{"detail":"no live session"}"#.to_owned()));
    }
    let tasks: Vec<_> = rows.iter().filter(|row| row.get::<_, Option<i32>>(0).is_some()).map(task).collect();
    Ok((200, serde_json::to_string(&tasks)?))
}

fn task(row: &Row) -> Task<'_> {
    Task {
        id: row.get(0),
        user_id: row.get(1),
        title: row.get(2),
        description: row.get(3),
        completed: row.get(4),
        created_at: row.get(5),
        updated_at: row.get(6),
    }
}

/// Builds a response in the format of API Gateway's HTTP APIs.
pub fn answer(status: u16, body: &str) -> String {
    let headers = serde_json::json!({"content-type": "application/json"});
    serde_json::json!({"statusCode": status, "headers": headers, "body": body, "isBase64Encoded": false}).to_string()
}

/// A blocking Lambda runtime with a single connection.
pub struct Runtime {
    api: String,
    stream: BufReader<TcpStream>,
}

impl Runtime {
    /// Connects to the Runtime API in `AWS_LAMBDA_RUNTIME_API`.
    ///
    /// # Errors
    /// If the variable is not set or the connection fails.
    pub fn connect() -> io::Result<Self> {
        let api = env::var("AWS_LAMBDA_RUNTIME_API").map_err(io::Error::other)?;
        let stream = TcpStream::connect(&api)?;
        stream.set_nodelay(true)?;
        Ok(Self { api, stream: BufReader::new(stream) })
    }

    /// Waits for the next event. Returns its request id and the event.
    ///
    /// # Errors
    /// If the Runtime API closes the connection.
    pub fn next_event(&mut self) -> io::Result<(String, Vec<u8>)> {
        let request = format!("GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: {}\r\n\r\n", self.api);
        self.stream.get_mut().write_all(request.as_bytes())?;
        self.read()
    }

    /// Sends the response to an event.
    ///
    /// # Errors
    /// If the Runtime API closes the connection.
    pub fn respond(&mut self, request_id: &str, answer: &str) -> io::Result<()> {
        let request = format!(
            "POST /2018-06-01/runtime/invocation/{request_id}/response HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{answer}",
            self.api,
            answer.len()
        );
        self.stream.get_mut().write_all(request.as_bytes())?;
        self.read().map(drop)
    }

    fn read(&mut self) -> io::Result<(String, Vec<u8>)> {
        let (mut request_id, mut length, mut line) = (String::new(), 0, String::new());
        loop {
            line.clear();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let Some((name, value)) = line.trim_end().split_once(':') else {
                if line.trim_end().is_empty() {
                    break;
                }
                continue;
            };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().map_err(io::Error::other)?;
            } else if name.eq_ignore_ascii_case("lambda-runtime-aws-request-id") {
                request_id = value.trim().to_owned();
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok((request_id, body))
    }
}
