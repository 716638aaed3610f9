//! The settings in force, and the objects built from them. Settings from Secrets Manager are fetched again when they
//! may have changed.
pub(crate) mod aws;
pub(crate) mod config;
pub(crate) mod secret;

use crate::{
    clock::LastTime,
    connection::pool::{Connections, DatabaseConfig},
    credential::SessionRules,
    environment::variable,
    error::Error,
    jwt::known::KnownKeys,
    settings::config::Config,
    settings::secret::{SecretSettings, SecretSource},
    statement::Statement,
};
use std::{
    sync::{Arc, PoisonError, RwLock, atomic::AtomicBool},
    time::Duration,
};
use tokio::sync::Mutex;

/// Seconds after a fetch before the next request fetches the secret again: a revoked secret must not work for longer.
pub(crate) const RENEW_AFTER_S: u64 = 5 * 60;
/// A bad signature can mean that the signing secret has changed. The secret is then fetched again if the last fetch was
/// more than this many seconds ago. A shorter time would let anyone who sends bad signatures trigger a call to Secrets
/// Manager each time.
pub(crate) const RENEW_AFTER_BAD_SIGNATURE_S: u64 = 30;
/// A refused password means that it has changed. The secret is then fetched again if the last fetch was more than this
/// many seconds ago.
pub(crate) const RENEW_AFTER_REFUSAL_S: u64 = 1;
/// Seconds for which a secret stays in force if Secrets Manager does not confirm it, because it is unavailable or
/// refuses.
const MAX_UNCONFIRMED_S: u64 = 60 * 60;

/// Seconds that a request waits for a secret if no secret is in force.
const FETCH_IN_REQUEST_S: u64 = 5;
/// Seconds that a request waits for a newer secret while the old one is in force.
const RENEW_IN_REQUEST_S: u64 = 2;

/// The settings that a function needs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The database and the rules for sessions.
    Sessions,
    /// The database only. The settings of sessions are dropped, even if the secret contains them.
    Database,
}

/// The settings at one point in time, and the objects built from them. It cannot be printed.
pub(crate) struct Snapshot {
    pub(crate) connections: Connections,
    session_rules: Option<SessionRules>,
    pub(crate) max_tasks_per_user: i64,
    /// Whether the database cannot find sessions by a digest of their token.
    pub(crate) looks_up_tokens: AtomicBool,
    /// Whether statements are prepared: the settings allow it, and no answer has shown that the pooler mixes them up.
    pub(crate) prepares: AtomicBool,
    pub(crate) jwt_keys: KnownKeys,
    secret: SecretSettings,
}

/// The source of the settings, and the snapshot in force.
pub(crate) struct Settings {
    scope: Scope,
    /// The statements to prepare on each connection.
    pub(crate) statements: &'static [Statement],
    source: Option<SecretSource>,
    current: RwLock<Option<Arc<Snapshot>>>,
    /// Held while a secret is fetched, so that one request fetches it for all.
    renewal: Mutex<()>,
    /// When Secrets Manager was last asked, whether or not it succeeded.
    last_asked: LastTime,
    /// When Secrets Manager last returned the secret.
    last_fetched: LastTime,
}

impl Settings {
    /// Reads the environment and, within `limit`, the secret that it names.
    ///
    /// If the secret cannot be fetched, the start still succeeds: requests return 503 and try again.
    ///
    /// # Errors
    /// A sentence for each setting that is missing or invalid.
    pub(crate) async fn start(scope: Scope, statements: &'static [Statement], limit: Duration) -> Result<Self, String> {
        let settings = Self {
            scope,
            statements,
            source: SecretSource::from_settings(variable)?,
            current: RwLock::default(),
            renewal: Mutex::default(),
            last_asked: LastTime::default(),
            last_fetched: LastTime::default(),
        };
        match &settings.source {
            None => settings.set_current(Some(Snapshot::new(scope, SecretSettings::new())?)),
            Some(source) => match settings.fetch(source, limit).await {
                Ok(secret) => {
                    settings.set_current(Some(Snapshot::new(scope, secret)?));
                    settings.confirm();
                }
                Err(cause) => tracing::warn!(cause, "the secret cannot be fetched yet"),
            },
        }
        Ok(settings)
    }

    /// Returns the snapshot in force, without fetching anything.
    pub(crate) fn cached(&self) -> Option<Arc<Snapshot>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the settings. Those from the secret are fetched again if Secrets Manager was last asked more than
    /// `max_age_s` seconds ago. If that fails, the old ones stay in force until an hour after the last success.
    ///
    /// # Errors
    /// [`Error::NoSettings`] if the secret cannot be fetched, and was last fetched more than an hour ago or never.
    pub(crate) async fn current(&self, max_age_s: u64) -> Result<Arc<Snapshot>, Error> {
        if let Some(current) = self.get_fresh(max_age_s) {
            return Ok(current);
        }
        let Some(source) = &self.source else { return Err(Error::Internal("there are no settings".to_owned())) };
        let _renewal = self.renewal.lock().await;
        if let Some(current) = self.get_fresh(max_age_s) {
            return Ok(current);
        }
        let cached = self.cached().filter(|_| self.is_confirmed());
        let limit_s = if cached.is_some() { RENEW_IN_REQUEST_S } else { FETCH_IN_REQUEST_S };
        let fetched = self.fetch(source, Duration::from_secs(limit_s)).await;
        let renewed = fetched.and_then(|secret| match &cached {
            Some(current) => current.renew(self.scope, secret),
            None => Snapshot::new(self.scope, secret),
        });
        match (renewed, cached) {
            (Ok(current), _) => {
                self.confirm();
                self.set_current(Some(current.clone()));
                Ok(current)
            }
            (Err(cause), Some(current)) => {
                tracing::warn!(cause, "the secret cannot be fetched again and stays in force, for an hour at most");
                self.last_asked.set_now();
                Ok(current)
            }
            (Err(cause), None) => {
                // Dropping the snapshot closes its connections.
                self.set_current(None);
                Err(Error::NoSettings(cause))
            }
        }
    }

