//! Reads the settings by name, validates them and builds the objects that use them.
use crate::{
    connection::{pool::DatabaseConfig, url::DatabaseUrl},
    credential::SessionRules,
    environment::not_blank,
    jwt::JwtRules,
    log,
    settings::aws::is_loopback,
};
use std::fmt;

/// Better Auth's public default secrets (better-auth 1.7, utils/constants): anybody can sign with them.
const BETTER_AUTH_DEFAULT_SECRETS: [&str; 2] =
    ["better-auth-secret-12345678901234567890", "better-auth-secret-123456789"];

/// Minimum length of a secret. Better Auth warns below it, and counts as JavaScript does: in UTF-16 code units.
const MIN_SECRET_UNITS: usize = 32;

/// How many tasks a user may have if `MAX_TASKS_PER_USER` is not set: far more than anybody keeps in a list, and little enough
/// that one user's tasks, at 41 kB each, fill no database of the usual size.
const DEFAULT_MAX_TASKS_PER_USER: i64 = 10_000;

/// The settings of a function that checks sessions.
pub struct Config {
    /// The database with the sessions and tasks.
    pub database: DatabaseConfig,
    /// The rules for credentials. `BETTER_AUTH_*`, `TRUSTED_ORIGINS`, `REQUIRE_SIGNED_TOKENS`, `ACCEPT_JWT`, `JWT_*`.
    pub session_rules: SessionRules,
    /// How many tasks a user may have, and how many idempotency keys. `MAX_TASKS_PER_USER`.
    pub max_tasks_per_user: i64,
}

/// All problems with the settings, one sentence each. None contains a value that could be secret.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<String>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.join("; "))
    }
}

impl std::error::Error for ConfigErrors {}

