//! The two secrets of AWS Secrets Manager: the owner's URL, and the API's.
use anyhow::{Context as _, Result, anyhow, bail};
use aws_config::{BehaviorVersion, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_secretsmanager::{Client, error::ProvideErrorMetadata as _};
use shared::DatabaseUrl;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};
use tokio::time::sleep;

/// How long Secrets Manager may take to give a secret, with all retries, in seconds.
const FETCH_TIMEOUT_S: u64 = 15;
/// How long a refused role is taken for one that was just made, in seconds: IAM is eventually consistent, and a new stack's role
/// may not be known to Secrets Manager yet when this function is called.
const ROLE_KNOWN_WITHIN_S: u64 = 10;
/// How long to wait before a refused request is sent again, in seconds.
const ASK_AGAIN_AFTER_S: u64 = 2;
/// The codes of the errors with which Secrets Manager refuses a role, known or not.
const REFUSALS: [&str; 2] = ["AccessDeniedException", "UnrecognizedClientException"];

/// Where the secrets are.
pub struct Secrets {
    client: Client,
    owner_secret_id: String,
    api_secret_id: String,
    patient_until: Instant,
}

impl Secrets {
    /// As the environment says: `OWNER_SECRET_ID` and `API_SECRET_ID`, a secret's name or ARN each. A refused role is
    /// waited for within `time_left`.
    pub async fn from_env(time_left: Duration) -> Result<Self> {
        let patient_until = Instant::now() + time_left.min(Duration::from_secs(ROLE_KNOWN_WITHIN_S));
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
        Ok(Self { client: Client::new(&config), owner_secret_id, api_secret_id, patient_until })
    }

    /// The owner's URL of the database, without a pooler.
    pub async fn owner_url(&self) -> Result<DatabaseUrl> {
        self.url("OWNER_SECRET_ID", &self.owner_secret_id, "DATABASE_URL_UNPOOLED").await
    }

    /// The API's URL of the database.
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

    /// A secret's text. None for one that is binary.
    async fn text(&self, setting: &str, secret_id: &str) -> Result<Option<String>> {
        loop {
            let error = match self.client.get_secret_value().secret_id(secret_id).send().await {
                Ok(secret) => return Ok(secret.secret_string),
                Err(error) => error,
            };
            let wait = Duration::from_secs(ASK_AGAIN_AFTER_S);
            match error.code().filter(|code| REFUSALS.contains(code)) {
                Some(code) if Instant::now() + wait < self.patient_until => {
                    tracing::warn!(
                        setting,
                        code,
                        "the secret is refused, perhaps because the role is new: asking again"
                    );
                }
                // Not by the SDK's DisplayErrorContext: it adds the answer's body, which can hold the secret.
                _ => return Err(error).with_context(|| format!("the secret of {setting} cannot be read")),
            }
            sleep(wait).await;
        }
    }
}
