//! AWS Secrets Manager as a function meets it: moto behind TLS, with a front that counts the requests, can be switched off,
//! and can answer as AWS does where moto does not.
use crate::{logs::remember_secret, services::SERVICES};
use native_tls::Identity;
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_native_tls::TlsAcceptor;

/// The region of the tests' secrets.
const REGION: &str = "eu-central-1";

/// A secret in moto, and the front through which functions ask for it. It ends when this is dropped.
pub struct SecretsManager {
    secret: String,
    address: SocketAddr,
    state: Arc<State>,
    front: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    asked: AtomicU32,
    /// What the front answers by itself, as status and body.
    refusal: Mutex<Option<(u16, String)>>,
}

impl SecretsManager {
    /// A new secret with this content.
    pub async fn with_secret(content: &Value) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("api-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        remember(content);
        let made = ask("CreateSecret", json!({"Name": name, "SecretString": content.to_string()})).await;
        let secret = made["ARN"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned();
        let (listener, address) = listen("127.0.0.1:0".parse().expect("an address")).await;
        let mut manager = Self { secret, address, state: Arc::default(), front: None };
        manager.serve(listener);
        manager
    }

    /// The secret's ARN.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// The environment of a function that reads the secret from here.
    pub fn settings(&self) -> Vec<(String, String)> {
        [
            ("API_SECRET_ID", &*self.secret),
            ("AWS_ACCESS_KEY_ID", "testing"),
            ("AWS_SECRET_ACCESS_KEY", "testing"),
            ("AWS_SESSION_TOKEN", "the-session-token-of-the-functions-role"),
            ("AWS_ENDPOINT_URL_SECRETS_MANAGER", &format!("https://localhost:{}", self.address.port())),
            ("AWS_CA_BUNDLE", &SERVICES.certificate),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    /// Gives the secret another content.
    pub async fn put(&self, content: &Value) {
        remember(content);
        self.put_text(&content.to_string()).await;
    }

    /// As [`SecretsManager::put`], with what need not be JSON.
    pub async fn put_text(&self, text: &str) {
        ask("PutSecretValue", json!({"SecretId": self.secret, "SecretString": text})).await;
    }

    /// As [`SecretsManager::put`], with what is no text; base64.
    pub async fn put_binary(&self, base64: &str) {
        ask("PutSecretValue", json!({"SecretId": self.secret, "SecretBinary": base64})).await;
    }

    /// Deletes the secret at once.
    pub async fn delete(&self) {
        ask("DeleteSecret", json!({"SecretId": self.secret, "ForceDeleteWithoutRecovery": true})).await;
    }

    /// How often the secret was asked for.
    pub fn times_asked(&self) -> u32 {
        self.state.asked.load(Ordering::Relaxed)
    }

    /// From now on answers by itself, with an error type of AWS's; `None` asks moto again.
    pub fn refuse(&self, refusal: Option<(u16, &str)>) {
        let refusal = refusal.map(|(status, error)| (status, json!({"__type": error, "Message": "no"}).to_string()));
        *self.state.refusal.lock().expect("no test panicked in it") = refusal;
    }

    /// Refuses connections from now on.
    pub fn stop(&mut self) {
        if let Some(front) = self.front.take() {
            front.abort();
        }
    }

    /// Accepts connections again, at the same address.
    pub async fn restart(&mut self) {
        let (listener, _) = listen(self.address).await;
        self.serve(listener);
    }

    fn serve(&mut self, listener: TcpListener) {
        let read = |file: &str| std::fs::read(file).unwrap_or_else(|error| panic!("{file}: {error}"));
        let identity = Identity::from_pkcs8(&read(&SERVICES.certificate), &read(&SERVICES.certificate_key));
        let acceptor = native_tls::TlsAcceptor::new(identity.expect("a certificate and its key")).expect("TLS");
        let acceptor = Arc::new(TlsAcceptor::from(acceptor));
        let state = self.state.clone();
        self.front = Some(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(acceptor.clone(), stream, state.clone()));
            }
        }));
    }
}

impl Drop for SecretsManager {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A listener; where the port was used a moment ago, as soon as it is free.
async fn listen(address: SocketAddr) -> (TcpListener, SocketAddr) {
    for _ in 0..100 {
        if let Ok(listener) = TcpListener::bind(address).await {
            let address = listener.local_addr().expect("a bound port");
            return (listener, address);
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{address} is taken");
}

async fn answer(acceptor: Arc<TlsAcceptor>, stream: TcpStream, state: Arc<State>) {
    // A client that does not trust the certificate breaks off.
    let Ok(mut stream) = acceptor.accept(stream).await else { return };
    state.asked.fetch_add(1, Ordering::Relaxed);
    let refusal = state.refusal.lock().expect("no test panicked in it").clone();
    if let Some((status, body)) = refusal {
        let mut request = [0; 8192];
        let _ = stream.read(&mut request).await;
        let answer = format!("HTTP/1.1 {status} Refused\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.shutdown().await;
        return;
    }
    let mut moto = TcpStream::connect(moto_address()).await.expect("moto runs");
    let _ = copy_bidirectional(&mut stream, &mut moto).await;
}

fn moto_address() -> &'static str {
    SERVICES.moto_url.trim_start_matches("http://")
}

/// Notes what no log may have.
fn remember(content: &Value) {
    for value in content.as_object().into_iter().flat_map(|settings| settings.values()) {
        // URLs have the names of tests' databases in them, which may be logged: their passwords may not.
        let text = value.as_str().unwrap_or_default();
        let secret = text.split_once("://").map_or(text, |(_, rest)| {
            rest.split(['@', '/']).next().and_then(|user| user.split_once(':')).map_or("", |(_, password)| password)
        });
        if secret.len() >= 8 {
            remember_secret(secret);
        }
    }
}

/// Asks moto for an operation, without a signature: as the tests start it, it looks at the region alone.
async fn ask(operation: &str, mut body: Value) -> Value {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let (head, tail) = (std::process::id(), number);
    body["ClientRequestToken"] = json!(format!("{head:08}-0000-0000-0000-{tail:012}"));
    let body = body.to_string();
    let request = format!(
        "POST / HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-length: {}\r\nx-amz-target: secretsmanager.{operation}\r\ncontent-type: application/x-amz-json-1.1\r\nauthorization: AWS4-HMAC-SHA256 Credential=testing/20260101/{REGION}/secretsmanager/aws4_request, SignedHeaders=host, Signature=0\r\n\r\n{body}",
        moto_address(),
        body.len()
    );
    let mut moto = TcpStream::connect(moto_address()).await.expect("moto runs");
    moto.write_all(request.as_bytes()).await.expect("moto listens");
    let mut answer = Vec::new();
    moto.read_to_end(&mut answer).await.expect("moto answers");
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP: {answer}"));
    assert!(head.starts_with("HTTP/1.1 200"), "{operation}: {answer}");
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"))
}