    async fn fetch(&self, source: &SecretSource, limit: Duration) -> Result<SecretSettings, String> {
        let mut secret = source.fetch(limit).await?;
        if self.scope == Scope::Database {
            secret.retain(|name, _| !name.starts_with("BETTER_AUTH_") && !name.starts_with("JWT_"));
        }
        Ok(secret)
    }

    /// Returns the snapshot in force if it is recent enough.
    fn get_fresh(&self, max_age_s: u64) -> Option<Arc<Snapshot>> {
        let is_fresh = self.source.is_none()
            || self.is_confirmed() && self.last_asked.seconds_ago().is_some_and(|age| age <= max_age_s);
        self.cached().filter(|_| is_fresh)
    }

    fn is_confirmed(&self) -> bool {
        self.last_fetched.seconds_ago().is_some_and(|age| age <= MAX_UNCONFIRMED_S)
    }

    fn confirm(&self) {
        self.last_asked.set_now();
        self.last_fetched.set_now();
    }

    fn set_current(&self, current: Option<Arc<Snapshot>>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = current;
    }
}

impl Snapshot {
    /// Builds a snapshot from the environment and the secret. The environment takes precedence.
    fn new(scope: Scope, secret: SecretSettings) -> Result<Arc<Self>, String> {
        let get = |name: &str| variable(name).or_else(|| secret.get(name).cloned());
        let (database, session_rules, max_tasks_per_user) = match scope {
            Scope::Sessions => {
                let config = Config::from_settings(get).map_err(|errors| errors.to_string())?;
                (config.database, Some(config.session_rules), config.max_tasks_per_user)
            }
            // Without sessions, nobody creates a task.
            Scope::Database => (DatabaseConfig::from_settings(get).map_err(|errors| errors.to_string())?, None, 0),
        };
        let connections = Connections::new(&database)?;
        Ok(Arc::new(Self {
            connections,
            session_rules,
            max_tasks_per_user,
            looks_up_tokens: AtomicBool::new(false),
            prepares: AtomicBool::new(database.prepares()),
            jwt_keys: KnownKeys::default(),
            secret,
        }))
    }

    /// Returns the snapshot for the secret as it is now: this one, if it has not changed.
    fn renew(self: &Arc<Self>, scope: Scope, secret: SecretSettings) -> Result<Arc<Self>, String> {
        if self.secret == secret {
            return Ok(self.clone());
        }
        let renewed = Self::new(scope, secret)?;
        // A key that was lost in an edit must not switch cookies off.
        if self.checks_signatures() && !renewed.checks_signatures() {
            return Err("BETTER_AUTH_SECRET is no longer in the secret".to_owned());
        }
        Ok(renewed)
    }

    /// Whether JWTs are a credential.
    pub(crate) fn accepts_jwts(&self) -> bool {
        self.session_rules.as_ref().is_some_and(SessionRules::accepts_jwts)
    }

    /// Whether cookies and signed tokens are a credential.
    pub(crate) fn checks_signatures(&self) -> bool {
        self.session_rules.as_ref().is_some_and(SessionRules::checks_signatures)
    }

    /// Returns the rules for sessions.
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

    /// Settings whose secret was fetched this many seconds ago, from a Secrets Manager that now denies it.
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
            statements: &[],
            source: source.unwrap(),
            current: RwLock::new(Some(Snapshot::new(Scope::Sessions, secret()).unwrap())),
            renewal: Mutex::default(),
            last_asked: LastTime::default(),
            last_fetched: LastTime::default(),
        };
        settings.last_fetched.set_seconds_ago(fetched_seconds_ago);
        settings.last_asked.set_seconds_ago(fetched_seconds_ago);
        settings
    }

    #[tokio::test]
    async fn a_denied_secret_stays_in_force_for_an_hour() {
        let settings = denied(MAX_UNCONFIRMED_S - 10);
        assert!(settings.current(RENEW_AFTER_S).await.is_ok());
        assert_eq!(
            settings.last_asked.seconds_ago(),
            Some(0),
            "it was asked for, and the next request does not wait again"
        );
        assert!(settings.current(RENEW_AFTER_S).await.is_ok());

        let settings = denied(MAX_UNCONFIRMED_S + 1);
        // However recently a fetch was tried and failed.
        settings.last_asked.set_now();
        for _ in 0..2 {
            let error = settings.current(RENEW_AFTER_S).await.err().unwrap();
            assert!(matches!(&error, Error::NoSettings(cause) if cause.contains("AccessDenied")), "{error:?}");
        }
        assert!(settings.cached().is_none(), "its connections are closed");
    }

    #[test]
    fn a_function_without_sessions_does_not_need_their_settings() {
        let mut secret = secret();
        secret.remove("BETTER_AUTH_SECRET");
        assert!(Snapshot::new(Scope::Database, secret.clone()).unwrap().session_rules().is_err());
        assert!(!Snapshot::new(Scope::Sessions, secret).unwrap().checks_signatures());
    }
}