impl Config {
    /// Reads the settings that `get` returns by name.
    ///
    /// # Errors
    /// Names every setting that is missing or invalid, not just the first.
    pub fn from_settings(get: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigErrors> {
        let get = trimmed(get);
        let mut errors = Vec::new();
        let database = DatabaseConfig::read(&get, &mut errors);
        let secret = ok_or_collect(signing_secret(get("BETTER_AUTH_SECRETS"), get("BETTER_AUTH_SECRET")), &mut errors);
        let base_url = ok_or_collect(base_url(get("BETTER_AUTH_URL")), &mut errors);
        let prefix = ok_or_collect(cookie_prefix(get("BETTER_AUTH_COOKIE_PREFIX")), &mut errors);
        let mut trusted_origins =
            ok_or_collect(trusted_origins(get("TRUSTED_ORIGINS")), &mut errors).unwrap_or_default();
        let require_signed =
            ok_or_collect(parse_bool("REQUIRE_SIGNED_TOKENS", get("REQUIRE_SIGNED_TOKENS"), false), &mut errors);
        let max_tasks = ok_or_collect(max_tasks_per_user(get("MAX_TASKS_PER_USER")), &mut errors);
        let jwt = JwtConfig::read(&get, base_url.as_ref(), &mut errors);
        if secret == Some(None) && require_signed == Some(true) && matches!(jwt, Some(None)) {
            errors.push(
                "REQUIRE_SIGNED_TOKENS is true, BETTER_AUTH_SECRET is not set, and ACCEPT_JWT is false: nothing would be a credential"
                    .to_owned(),
            );
        }

        match (database, secret, base_url, prefix, require_signed, jwt, max_tasks) {
            (
                Some(database),
                Some(secret),
                Some(base),
                Some(prefix),
                Some(require_signed),
                Some(jwt),
                Some(max_tasks_per_user),
            ) if errors.is_empty() => {
                let cookie_name = format!("{}{prefix}.session_token", if base.is_https { "__Secure-" } else { "" });
                // Better Auth also trusts its own base URL.
                trusted_origins.push(base.origin);
                let rules = SessionRules::new(cookie_name, secret.as_deref(), require_signed, trusted_origins);
                let session_rules = match jwt {
                    Some(jwt) => rules.with_jwts(jwt.rules, jwt.needs_session),
                    None => rules,
                };
                Ok(Self { database, session_rules, max_tasks_per_user })
            }
            _ => Err(ConfigErrors(errors)),
        }
    }
}

/// The settings of JWTs.
struct JwtConfig {
    rules: JwtRules,
    needs_session: bool,
}

impl JwtConfig {
    /// Reads the settings and adds their problems to `errors`. `Some(None)` if no JWT is accepted.
    fn read(
        get: &impl Fn(&str) -> Option<String>,
        base_url: Option<&BaseUrl>,
        errors: &mut Vec<String>,
    ) -> Option<Option<Self>> {
        let is_accepted = ok_or_collect(parse_bool("ACCEPT_JWT", get("ACCEPT_JWT"), true), errors);
        let needs_session = ok_or_collect(parse_bool("JWT_NEEDS_SESSION", get("JWT_NEEDS_SESSION"), true), errors);
        let secret = get("JWT_SHARED_SECRET").map(|secret| strong_secret("JWT_SHARED_SECRET", "", secret));
        let secret = ok_or_collect(secret.transpose(), errors);
        let (base_url, secret, needs_session) = (base_url?, secret?, needs_session?);
        if !is_accepted? {
            return Some(None);
        }
        let [issuers, audiences] =
            ["JWT_ISSUER", "JWT_AUDIENCE"].map(|name| equivalents(&get(name).unwrap_or_else(|| base_url.url.clone())));
        Some(Some(Self { rules: JwtRules::new(issuers, audiences, secret.as_deref()), needs_session }))
    }
}

/// The issuers or audiences that a setting stands for. Better Auth names itself by its URL, or by the URL's origin.
fn equivalents(name: &str) -> Vec<String> {
    let without_slash = name.strip_suffix('/').unwrap_or(name);
    let mut all = vec![name.to_owned(), without_slash.to_owned()];
    all.extend(origin_of_url(name));
    all.sort();
    all.dedup();
    all
}

impl DatabaseConfig {
    /// Like [`Config::from_settings`], but without the settings of sessions, which may be missing or invalid.
    ///
    /// # Errors
    /// As [`Config::from_settings`].
    pub fn from_settings(get: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigErrors> {
        let mut errors = Vec::new();
        let config = Self::read(&trimmed(get), &mut errors).filter(|_| errors.is_empty());
        config.ok_or(ConfigErrors(errors))
    }

    /// Reads the settings and adds their problems to `errors`.
    fn read(get: &impl Fn(&str) -> Option<String>, errors: &mut Vec<String>) -> Option<Self> {
        let url = match get("DATABASE_URL") {
            Some(url) => DatabaseUrl::parse(&url).map_err(|error| errors.push(format!("DATABASE_URL {error}"))).ok(),
            None => {
                errors.push("DATABASE_URL is not set: it is the API role's URL of the PostgreSQL database".to_owned());
                None
            }
        };
        let prepared = ok_or_collect(prepared_statements(get("PREPARED_STATEMENTS")), errors);
        let max_concurrency = ok_or_collect(max_concurrency(get("AWS_LAMBDA_MAX_CONCURRENCY")), errors);
        ok_or_collect(log::level(get), errors);
        Some(Self { url: url?, prepared_statements: prepared?, max_concurrency: max_concurrency? })
    }
}

/// Wraps `get` so that values are trimmed and blank ones count as not set.
fn trimmed(get: impl Fn(&str) -> Option<String>) -> impl Fn(&str) -> Option<String> {
    move |name| get(name).and_then(|value| not_blank(&value))
}

fn ok_or_collect<T>(result: Result<T, String>, errors: &mut Vec<String>) -> Option<T> {
    result.map_err(|error| errors.push(error)).ok()
}

/// Returns the secret that signs session cookies, or `None` where only bare tokens are checked, as with Neon Auth, which keeps
/// its secret to itself. `BETTER_AUTH_SECRETS` (`2:new,1:old`) takes precedence over
/// `BETTER_AUTH_SECRET`, and its first entry is the current one, as in better-auth 1.7 (context/secret-utils).
fn signing_secret(secrets: Option<String>, secret: Option<String>) -> Result<Option<String>, String> {
    let (name, place, secret) = match (secrets, secret) {
        (Some(secrets), _) => ("BETTER_AUTH_SECRETS", " in its first entry", current_secret(&secrets)?),
        (None, Some(secret)) => ("BETTER_AUTH_SECRET", "", secret),
        (None, None) => return Ok(None),
    };
    strong_secret(name, place, secret).map(Some)
}

/// Returns the secret, unless somebody could guess it.
fn strong_secret(name: &str, place: &str, secret: String) -> Result<String, String> {
    if BETTER_AUTH_DEFAULT_SECRETS.contains(&secret.as_str()) {
        return Err(format!(
            "{name} is Better Auth's public default: make one of your own, as with 'openssl rand -base64 32'"
        ));
    }
    if secret.encode_utf16().count() < MIN_SECRET_UNITS {
        return Err(format!(
            "{name} has fewer than {MIN_SECRET_UNITS} characters{place}: make a longer one, as with 'openssl rand -base64 32', for the front end too"
        ));
    }
    Ok(secret)
}

fn current_secret(secrets: &str) -> Result<String, String> {
    let mut seen = Vec::new();
    let mut current = None;
    for (index, entry) in secrets.split(',').enumerate() {
        let position = index + 1;
        let Some((version, value)) = entry.trim().split_once(':') else {
            return Err(format!(
                "BETTER_AUTH_SECRETS has no '<version>:' in its entry {position}: it has to look like 2:new,1:old"
            ));
        };
        let Ok(version) = version.trim().parse::<u32>() else {
            return Err(format!(
                "BETTER_AUTH_SECRETS has a version that is not a whole number in its entry {position}"
            ));
        };
        if seen.contains(&version) {
            return Err(format!("BETTER_AUTH_SECRETS has the version of its entry {position} twice"));
        }
        seen.push(version);
        if value.trim().is_empty() {
            return Err(format!("BETTER_AUTH_SECRETS has no secret in its entry {position}"));
        }
        current.get_or_insert_with(|| value.trim().to_owned());
    }
    current.ok_or_else(|| "BETTER_AUTH_SECRETS is empty".to_owned())
}

/// The front end's address.
struct BaseUrl {
    url: String,
    is_https: bool,
    origin: String,
}

/// Parses `BETTER_AUTH_URL`. The default is the address where `next dev` serves.
fn base_url(url: Option<String>) -> Result<BaseUrl, String> {
    let url = url.unwrap_or_else(|| "http://localhost:3000".to_owned());
    let origin = origin_of_url(&url);
    let origin =
        origin.ok_or_else(|| "BETTER_AUTH_URL is not an https:// URL (http:// is for localhost only)".to_owned())?;
    Ok(BaseUrl { is_https: origin.starts_with("https://"), origin, url })
}

fn origin_of_url(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    origin(&format!("{scheme}://{authority}"))
}

fn cookie_prefix(prefix: Option<String>) -> Result<String, String> {
    let prefix = prefix.unwrap_or_else(|| "better-auth".to_owned());
    // RFC 6265, section 4.1.1: a cookie's name is a token of RFC 9110, section 5.6.2.
    if prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)) {
        Ok(prefix)
    } else {
        Err("BETTER_AUTH_COOKIE_PREFIX has a character that a cookie's name cannot have".to_owned())
    }
}

