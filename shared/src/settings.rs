//! The settings in force, and what is made of them. Those in Secrets Manager are fetched again when they may have changed.
pub(crate) mod aws;
pub(crate) mod config;
pub(crate) mod secret;

use crate::{
    clock::WallClock,
    connection::pool::{Connections, DatabaseConfig},
    credential::SessionRules,
    environment::variable,
    error::Error,
    settings::config::Config,
    settings::secret::{SecretSettings, SecretSource},
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
/// How long a secret stays in force that Secrets Manager does not confirm, because it is away or refuses, in seconds.
const UNCONFIRMED_S: u64 = 60 * 60;

/// How long a request waits for a secret that it cannot do without, in seconds.
const FETCH_IN_REQUEST_S: u64 = 5;
/// How long a request waits for news of a secret that is in force, in seconds.
const RENEW_IN_REQUEST_S: u64 = 2;

/// What a function needs of the settings.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The database, and what tells whose a request is.
    Sessions,
    /// The database alone: Better Auth's secret is not kept, even where it is in the secret.
    Database,
}

/// The settings at one moment, and what is made of them. It cannot be printed.
pub(crate) struct Snapshot {
    pub(crate) connections: Connections,
    session_rules: Option<SessionRules>,
    secret: SecretSettings,
}

/// Where the settings come from, and the ones in force.
pub(crate) struct Settings {
    scope: Scope,
    source: Option<SecretSource>,
    current: RwLock<Option<Arc<Snapshot>>>,
    /// Held while a secret is fetched, so that one request does it for all.
    renewal: Mutex<()>,
    /// When Secrets Manager was last asked, with or without success.
    asked: WallClock,
    /// When it last gave the secret.
    fetched: WallClock,
}

impl Settings {
    /// Reads the environment and, within `limit`, the secret that it names.
    ///
    /// A secret that cannot be fetched does not fail the start: requests answer 503 and try again.
    ///
    /// # Errors
    /// A sentence for each setting that is missing or wrong.
    pub(crate) async fn start(scope: Scope, limit: Duration) -> Result<Self, String> {
        let settings = Self {
            scope,
            source: SecretSource::from_settings(variable)?,
            current: RwLock::default(),
            renewal: Mutex::default(),
            asked: WallClock::default(),
            fetched: WallClock::default(),
        };
        match &settings.source {
            None => settings.put(Some(Snapshot::new(scope, SecretSettings::new())?)),
            Some(source) => match settings.fetch(source, limit).await {
                Ok(secret) => {
                    settings.put(Some(Snapshot::new(scope, secret)?));
                    settings.confirm();
                }
                Err(cause) => tracing::warn!(cause, "the secret cannot be fetched yet"),
            },
        }
        Ok(settings)
    }

    /// The settings in force, without asking for any.
    pub(crate) fn known(&self) -> Option<Arc<Snapshot>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The settings, of which those from a secret are not older than `max_age_s` seconds. A secret that cannot be fetched
    /// again stays in force for an hour.
    ///
    /// # Errors
    /// [`Error::NoSettings`] when the secret cannot be fetched, and was last fetched over an hour ago, or never.
    pub(crate) async fn current(&self, max_age_s: u64) -> Result<Arc<Snapshot>, Error> {
        if let Some(current) = self.get_young(max_age_s) {
            return Ok(current);
        }
        let Some(source) = &self.source else { return Err(Error::Internal("there are no settings".to_owned())) };
        let _renewal = self.renewal.lock().await;
        if let Some(current) = self.get_young(max_age_s) {
            return Ok(current);
        }
        let known = self.known().filter(|_| self.is_confirmed());
        let limit_s = if known.is_some() { RENEW_IN_REQUEST_S } else { FETCH_IN_REQUEST_S };
        let fetched = self.fetch(source, Duration::from_secs(limit_s)).await;
        let renewed = fetched.and_then(|secret| match &known {
            Some(current) if current.secret == secret => Ok(current.clone()),
            _ => Snapshot::new(self.scope, secret),
        });
        match (renewed, known) {
            (Ok(current), _) => {
                self.confirm();
                self.put(Some(current.clone()));
                Ok(current)
            }
            (Err(cause), Some(current)) => {
                tracing::warn!(cause, "the secret cannot be fetched again and stays in force, for an hour at most");
                self.asked.set_now();
                Ok(current)
            }
            (Err(cause), None) => {
                // Its connections close.
                self.put(None);
                Err(Error::NoSettings(cause))
            }
        }
    }

    async fn fetch(&self, source: &SecretSource, limit: Duration) -> Result<SecretSettings, String> {
        let mut secret = source.fetch(limit).await?;
        if self.scope == Scope::Database {
            secret.retain(|name, _| !name.starts_with("BETTER_AUTH_"));
        }
        Ok(secret)
    }

