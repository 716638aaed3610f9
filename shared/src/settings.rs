//! The settings in force, and what is made of them. Those in Secrets Manager are fetched again when they may have changed.
use crate::{
    Config, Error,
    clock::WallClock,
    database::Connections,
    secret::{SecretSettings, SecretSource},
    session::SessionRules,
};
use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};
use tokio::sync::Mutex;

/// A secret older than this is fetched again before the next request, in seconds: one that was taken back must not work
/// for longer.
pub(crate) const RENEW_AFTER_S: u64 = 5 * 60;
/// A signature that does not fit can mean that the signing secret was changed, if ours is older than this, in seconds. Not
/// sooner, or whoever sends bad signatures would have us ask Secrets Manager each time.
pub(crate) const RENEW_AFTER_BAD_SIGNATURE_S: u64 = 30;
/// A refused password means that it was changed, if ours is older than this, in seconds.
pub(crate) const RENEW_AFTER_REFUSAL_S: u64 = 1;

/// How long Init waits for the extension, in milliseconds. By AWS's documentation it may answer in invocations only; then
/// the first one fetches the secret, and Init has lost this much.
const READY_IN_INIT_MS: u64 = 200;
/// How long a request waits for it, in milliseconds.
const READY_IN_REQUEST_MS: u64 = 5000;

/// What lives as long as the settings that it was made from.
#[derive(Clone)]
pub(crate) struct Current {
    pub(crate) connections: Connections,
    pub(crate) session_rules: Arc<SessionRules>,
    secret: Arc<SecretSettings>,
}

/// Where the settings come from, and the ones in force.
pub(crate) struct Settings {
    source: Option<SecretSource>,
    current: RwLock<Option<Current>>,
    /// Held while a secret is fetched, so that one request does it for all.
    renewal: Mutex<()>,
    renewed: WallClock,
}

impl Settings {
    /// Reads the environment, and the secret if it names one.
    ///
    /// A secret that cannot be fetched does not fail the start: requests answer 503 and try again.
    ///
    /// # Errors
    /// A sentence for each setting that is missing or wrong.
    pub(crate) async fn start() -> Result<Self, String> {
        let source = SecretSource::from_settings(from_env)?;
        let settings =
            Self { source, current: RwLock::default(), renewal: Mutex::default(), renewed: WallClock::default() };
        match &settings.source {
            None => settings.put(Current::new(SecretSettings::new())?),
            Some(source) => match source.fetch(Duration::from_millis(READY_IN_INIT_MS)).await {
                Ok(secret) => {
                    settings.put(Current::new(secret)?);
                    settings.renewed.set_now();
                }
                Err(cause) => tracing::warn!(cause, "the secret cannot be fetched yet"),
            },
        }
        Ok(settings)
    }

    /// The settings, of which those from a secret are not older than `max_age_s` seconds. A secret that cannot be fetched
    /// again stays in force as it is.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the secret has never been fetched.
    pub(crate) async fn current(&self, max_age_s: u64) -> Result<Current, Error> {
        let is_young = || self.renewed.seconds_ago().is_some_and(|age| age <= max_age_s);
        if let Some(current) = self.get()
            && (self.source.is_none() || is_young())
        {
            return Ok(current);
        }
        let Some(source) = &self.source else { return Err(Error::Internal("there are no settings".to_owned())) };
        let _renewal = self.renewal.lock().await;
        let known = self.get();
        if let Some(current) = &known
            && is_young()
        {
            return Ok(current.clone());
        }
        let renewed = source.fetch(Duration::from_millis(READY_IN_REQUEST_MS)).await.and_then(|secret| match &known {
            Some(current) if *current.secret == secret => Ok(current.clone()),
            _ => Current::new(secret),
        });
        match (renewed, known) {
            (Ok(current), _) => {
                self.renewed.set_now();
                self.put(current.clone());
                Ok(current)
            }
            (Err(cause), Some(current)) => {
                tracing::warn!(cause, "the secret stays in force as it is");
                self.renewed.set_now();
                Ok(current)
            }
            (Err(cause), None) => Err(Error::Unavailable(cause)),
        }
    }

    fn get(&self) -> Option<Current> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn put(&self, current: Current) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(current);
    }
}

impl Current {
    /// What the environment and the secret say; the environment wins.
    fn new(secret: SecretSettings) -> Result<Self, String> {
        let config = Config::from_settings(|name| from_env(name).or_else(|| secret.get(name).cloned()))
            .map_err(|errors| errors.to_string())?;
        let connections = Connections::new(&config)?;
        Ok(Self { connections, session_rules: Arc::new(config.session_rules), secret: Arc::new(secret) })
    }
}

fn from_env(name: &str) -> Option<String> {
    let value = std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    value.filter(|value| !value.trim().is_empty())
}