fn trusted_origins(list: Option<String>) -> Result<Vec<String>, String> {
    let list = list.unwrap_or_default();
    let entries = list.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    entries
        .map(|entry| {
            if entry.contains('*') {
                return Err("TRUSTED_ORIGINS has a '*': name each origin, as in https://app.example.com".to_owned());
            }
            origin(entry.strip_suffix('/').unwrap_or(entry)).ok_or_else(|| {
                "TRUSTED_ORIGINS has an entry that is not an origin like https://app.example.com (http:// is for localhost only)"
                    .to_owned()
            })
        })
        .collect()
}

/// Returns an origin as browsers serialise it (RFC 6454, section 6.1): in lower case, without the scheme's default
/// port. Without TLS only this machine is one: whoever is on the way could answer in another's name.
fn origin(text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    let (scheme, authority) = text.split_once("://")?;
    let default_port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return None,
    };
    let authority = authority.strip_suffix(default_port).unwrap_or(authority);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let host_is_valid =
        !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte));
    let port_is_valid = port.is_none_or(|port| port.parse::<u16>().is_ok());
    // Browsers resolve the names below localhost to this machine too (www.w3.org/TR/secure-contexts, section 3.1).
    let is_safe = scheme == "https" || is_loopback(host) || host.ends_with(".localhost");
    (host_is_valid && port_is_valid && is_safe).then(|| format!("{scheme}://{authority}"))
}