    /// The settings in force, if they need not be asked for.
    fn get_young(&self, max_age_s: u64) -> Option<Arc<Snapshot>> {
        let is_young = self.source.is_none()
            || self.is_confirmed() && self.asked.seconds_ago().is_some_and(|age| age <= max_age_s);
        self.known().filter(|_| is_young)
    }

    fn is_confirmed(&self) -> bool {
        self.fetched.seconds_ago().is_some_and(|age| age <= UNCONFIRMED_S)
    }

    fn confirm(&self) {
        self.asked.set_now();
        self.fetched.set_now();
    }

    fn put(&self, current: Option<Arc<Snapshot>>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = current;
    }
}

impl Snapshot {
    /// What the environment and the secret say; the environment wins.
    fn new(scope: Scope, secret: SecretSettings) -> Result<Arc<Self>, String> {
        let get = |name: &str| variable(name).or_else(|| secret.get(name).cloned());
        let (database, session_rules) = match scope {
            Scope::Sessions => {
                let config = Config::from_settings(get).map_err(|errors| errors.to_string())?;
                (config.database, Some(config.session_rules))
            }
            Scope::Database => (DatabaseConfig::from_settings(get).map_err(|errors| errors.to_string())?, None),
        };
        let connections = Connections::new(&database)?;
        Ok(Arc::new(Self { connections, session_rules, secret }))
    }

    /// What tells whose a request is.
    ///
    /// # Errors
    /// [`Error::Internal`] in a function that does not check sessions.
    pub(crate) fn session_rules(&self) -> Result<&SessionRules, Error> {
        self.session_rules
            .as_ref()
            .ok_or_else(|| Error::Internal("this function has no settings for sessions".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
        thread,
    };

    fn secret() -> SecretSettings {
        [
            ("DATABASE_URL", "postgresql://a:b@127.0.0.1:1/d"),
            ("BETTER_AUTH_SECRET", "a-secret-of-the-tests-0123456789abcdef"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    /// Settings whose secret was fetched so long ago, from a Secrets Manager that gives it to nobody any more.
    fn denied(fetched_seconds_ago: u64) -> Settings {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 4096]);
                let body = r#"{"__type":"AccessDeniedException"}"#;
                let _ = write!(stream, "HTTP/1.1 400 Bad Request\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            }
        });
        let source = SecretSource::from_settings(|name| match name {
            "API_SECRET_ID" => Some("arn:aws:secretsmanager:eu-central-1:123456789012:secret:a".to_owned()),
            "AWS_ENDPOINT_URL" => Some(format!("http://{address}")),
            "AWS_ACCESS_KEY_ID" | "AWS_SECRET_ACCESS_KEY" => Some("x".to_owned()),
            _ => None,
        });
        let settings = Settings {
            scope: Scope::Sessions,
            source: source.unwrap(),
            current: RwLock::new(Some(Snapshot::new(Scope::Sessions, secret()).unwrap())),
            renewal: Mutex::default(),
            asked: WallClock::default(),
            fetched: WallClock::default(),
        };
        settings.fetched.set_seconds_ago(fetched_seconds_ago);
        settings.asked.set_seconds_ago(fetched_seconds_ago);
        settings
    }

    #[tokio::test]
    async fn a_secret_that_is_not_given_any_more_is_in_force_for_an_hour_and_not_longer() {
        let settings = denied(UNCONFIRMED_S - 10);
        assert!(settings.current(RENEW_AFTER_S).await.is_ok());
        assert_eq!(settings.asked.seconds_ago(), Some(0), "it was asked for, and the next request does not wait again");
        assert!(settings.current(RENEW_AFTER_S).await.is_ok());

        let settings = denied(UNCONFIRMED_S + 1);
        // However lately it was asked for in vain.
        settings.asked.set_now();
        for _ in 0..2 {
            let error = settings.current(RENEW_AFTER_S).await.err().unwrap();
            assert!(matches!(&error, Error::NoSettings(cause) if cause.contains("AccessDenied")), "{error:?}");
        }
        assert!(settings.known().is_none(), "its connections are closed");
    }

    #[test]
    fn a_function_without_sessions_does_not_need_their_settings() {
        let mut secret = secret();
        secret.remove("BETTER_AUTH_SECRET");
        assert!(Snapshot::new(Scope::Database, secret.clone()).unwrap().session_rules().is_err());
        let error = Snapshot::new(Scope::Sessions, secret).err().unwrap();
        assert!(error.starts_with("BETTER_AUTH_SECRET is not set"), "{error}");
    }
}
