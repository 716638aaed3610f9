//! The settings that are secret, from AWS Secrets Manager by way of the AWS Parameters and Secrets extension.
//!
//! The extension is a second process beside the function. It answers on a local port, so no function needs the AWS SDK and
//! its seven megabytes (docs.aws.amazon.com/secretsmanager/latest/userguide/retrieving-secrets_lambda.html).
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};
use tokio::{net::TcpStream, time::timeout};

/// How long one answer may take, in seconds.
const ANSWER_TIMEOUT_S: u64 = 2;
/// How long to wait before asking again whether it is ready, in milliseconds.
const READY_POLL_MS: u64 = 20;
/// The longest answer that is read, in bytes. A secret has at most 64 KiB (AWS Secrets Manager's quotas).
const MAX_ANSWER_BYTES: usize = 256 * 1024;

/// A secret's content: settings by name, such as `DATABASE_URL`.
pub(crate) type SecretSettings = HashMap<String, String>;

/// Which secret, and where the extension is. It cannot be printed.
pub(crate) struct SecretSource {
    secret_id: String,
    port: u16,
    session_token: String,
}

/// Why a secret could not be had; never with any of it.
#[derive(Debug)]
enum Failure {
    /// The extension does not answer yet.
    NotReady(String),
    Final(String),
}

impl SecretSource {
    /// The source that the settings name: `API_SECRET_ID` is the secret's name or ARN; without it there is none.
    ///
    /// # Errors
    /// One sentence that names the setting that is wrong.
    pub(crate) fn from_settings(get: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, String> {
        let get = |name: &str| get(name).filter(|value| !value.trim().is_empty());
        let Some(secret_id) = get("API_SECRET_ID") else { return Ok(None) };
        let port = get("PARAMETERS_SECRETS_EXTENSION_HTTP_PORT").unwrap_or_else(|| "2773".to_owned());
        let port = port.parse().map_err(|_| "PARAMETERS_SECRETS_EXTENSION_HTTP_PORT is not a port's number")?;
        let session_token = get("AWS_SESSION_TOKEN")
            .ok_or("AWS_SESSION_TOKEN is not set: Lambda sets it, and API_SECRET_ID needs it")?;
        Ok(Some(Self { secret_id, port, session_token }))
    }

    /// Fetches the secret's current version, and waits up to `ready_within` for an extension that is still starting.
    ///
    /// # Errors
    /// One sentence with the cause, for the log.
    pub(crate) async fn fetch(&self, ready_within: Duration) -> Result<SecretSettings, String> {
        let began = Instant::now();
        loop {
            match self.fetch_once().await {
                Ok(settings) => return Ok(settings),
                Err(Failure::NotReady(_)) if began.elapsed() < ready_within => {
                    tokio::time::sleep(Duration::from_millis(READY_POLL_MS)).await;
                }
                Err(Failure::NotReady(cause) | Failure::Final(cause)) => return Err(cause),
            }
        }
    }

    async fn fetch_once(&self) -> Result<SecretSettings, Failure> {
        match timeout(Duration::from_secs(ANSWER_TIMEOUT_S), self.ask()).await {
            Ok(Ok((StatusCode::OK, body))) => parse(&body).map_err(Failure::Final),
            // Its own words; the answer's text can be told, because only a good one has the secret.
            Ok(Ok((status, body))) => {
                let text = String::from_utf8_lossy(&body);
                let cause = format!("the secrets extension answered {status} ({})", first_line(&text));
                Err(if text.contains("not ready") { Failure::NotReady(cause) } else { Failure::Final(cause) })
            }
            Ok(Err(cause)) => Err(Failure::NotReady(cause)),
            Err(_) => Err(Failure::Final(format!("the secrets extension did not answer within {ANSWER_TIMEOUT_S} s"))),
        }
    }

    async fn ask(&self) -> Result<(StatusCode, Bytes), String> {
        let stream = TcpStream::connect(("127.0.0.1", self.port))
            .await
            .map_err(|error| format!("the secrets extension cannot be reached: {error}"))?;
        let broken = |error: hyper::Error| format!("the secrets extension broke off: {error}");
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let connection = tokio::spawn(connection);
        let secret_id = utf8_percent_encode(&self.secret_id, NON_ALPHANUMERIC);
        let request = Request::get(format!("/secretsmanager/get?secretId={secret_id}"))
            .header("host", "localhost")
            .header("x-aws-parameters-secrets-token", &self.session_token)
            .body(Empty::<Bytes>::new())
            .map_err(|_| "AWS_SESSION_TOKEN is not one that a header can carry".to_owned())?;
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
        connection.abort();
        Ok((status, body.map_err(|error| format!("the secrets extension broke off: {error}"))?.to_bytes()))
    }
}

/// What Secrets Manager's GetSecretValue gives, as far as it is used.
#[derive(Deserialize)]
struct SecretValue {
    #[serde(rename = "SecretString")]
    secret_string: Option<String>,
}

fn parse(body: &[u8]) -> Result<SecretSettings, String> {
    let value: SecretValue =
        serde_json::from_slice(body).map_err(|_| "the secrets extension's answer is not one of Secrets Manager's")?;
    let text = value.secret_string.ok_or("the secret of API_SECRET_ID is binary: it has to be a JSON object")?;
    serde_json::from_str(&text).map_err(|_| {
        "the secret of API_SECRET_ID is not a JSON object of texts, such as {\"DATABASE_URL\": \"...\", \"BETTER_AUTH_SECRET\": \"...\"}"
            .to_owned()
    })
}

fn first_line(text: &str) -> &str {
    let line = text.lines().next().unwrap_or_default();
    line.get(..200).unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_a_json_object_of_texts() {
        let settings = parse(br#"{"Name":"x","SecretString":"{\"DATABASE_URL\":\"postgres://a\"}"}"#).unwrap();
        assert_eq!(settings["DATABASE_URL"], "postgres://a");
        for wrong in [
            "s3cret",
            r#"{"SecretBinary":"s3cret"}"#,
            r#"{"SecretString":"s3cret"}"#,
            r#"{"SecretString":"{\"DATABASE_URL\":{\"s3cret\":1}}"}"#,
        ] {
            let error = parse(wrong.as_bytes()).unwrap_err();
            assert!(!error.contains("s3cret"), "{error}");
        }
    }
}
