//! The two secrets of AWS Secrets Manager: the owner's URL, and the API's.
use anyhow::{Context as _, Result, anyhow, bail};
use aws_config::{BehaviorVersion, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_secretsmanager::{Client, error::DisplayErrorContext};
use shared::DatabaseUrl;
use std::{collections::HashMap, time::Duration};

/// How long Secrets Manager may take to give a secret, with all retries, in seconds.
const FETCH_TIMEOUT_S: u64 = 15;

/// Where the secrets are.
pub struct Secrets {
    client: Client,
    owner_secret_id: String,
    api_secret_id: String,
}

impl Secrets {
    /// As the environment says: `OWNER_SECRET_ID` and `API_SECRET_ID`, a secret's name or ARN each.
    pub async fn from_env() -> Result<Self> {
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
        Ok(Self { client: Client::new(&config), owner_secret_id, api_secret_id })
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
        let request = self.client.get_secret_value().secret_id(secret_id);
        let secret = request
            .send()
            .await
            .map_err(|error| anyhow!("the secret of {setting} cannot be read: {}", DisplayErrorContext(&error)))?;
        let settings: Option<HashMap<String, String>> =
            secret.secret_string().and_then(|text| serde_json::from_str(text).ok());
        let Some(settings) = settings else {
            bail!("the secret of {setting} is not a JSON object of texts, such as {{\"{key}\": \"...\"}}")
        };
        let url = settings.get(key).with_context(|| format!("the secret of {setting} has no {key}"))?;
        DatabaseUrl::parse(url).map_err(|error| anyhow!("{key} in the secret of {setting} {error}"))
    }
}