pub(crate) fn parse_bool(name: &str, value: Option<String>, default: bool) -> Result<bool, String> {
    match value.map(|value| value.to_ascii_lowercase()).as_deref() {
        None => Ok(default),
        Some("false" | "0") => Ok(false),
        Some("true" | "1") => Ok(true),
        Some(_) => Err(format!("{name} is neither true nor false")),
    }
}

/// `auto`, the default, is `None`.
fn prepared_statements(value: Option<String>) -> Result<Option<bool>, String> {
    const NAME: &str = "PREPARED_STATEMENTS";
    match value {
        None => Ok(None),
        Some(value) if value.eq_ignore_ascii_case("auto") => Ok(None),
        value => {
            parse_bool(NAME, value, false).map(Some).map_err(|_| format!("{NAME} is neither auto nor true nor false"))
        }
    }
}

/// Every task has another id, so the largest id is the same as no limit. 0 could mean that too, or no task at all, and is
/// refused.
fn max_tasks_per_user(value: Option<String>) -> Result<i64, String> {
    match value.map(|value| value.parse::<i32>()) {
        None => Ok(DEFAULT_MAX_TASKS_PER_USER),
        Some(Ok(number @ 1..)) => Ok(number.into()),
        Some(_) => Err(format!("MAX_TASKS_PER_USER is not a whole number from 1 to {}", i32::MAX)),
    }
}

