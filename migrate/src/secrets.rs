//! The two secrets in AWS Secrets Manager: the owner's URL and the API's URL.
use anyhow::{Context as _, Result, anyhow, bail};
use aws_config::{BehaviorVersion, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_secretsmanager::{Client, error::ProvideErrorMetadata as _};
use shared::DatabaseUrl;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};
use tokio::time::sleep;

/// Seconds that Secrets Manager may take to return a secret, including all retries.
const FETCH_TIMEOUT_S: u64 = 15;
/// Seconds during which a refusal is retried, because the role may be new: IAM is eventually consistent, so Secrets
/// Manager may not know a new stack's role yet when this function is called.
const NEW_ROLE_GRACE_S: u64 = 10;
/// Seconds to wait before a refused request is sent again.
const RETRY_DELAY_S: u64 = 2;
/// The error codes with which Secrets Manager refuses a role, whether it knows the role or not.
const REFUSAL_CODES: [&str; 2] = ["AccessDeniedException", "UnrecognizedClientException"];

/// A Secrets Manager client and the ids of the two secrets.
pub struct Secrets {
    client: Client,
    owner_secret_id: String,
    api_secret_id: String,
    retry_until: Instant,
}

impl Secrets {
    /// Reads `OWNER_SECRET_ID` and `API_SECRET_ID` from the environment. Each is a secret's name or ARN. A refused role
    /// is retried for `NEW_ROLE_GRACE_S`, but no longer than `time_left`.
    pub async fn from_env(time_left: Duration) -> Result<Self> {
        let retry_until = Instant::now() + time_left.min(Duration::from_secs(NEW_ROLE_GRACE_S));
        let get = |name: &str| {
            let value = std::env::var(name).ok().filter(|value| !value.trim().is_empty());
            value.with_context(|| format!("{name} is not set: it is the name or ARN of a secret"))
        };
        let (owner_secret_id, api_secret_id) = (get("OWNER_SECRET_ID")?, get("API_SECRET_ID")?);
        let config = aws_config::defaults(BehaviorVersion::latest())
            .retry_config(RetryConfig::standard())
            .timeout_config(TimeoutConfig::builder().operation_timeout(Duration::from_secs(FETCH_TIMEOUT_S)).build())
            .load()
            .await;
        Ok(Self { client: Client::new(&config), owner_secret_id, api_secret_id, retry_until })
    }

    /// Fetches the owner's database URL, which has no pooler.
    pub async fn owner_url(&self) -> Result<DatabaseUrl> {
        self.url("OWNER_SECRET_ID", &self.owner_secret_id, "DATABASE_URL_UNPOOLED").await
    }

    /// Fetches the API's database URL.
    pub async fn api_url(&self) -> Result<DatabaseUrl> {
        self.url("API_SECRET_ID", &self.api_secret_id, "DATABASE_URL").await
    }

    async fn url(&self, setting: &str, secret_id: &str, key: &str) -> Result<DatabaseUrl> {
        let secret = self.text(setting, secret_id).await?;
        let settings: Option<HashMap<String, String>> = secret.and_then(|text| serde_json::from_str(&text).ok());
        let Some(settings) = settings else {
            bail!("the secret of {setting} is not a JSON object of texts, such as {{\"{key}\": \"...\"}}")
        };
        let url = settings.get(key).with_context(|| format!("the secret of {setting} has no {key}"))?;
        DatabaseUrl::parse(url).map_err(|error| anyhow!("{key} in the secret of {setting} {error}"))
    }

    /// Fetches a secret's text. `None` if the secret is binary.
    async fn text(&self, setting: &str, secret_id: &str) -> Result<Option<String>> {
        loop {
            let error = match self.client.get_secret_value().secret_id(secret_id).send().await {
                Ok(secret) => return Ok(secret.secret_string),
                Err(error) => error,
            };
            let wait = Duration::from_secs(RETRY_DELAY_S);
            match error.code().filter(|code| REFUSAL_CODES.contains(code)) {
                Some(code) if Instant::now() + wait < self.retry_until => {
                    tracing::warn!(
                        setting,
                        code,
                        "the secret is refused, perhaps because the role is new: asking again"
                    );
                }
                // The SDK's DisplayErrorContext would add the response body, which can contain the secret.
                _ => return Err(error).with_context(|| format!("the secret of {setting} cannot be read")),
            }
            sleep(wait).await;
        }
    }
}
