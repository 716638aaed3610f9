//! The parts of the floor: a minimal Lambda runtime, one SQL statement, and one signed request to Secrets Manager.
use chrono::{NaiveDateTime, Utc};
use native_tls::{Certificate, TlsConnector};
use openssl::{hash::MessageDigest, pkey::PKey, sha::sha256, sign::Signer};
use postgres_native_tls::MakeTlsConnector;
use serde::Serialize;
use serde_json::Value;
use std::{
    env,
    error::Error,
    io::{self, BufRead, BufReader, Write as _},
    net::TcpStream,
    sync::Arc,
};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Row, Statement, types::Type};

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

/// Creates the TLS connector, which verifies servers with `roots` (PEM) only.
///
/// # Errors
/// If `roots` is not a certificate.
pub fn tls(roots: &[u8]) -> native_tls::Result<TlsConnector> {
    let roots = Certificate::from_pem(roots)?;
    TlsConnector::builder().disable_built_in_roots(true).add_root_certificate(roots).build()
}

/// Opens one connection to the database.
pub async fn connect(url: &str, tls: TlsConnector) -> Result<Client, Box<dyn Error>> {
    let (client, connection) = tokio_postgres::connect(url, MakeTlsConnector::new(tls)).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// The list's statement.
pub enum List {
    /// The server parses and plans the text for each call.
    Text,
    /// The server is still preparing the statement.
    BeingPrepared(JoinHandle<Result<Statement, tokio_postgres::Error>>),
    /// The server has prepared the statement.
    Prepared(Statement),
}

impl List {
    /// Sends the statement to be prepared, and does not wait for the answer: the first call receives it.
    pub async fn prepare(client: Arc<Client>) -> Self {
        let preparing = tokio::spawn(async move { client.prepare_typed(LIST, &[Type::TEXT]).await });
        // Lets the two tasks send it: the one that prepares, and the connection's.
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
        Self::BeingPrepared(preparing)
    }

    /// Returns the status and body for a session token.
    pub async fn call(&mut self, client: &Client, token: &str) -> Result<(u16, String), Box<dyn Error>> {
        if let Self::BeingPrepared(statement) = self {
            *self = Self::Prepared(statement.await??);
        }
        let rows = match self {
            Self::Prepared(statement) => client.query(statement, &[&token]).await?,
            _ => client.query_typed(LIST, &[(&token, Type::TEXT)]).await?,
        };
        if rows.is_empty() {
            return Ok((401, r#"{"detail":"no live session"}"#.to_owned()));
        }
        let tasks: Vec<_> = rows.iter().filter(|row| row.get::<_, Option<i32>>(0).is_some()).map(task).collect();
        Ok((200, serde_json::to_string(&tasks)?))
    }
}

/// The settings for a request to Secrets Manager, from Lambda's environment.
pub struct SecretSource {
    /// `https://` and host and port.
    endpoint: String,
    region: String,
    access_key: String,
    secret_key: String,
    session_token: String,
}

impl SecretSource {
    /// Reads the environment variables of AWS's SDKs.
    ///
    /// # Errors
    /// If one is not set.
    pub fn from_environment() -> Result<Self, env::VarError> {
        Ok(Self {
            endpoint: env::var("AWS_ENDPOINT_URL_SECRETS_MANAGER")?,
            region: env::var("AWS_REGION")?,
            access_key: env::var("AWS_ACCESS_KEY_ID")?,
            secret_key: env::var("AWS_SECRET_ACCESS_KEY")?,
            session_token: env::var("AWS_SESSION_TOKEN")?,
        })
    }

    /// Fetches a secret's `DATABASE_URL`.
    ///
    /// # Errors
    /// If Secrets Manager does not return it.
    pub fn database_url(&self, secret_id: &str, tls: &TlsConnector) -> Result<String, Box<dyn Error>> {
        let authority = self.endpoint.trim_start_matches("https://");
        let stream = TcpStream::connect(authority)?;
        stream.set_nodelay(true)?;
        let host = authority.split(':').next().unwrap_or_default();
        let mut stream = BufReader::new(tls.connect(host, stream)?);
        let body = serde_json::json!({ "SecretId": secret_id }).to_string();
        let time = Utc::now().format("%Y%m%dT%H%M%SZ").to_string();
        let headers = [
            ("content-type", "application/x-amz-json-1.1"),
            ("host", authority),
            ("x-amz-date", &time),
            ("x-amz-security-token", &self.session_token),
            ("x-amz-target", "secretsmanager.GetSecretValue"),
        ];
        let authorization = self.authorization("secretsmanager", &headers, &body)?;
        let mut request =
            format!("POST / HTTP/1.1\r\nauthorization: {authorization}\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        request += "\r\n";
        stream.get_mut().write_all((request + &body).as_bytes())?;
        let (_, answer) = read_response(&mut stream)?;
        let answer: Value = serde_json::from_slice(&answer)?;
        let secret: Value = serde_json::from_str(answer["SecretString"].as_str().ok_or("no secret")?)?;
        Ok(secret["DATABASE_URL"].as_str().ok_or("the secret has no DATABASE_URL")?.to_owned())
    }

    /// Signs a POST to `/` (AWS Signature Version 4). `headers` are sorted by name, in lower case.
    fn authorization(&self, service: &str, headers: &[(&str, &str)], body: &str) -> Result<String, Box<dyn Error>> {
        let time = headers.iter().find(|(name, _)| *name == "x-amz-date").map_or("", |(_, value)| value);
        let date = time.get(..8).ok_or("a time")?;
        let names: Vec<_> = headers.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let request = format!("POST\n/\n\n{lines}\n{names}\n{}", hex(&sha256(body.as_bytes())));
        let scope = format!("{date}/{}/{service}/aws4_request", self.region);
        let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex(&sha256(request.as_bytes())));
        let mut key = format!("AWS4{}", self.secret_key).into_bytes();
        for part in [date, &self.region, service, "aws4_request", &text] {
            let signing_key = PKey::hmac(&key)?;
            key = Signer::new(MessageDigest::sha256(), &signing_key)?.sign_oneshot_to_vec(part.as_bytes())?;
        }
        let (id, signature) = (&self.access_key, hex(&key));
        Ok(format!("AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}"))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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
        read_response(&mut self.stream)
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
        read_response(&mut self.stream).map(drop)
    }
}

/// Reads a response. Returns the request id of an event, and the body.
fn read_response(stream: &mut impl BufRead) -> io::Result<(String, Vec<u8>)> {
    let (mut request_id, mut length, mut line) = (String::new(), 0, String::new());
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
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
    stream.read_exact(&mut body)?;
    Ok((request_id, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// AWS's published test suite for Signature Version 4, `post-sts-header-before`
    /// (github.com/awslabs/aws-c-auth, tests/aws-signing-test-suite).
    #[test]
    fn the_signature_matches_that_of_aws_test_suite() {
        let token = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==";
        let source = SecretSource {
            endpoint: String::new(),
            region: "us-east-1".to_owned(),
            access_key: "AKIDEXAMPLE".to_owned(),
            secret_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned(),
            session_token: token.to_owned(),
        };
        let headers =
            [("host", "example.amazonaws.com"), ("x-amz-date", "20150830T123600Z"), ("x-amz-security-token", token)];
        let expected = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
            SignedHeaders=host;x-amz-date;x-amz-security-token, \
            Signature=85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead";
        assert_eq!(source.authorization("service", &headers, "").expect("signed"), expected);
    }
}