fn max_concurrency(value: Option<String>) -> Result<usize, String> {
    match value.map(|value| value.parse::<usize>()) {
        None => Ok(1),
        Some(Ok(number @ 1..=1000)) => Ok(number),
        Some(_) => Err("AWS_LAMBDA_MAX_CONCURRENCY is not a whole number from 1 to 1000".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [(&str, &str); 2] = [
        ("DATABASE_URL", "postgres://a:s3cret@h/d"),
        ("BETTER_AUTH_SECRET", "s3cret-0123456789-0123456789-0123456789"),
    ];

    fn config(changes: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
        Config::from_settings(|name| {
            let settings = changes.iter().chain(&GOOD);
            settings.clone().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_database_is_enough_and_better_auths_secret_makes_cookies_a_credential() {
        assert!(config(&[]).is_ok_and(|config| config.session_rules.checks_signatures()));
        let without_secret = config(&[("BETTER_AUTH_SECRET", "")]);
        assert!(without_secret.is_ok_and(|config| !config.session_rules.checks_signatures()));
    }

    #[test]
    fn each_wrong_setting_is_named_in_one_sentence_without_a_secret() {
        for (name, value, expected) in [
            ("DATABASE_URL", "", "DATABASE_URL is not set"),
            ("DATABASE_URL", "s3cret", "DATABASE_URL is not a URL"),
            ("BETTER_AUTH_SECRET", "better-auth-secret-12345678901234567890", "public default"),
            ("BETTER_AUTH_SECRET", "s3cret-0123456789-0123456789-01", "fewer than 32 characters: make"),
            (
                "BETTER_AUTH_SECRETS",
                "2:s3cret,1:s3cret-0123456789-0123456789-012",
                "fewer than 32 characters in its first",
            ),
            ("BETTER_AUTH_SECRETS", "s3cret", "<version>:"),
            ("BETTER_AUTH_SECRETS", "x:s3cret", "entry 1"),
            ("BETTER_AUTH_SECRETS", "2:s3cret,-1:s3cret", "entry 2"),
            ("BETTER_AUTH_SECRETS", "2:s3cret,2:s3cret", "twice"),
            ("BETTER_AUTH_SECRETS", "2:", "no secret"),
            ("BETTER_AUTH_SECRETS", "1:better-auth-secret-12345678901234567890", "public default"),
            ("BETTER_AUTH_URL", "app.example.com", "BETTER_AUTH_URL"),
            ("BETTER_AUTH_URL", "ftp://app.example.com", "BETTER_AUTH_URL"),
            ("BETTER_AUTH_URL", "https://", "BETTER_AUTH_URL"),
            ("BETTER_AUTH_URL", "http://app.example.com", "http:// is for localhost only"),
            ("BETTER_AUTH_COOKIE_PREFIX", "my app", "BETTER_AUTH_COOKIE_PREFIX"),
            ("BETTER_AUTH_COOKIE_PREFIX", "a=b;", "BETTER_AUTH_COOKIE_PREFIX"),
            ("TRUSTED_ORIGINS", "*", "TRUSTED_ORIGINS has a '*'"),
            ("TRUSTED_ORIGINS", "https://a.example.com,b.example.com", "TRUSTED_ORIGINS"),
            ("TRUSTED_ORIGINS", "https://a.example.com/path", "TRUSTED_ORIGINS"),
            ("TRUSTED_ORIGINS", "https://a.example.com,http://b.example.com", "http:// is for localhost only"),
            ("REQUIRE_SIGNED_TOKENS", "perhaps", "REQUIRE_SIGNED_TOKENS"),
            ("ACCEPT_JWT", "s3cret", "ACCEPT_JWT"),
            ("JWT_NEEDS_SESSION", "s3cret", "JWT_NEEDS_SESSION"),
            ("JWT_SHARED_SECRET", "s3cret-0123456789-0123456789-01", "JWT_SHARED_SECRET has fewer than 32 characters"),
            ("JWT_SHARED_SECRET", "better-auth-secret-12345678901234567890", "public default"),
            ("PREPARED_STATEMENTS", "yes, please", "PREPARED_STATEMENTS"),
            ("AWS_LAMBDA_MAX_CONCURRENCY", "0", "AWS_LAMBDA_MAX_CONCURRENCY"),
            ("MAX_TASKS_PER_USER", "0", "MAX_TASKS_PER_USER is not a whole number from 1 to 2147483647"),
            ("MAX_TASKS_PER_USER", "2147483648", "MAX_TASKS_PER_USER"),
            ("MAX_TASKS_PER_USER", "unlimited", "MAX_TASKS_PER_USER"),
            ("LOG_LEVEL", "loud", "LOG_LEVEL"),
            ("AWS_LAMBDA_LOG_LEVEL", "loud", "AWS_LAMBDA_LOG_LEVEL"),
        ] {
            let error =
                config(&[(name, value)]).err().unwrap_or_else(|| panic!("{name}={value} was accepted")).to_string();
            assert!(error.contains(expected), "{name}={value}: {error}");
            assert!(!error.contains("s3cret") && !error.contains(';'), "{error}");
        }
    }

    #[test]
    fn a_secret_of_32_characters_is_long_enough() {
        for (name, value) in [
            ("BETTER_AUTH_SECRET", "s3cret-0123456789-0123456789-012"),
            ("BETTER_AUTH_SECRETS", "2:s3cret-0123456789-0123456789-012,1:s3cret"),
            // 32 as JavaScript counts.
            ("BETTER_AUTH_SECRET", "👍👍👍👍👍👍👍👍👍👍👍👍👍👍👍👍"),
        ] {
            assert!(config(&[(name, value)]).is_ok(), "{name}={value}");
        }
    }

    #[test]
    fn without_a_setting_statements_are_prepared_on_neons_hosts_alone() {
        for (host, is_neon) in [
            ("ep-x-pooler.eu-central-1.aws.neon.tech", true),
            ("pooler.example.com", false),
            ("neon.tech.example.com", false),
            ("127.0.0.1", false),
        ] {
            let url = format!("postgres://a:s3cret@{host}/d");
            for (value, prepares) in
                [("", is_neon), ("auto", is_neon), ("Auto", is_neon), ("TRUE", true), ("1", true), ("false", false)]
            {
                let config = config(&[("DATABASE_URL", &url), ("PREPARED_STATEMENTS", value)]);
                assert_eq!(config.expect("good settings").database.prepares(), prepares, "{host}: {value}");
            }
        }
    }

    #[test]
    fn all_wrong_settings_are_named_at_once() {
        let error = config(&[
            ("DATABASE_URL", ""),
            ("BETTER_AUTH_SECRET", ""),
            ("REQUIRE_SIGNED_TOKENS", "true"),
            ("ACCEPT_JWT", "false"),
            ("LOG_LEVEL", "x"),
        ]);
        let error = error.err().unwrap().to_string();
        for name in ["DATABASE_URL", "BETTER_AUTH_SECRET", "REQUIRE_SIGNED_TOKENS", "LOG_LEVEL"] {
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn signed_tokens_can_be_required_without_better_auths_secret_as_long_as_jwts_are_accepted() {
        let settings = |accept| [("BETTER_AUTH_SECRET", ""), ("REQUIRE_SIGNED_TOKENS", "true"), ("ACCEPT_JWT", accept)];
        assert!(config(&settings("")).is_ok_and(|config| config.session_rules.accepts_jwts()));
        let error = config(&settings("false")).err().unwrap().to_string();
        assert!(error.contains("nothing would be a credential"), "{error}");
        assert!(config(&[("ACCEPT_JWT", "false")]).is_ok_and(|config| !config.session_rules.accepts_jwts()));
    }

    #[test]
    fn an_issuer_is_a_url_or_its_origin_or_another_name() {
        for (setting, names) in [
            (
                "https://App.example.com/",
                vec!["https://App.example.com", "https://App.example.com/", "https://app.example.com"],
            ),
            (
                "https://ep-x.neonauth.aws.neon.tech/db/auth",
                vec!["https://ep-x.neonauth.aws.neon.tech", "https://ep-x.neonauth.aws.neon.tech/db/auth"],
            ),
            ("http://localhost:3000", vec!["http://localhost:3000"]),
            ("tasks", vec!["tasks"]),
        ] {
            assert_eq!(equivalents(setting), names);
        }
    }

    #[test]
    fn origins_are_written_as_browsers_send_them() {
        for (written, sent) in [
            ("https://App.Example.com", "https://app.example.com"),
            ("https://app.example.com:443", "https://app.example.com"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("http://localhost:80", "http://localhost"),
            ("http://[::1]:3000", "http://[::1]:3000"),
            ("http://127.0.0.1:3000", "http://127.0.0.1:3000"),
            ("http://shop.localhost:3000", "http://shop.localhost:3000"),
        ] {
            assert_eq!(origin(written).as_deref(), Some(sent), "{written}");
        }
        for wrong in [
            "app.example.com",
            "https://",
            "https://a:b@c",
            "https://a:99999",
            "file://x",
            "https://a b",
            "http://a.example.com",
            "http://localhost.example.com",
            "http://127.0.0.1.example.com",
        ] {
            assert_eq!(origin(wrong), None, "{wrong}");
        }
    }
}
