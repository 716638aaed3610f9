//! AWS Secrets Manager as a function sees it: moto behind a TLS front. The front counts requests, can be stopped, and
//! can return AWS errors that moto does not produce.
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

/// The AWS region of the tests' secrets.
const REGION: &str = "eu-central-1";

/// A secret in moto, and the TLS front through which functions read it. Dropping this stops the front.
pub struct SecretsManager {
    secret: String,
    address: SocketAddr,
    state: Arc<State>,
    front: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    requests: AtomicU32,
    /// Status and body of the error that the front returns instead of asking moto.
    refusal: Mutex<Option<(u16, String)>>,
}

impl SecretsManager {
    /// Creates a secret with this content.
    pub async fn with_secret(content: &Value) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("api-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        remember_secrets(content);
        let made = call_moto("CreateSecret", json!({"Name": name, "SecretString": content.to_string()})).await;
        let secret = made["ARN"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned();
        let (listener, address) = listen("127.0.0.1:0".parse().expect("an address")).await;
        let mut manager = Self { secret, address, state: Arc::default(), front: None };
        manager.serve(listener);
        manager
    }

    /// Returns the environment variables of a function that reads this secret.
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

    /// Replaces the content of the secret.
    pub async fn put(&self, content: &Value) {
        remember_secrets(content);
        self.put_text(&content.to_string()).await;
    }

    /// Like [`SecretsManager::put`], with text that need not be JSON.
    pub async fn put_text(&self, text: &str) {
        call_moto("PutSecretValue", json!({"SecretId": self.secret, "SecretString": text})).await;
    }

    /// Like [`SecretsManager::put`], with binary content in base64.
    pub async fn put_binary(&self, base64: &str) {
        call_moto("PutSecretValue", json!({"SecretId": self.secret, "SecretBinary": base64})).await;
    }

    /// Deletes the secret immediately, without a recovery window.
    pub async fn delete(&self) {
        call_moto("DeleteSecret", json!({"SecretId": self.secret, "ForceDeleteWithoutRecovery": true})).await;
    }

    /// The number of requests that have reached the front.
    pub fn request_count(&self) -> u32 {
        self.state.requests.load(Ordering::Relaxed)
    }

    /// Makes the front return this status and AWS error type; with `None` it forwards to moto again.
    pub fn refuse(&self, refusal: Option<(u16, &str)>) {
        let refusal = refusal.map(|(status, error)| (status, json!({"__type": error, "Message": "no"}).to_string()));
        *self.state.refusal.lock().expect("no thread panicked with the lock") = refusal;
    }

    /// Stops accepting connections.
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

/// Binds a listener, and waits up to a second for a port that was in use just now.
async fn listen(address: SocketAddr) -> (TcpListener, SocketAddr) {
    for _ in 0..100 {
        if let Ok(listener) = TcpListener::bind(address).await {
            let address = listener.local_addr().expect("a bound port");
            return (listener, address);
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{address} is in use");
}

async fn answer(acceptor: Arc<TlsAcceptor>, stream: TcpStream, state: Arc<State>) {
    // A client that does not trust the certificate aborts the handshake.
    let Ok(mut stream) = acceptor.accept(stream).await else { return };
    state.requests.fetch_add(1, Ordering::Relaxed);
    let refusal = state.refusal.lock().expect("no thread panicked with the lock").clone();
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

/// Records the secrets among these settings, which must not appear in any log.
fn remember_secrets(content: &Value) {
    for value in content.as_object().into_iter().flat_map(|settings| settings.values()) {
        // Of a URL, only the password is secret: the name of a test's database may be logged.
        let text = value.as_str().unwrap_or_default();
        let secret = text.split_once("://").map_or(text, |(_, rest)| {
            rest.split(['@', '/']).next().and_then(|user| user.split_once(':')).map_or("", |(_, password)| password)
        });
        if secret.len() >= 8 {
            remember_secret(secret);
        }
    }
}

/// Calls an operation of moto. The signature is a dummy: as the tests start moto, it only reads the region from it.
async fn call_moto(operation: &str, mut body: Value) -> Value {
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
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("not an HTTP response: {answer}"));
    assert!(head.starts_with("HTTP/1.1 200"), "{operation}: {answer}");
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"))
}
