//! A stand-in for AWS Secrets Manager: GetSecretValue over TLS, from memory
//! (docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html).
//!
//! moto needs 45 ms for a request, more than the whole cold start of some of the programs.
use crate::http::{Request, read_request};
use anyhow::{Context as _, Result};
use native_tls::{Identity, TlsAcceptor};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    io::{BufReader, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::Arc,
    thread,
};

/// A running stand-in. It runs until the process exits.
pub struct SecretsManager {
    port: u16,
}

impl SecretsManager {
    /// Serves these secrets, by their ids, on a free port of 127.0.0.1. `certificate` and `key` are in PEM form.
    ///
    /// # Errors
    /// If the certificate and the key cannot be used, or there is no free port.
    pub fn start(certificate: &[u8], key: &[u8], secrets: HashMap<String, String>) -> Result<Self> {
        let identity = Identity::from_pkcs8(certificate, key).context("the certificate of the secrets' server")?;
        let (acceptor, secrets) = (Arc::new(TlsAcceptor::new(identity)?), Arc::new(secrets));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (acceptor, secrets) = (acceptor.clone(), secrets.clone());
                thread::spawn(move || serve(stream, &acceptor, &secrets));
            }
        });
        Ok(Self { port })
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

/// Serves one connection until it closes.
fn serve(stream: TcpStream, acceptor: &TlsAcceptor, secrets: &HashMap<String, String>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut stream = BufReader::new(acceptor.accept(stream).ok()?);
    loop {
        let request = read_request(&mut stream).ok()?;
        let (status, body) = answer(&request, secrets);
        let body = body.to_string();
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/x-amz-json-1.1\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.get_mut().write_all(answer.as_bytes()).ok()?;
        if request.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            return stream.get_mut().shutdown().ok();
        }
    }
}

/// Returns the status line's end and the body. The signature must be there. It is not verified.
fn answer(request: &Request, secrets: &HashMap<String, String>) -> (&'static str, Value) {
    let refuse = |error: &str| ("400 Bad Request", json!({"__type": error, "Message": "refused"}));
    let authorization = request.header("authorization").unwrap_or_default();
    let is_signed = authorization.starts_with("AWS4-HMAC-SHA256 Credential=")
        && authorization.split("Signature=").nth(1).is_some_and(|signature| signature.len() == 64)
        && request.header("x-amz-date").is_some();
    if !is_signed {
        return refuse("MissingAuthenticationToken");
    }
    if request.header("x-amz-target") != Some("secretsmanager.GetSecretValue") {
        return refuse("UnknownOperationException");
    }
    let body: Value = serde_json::from_slice(request.body()).unwrap_or_default();
    match body["SecretId"].as_str().and_then(|id| Some((id, secrets.get(id)?))) {
        Some((id, secret)) => {
            let value = json!({
                "ARN": format!("arn:aws:secretsmanager:eu-central-1:123456789012:secret:{id}-AbCdEf"),
                "CreatedDate": 1_773_342_238.0,
                "Name": id,
                "SecretString": secret,
                "VersionId": "00000000-0000-4000-8000-000000000000",
                "VersionStages": ["AWSCURRENT"],
            });
            ("200 OK", value)
        }
        None => refuse("ResourceNotFoundException"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(changes: &[(&str, &str)], body: &str) -> (&'static str, Value) {
        let signature = "0".repeat(64);
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential=a/20260101/r/s/aws4_request, SignedHeaders=host, Signature={signature}"
        );
        let mut headers = HashMap::from([
            ("authorization", authorization.as_str()),
            ("x-amz-date", "20260101T000000Z"),
            ("x-amz-target", "secretsmanager.GetSecretValue"),
        ]);
        headers.extend(changes.iter().copied());
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let message = format!("POST / HTTP/1.1\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len());
        let request = read_request(&mut message.as_bytes()).expect("a request");
        answer(&request, &HashMap::from([("api".to_owned(), "{\"DATABASE_URL\":\"x\"}".to_owned())]))
    }

    #[test]
    fn a_signed_request_gets_its_secret_and_nothing_else_does() {
        let (status, body) = ask(&[], r#"{"SecretId":"api"}"#);
        assert_eq!((status, &body["SecretString"]), ("200 OK", &json!("{\"DATABASE_URL\":\"x\"}")));
        for (changes, body, error) in [
            (("authorization", "Bearer x"), r#"{"SecretId":"api"}"#, "MissingAuthenticationToken"),
            (("x-amz-target", "secretsmanager.PutSecretValue"), r#"{"SecretId":"api"}"#, "UnknownOperationException"),
            (("x-other", "x"), r#"{"SecretId":"other"}"#, "ResourceNotFoundException"),
            (("x-other", "x"), "not JSON", "ResourceNotFoundException"),
        ] {
            let (status, body) = ask(&[changes], body);
            assert_eq!((status, body["__type"].as_str()), ("400 Bad Request", Some(error)));
        }
    }
}
