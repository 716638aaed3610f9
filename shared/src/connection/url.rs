//! DATABASE_URL: accepts the forms that people paste, and turns them into settings for the driver.
use crate::connection::roots::Roots;
use percent_encoding::percent_decode_str;
use std::{fmt, net::IpAddr, path::PathBuf, time::Duration};
use tokio_postgres::config::{ChannelBinding, Host, SslMode, SslNegotiation};

/// Connect timeout in seconds if the URL has no `connect_timeout`. A suspended Neon compute can take five to wake.
const CONNECT_TIMEOUT_S: u64 = 8;

/// A PostgreSQL connection URL in the forms that Neon, Prisma, SQLAlchemy, psql and libpq use.
///
/// Parameters that only other clients know are ignored. For every host other than this machine, TLS is forced and the
/// server's certificate and host name are verified. If libpq's `hostaddr` sets the address to connect to, that address
/// decides whether it is this machine, and the certificate must still match the host. The type has no `Debug` or
/// `Display`, because it holds a password.
#[derive(Clone)]
pub struct DatabaseUrl {
    config: tokio_postgres::Config,
    roots: Roots,
    tries_direct_tls: bool,
    host: String,
}

/// What is wrong with a database URL, in one sentence that contains no part of the URL that could be secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidDatabaseUrl(String);

impl fmt::Display for InvalidDatabaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for InvalidDatabaseUrl {}

impl DatabaseUrl {
    /// Parses a URL.
    ///
    /// # Errors
    /// A sentence that names the problem, and never contains the user, password or database.
    pub fn parse(pasted: &str) -> Result<Self, InvalidDatabaseUrl> {
        let url = unwrap_pasted(pasted);
        if url.is_empty() {
            return invalid("is empty");
        }
        let Some((scheme, rest)) = url.split_once("://") else {
            return invalid("is not a URL: it has to look like postgresql://user:password@host/database");
        };
        // SQLAlchemy adds its driver to the scheme: postgresql+psycopg2.
        if !matches!(scheme.split('+').next(), Some("postgres" | "postgresql")) {
            return invalid("is not a PostgreSQL URL: it has to begin with postgresql://");
        }
        let (base, query) = rest.split_once('?').unwrap_or((rest, ""));
        check_authority(base)?;

        let mut config: tokio_postgres::Config =
            format!("postgresql://{base}").parse().map_err(describe_parse_error)?;
        let mut parameters = Parameters::default();
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            parameters.apply(&mut config, name, &decode(value)?)?;
        }

        let host = one_host(&config)?;
        let address = one_address(&config, &host)?;
        check_names(&config)?;

        let is_local = address.map_or_else(|| is_local(&host), |address| address.is_loopback());
        let use_tls = !is_local || parameters.requires_tls;
        config.ssl_mode(if use_tls { SslMode::Require } else { SslMode::Disable });
        if !use_tls {
            config.ssl_negotiation(SslNegotiation::Postgres);
            config.channel_binding(ChannelBinding::Disable);
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(Duration::from_secs(CONNECT_TIMEOUT_S));
        }
        let is_built_in = [".neon.tech", ".neon.build", ".amazonaws.com"].iter().any(|domain| host.ends_with(domain));
        let roots = parameters.roots.unwrap_or(if is_built_in { Roots::BuiltIn } else { Roots::System });
        // Neon's proxy accepts direct TLS. A URL with an sslnegotiation decides by itself.
        let tries_direct_tls = use_tls && !parameters.names_negotiation && is_neon(&host);
        Ok(Self { config, roots, tries_direct_tls, host })
    }

    /// The host's name or address, or the directory of its Unix socket.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether this is a pooler, by Neon's naming (`ep-name-123-pooler.region.aws.neon.tech`). Session state, such as a
    /// migration's lock, does not survive there.
    pub fn is_neon_pooler(&self) -> bool {
        self.host.split('.').next().is_some_and(|label| label.ends_with("-pooler"))
    }

    /// Whether the host is Neon's. Its pooler tracks prepared statements.
    pub fn is_neon(&self) -> bool {
        is_neon(&self.host)
    }

    /// Whether to try direct TLS, and the usual negotiation if the server refuses that.
    pub(crate) fn tries_direct_tls(&self) -> bool {
        self.tries_direct_tls
    }

    /// Whether the URL sets the address to connect to with `hostaddr`, instead of resolving the host.
    pub fn has_address(&self) -> bool {
        !self.config.get_hostaddrs().is_empty()
    }

    /// The port; 5432 if the URL has none.
    pub fn port(&self) -> u16 {
        self.config.get_ports().first().copied().unwrap_or(5432)
    }

    /// The role to connect as.
    pub fn user(&self) -> &str {
        self.config.get_user().unwrap_or_default()
    }

    /// The role's password. Secret.
    pub fn password(&self) -> Option<String> {
        self.config.get_password().map(|password| String::from_utf8_lossy(password).into_owned())
    }

    /// The name of the database.
    pub fn database(&self) -> &str {
        self.config.get_dbname().unwrap_or_default()
    }

    /// Whether the connection uses TLS, with the server's certificate verified.
    pub fn uses_tls(&self) -> bool {
        self.config.get_ssl_mode() == SslMode::Require
    }

    /// The roots for verifying the server's certificate: the file or `system` in `sslrootcert`, else the default for
    /// the host.
    pub fn roots(&self) -> &Roots {
        &self.roots
    }

    /// The settings for tokio-postgres.
    pub(crate) fn config(&self) -> &tokio_postgres::Config {
        &self.config
    }
}

/// Strips what gets copied along with a URL: white space, quotes, `psql`, `export`, the variable's name, `jdbc:`.
fn unwrap_pasted(pasted: &str) -> &str {
    let mut url = pasted.trim();
    loop {
        let shorter = ["psql ", "export ", "DATABASE_URL=", "DATABASE_URL_UNPOOLED=", "jdbc:"]
            .iter()
            .find_map(|prefix| url.strip_prefix(prefix))
            .or_else(|| ['"', '\'', '`'].iter().find_map(|&quote| url.strip_prefix(quote)?.strip_suffix(quote)));
        match shorter {
            Some(shorter) => url = shorter.trim(),
            None => return url,
        }
    }
}

/// Reports mistakes in `user:password@host` that a lenient parser would turn into a confusing host name.
fn check_authority(base: &str) -> Result<(), InvalidDatabaseUrl> {
    let (authority, path) = base.split_once('/').unwrap_or((base, ""));
    if authority.matches('@').count() > 1 {
        return invalid("has more than one '@': one in the password has to be written as %40");
    }
    if authority.contains('#') || path.contains('@') {
        return invalid("has a '#' or '/' before its '@': in the password they have to be written as %23 and %2F");
    }
    if authority.contains(['<', '>', ' ', '{', '}', '$']) {
        return invalid("has a placeholder or a space in it where user, password and host belong");
    }
    let bad_escape = authority.split('%').skip(1).any(|rest| {
        let digits = rest.bytes().take(2).filter(u8::is_ascii_hexdigit).count();
        digits != 2
    });
    if bad_escape {
        return invalid(
            "has a '%' that is not followed by two hexadecimal digits: in the password it has to be written as %25",
        );
    }
    Ok(())
}

/// Returns the host. The URL must name exactly one.
fn one_host(config: &tokio_postgres::Config) -> Result<String, InvalidDatabaseUrl> {
    let host = match config.get_hosts() {
        [] => return invalid("names no host (a '/', '?' or '#' in the password has to be percent-encoded)"),
        [Host::Tcp(host)] => host.clone(),
        [Host::Unix(path)] => path.to_string_lossy().into_owned(),
        _ => return invalid("names more than one host"),
    };
    if host.is_empty() {
        return invalid("names no host");
    }
    Ok(host)
}

/// Returns the address to connect to, if `hostaddr` names one.
fn one_address(config: &tokio_postgres::Config, host: &str) -> Result<Option<IpAddr>, InvalidDatabaseUrl> {
    match config.get_hostaddrs() {
        [] => Ok(None),
        [_] if host.starts_with('/') => invalid("has a hostaddr in addition to the directory of a Unix socket"),
        [address] => Ok(Some(*address)),
        _ => invalid("has more than one hostaddr"),
    }
}

/// Reports a missing user or database, and a password that was masked by asterisks.
fn check_names(config: &tokio_postgres::Config) -> Result<(), InvalidDatabaseUrl> {
    match config.get_user() {
        None | Some("") => return invalid("names no user"),
        Some(_) => {}
    }
    match config.get_dbname() {
        None | Some("") => return invalid("names no database: it has to end in /database"),
        Some(_) => {}
    }
    if config.get_password().is_some_and(|password| password.len() > 3 && password.iter().all(|&byte| byte == b'*')) {
        return invalid("has its password masked by asterisks: copy it with the password shown");
    }
    Ok(())
}

/// The query parameters that tokio-postgres's own settings cannot hold.
#[derive(Default)]
struct Parameters {
    requires_tls: bool,
    names_negotiation: bool,
    roots: Option<Roots>,
}

impl Parameters {
    /// Applies one parameter. Those of other clients (`pgbouncer`, `pool_timeout`, `schema`, ...) are ignored.
    fn apply(
        &mut self,
        config: &mut tokio_postgres::Config,
        name: &str,
        value: &str,
    ) -> Result<(), InvalidDatabaseUrl> {
        match name {
            "sslmode" => self.requires_tls = requires_tls(value)?,
            // Used by JDBC, asyncpg and node-postgres.
            "ssl" => self.requires_tls |= !matches!(value, "false" | "0" | "disable" | "allow" | "prefer"),
            "sslrootcert" if value == "system" => self.roots = Some(Roots::System),
            "sslrootcert" => self.roots = Some(Roots::File(PathBuf::from(value))),
            "sslnegotiation" => {
                config.ssl_negotiation(ssl_negotiation(value)?);
                self.names_negotiation = true;
            }
            "channel_binding" => drop(config.channel_binding(channel_binding(value)?)),
            "connect_timeout" => {
                let Ok(seconds) = value.parse::<u32>() else {
                    return invalid("has a connect_timeout that is not a whole number of seconds");
                };
                // In libpq and Prisma, 0 means no limit, but no request behind an API gateway can wait that long.
                if seconds > 0 {
                    config.connect_timeout(Duration::from_secs(seconds.into()));
                }
            }
            "application_name" => drop(config.application_name(value)),
            "host" => drop(config.host(value)),
            "hostaddr" => {
                let Ok(address) = value.parse() else { return invalid("has a hostaddr that is not an IP address") };
                config.hostaddr(address);
            }
            "port" => {
                let Ok(port) = value.parse() else { return invalid("has a port that is not a number up to 65535") };
                config.port(port);
            }
            "user" => drop(config.user(value)),
            "password" => drop(config.password(value)),
            "dbname" => drop(config.dbname(value)),
            // Neon's way to name the endpoint, for clients that do not send SNI. This one does.
            "options" if value.trim_start().starts_with("endpoint=") => {}
            "options" => {
                return invalid(
                    "has the parameter options, which poolers refuse: use 'alter role ... set ...' in the database instead",
                );
            }
            _ => {}
        }
        Ok(())
    }
}

/// Whether an `sslmode` requires TLS even on this machine.
fn requires_tls(mode: &str) -> Result<bool, InvalidDatabaseUrl> {
    match mode {
        "disable" | "allow" | "prefer" => Ok(false),
        "require" | "verify-ca" | "verify-full" => Ok(true),
        _ => invalid("has an sslmode other than disable, allow, prefer, require, verify-ca, verify-full"),
    }
}

fn ssl_negotiation(value: &str) -> Result<SslNegotiation, InvalidDatabaseUrl> {
    match value {
        "postgres" => Ok(SslNegotiation::Postgres),
        "direct" => Ok(SslNegotiation::Direct),
        _ => invalid("has an sslnegotiation that is neither postgres nor direct"),
    }
}

fn channel_binding(value: &str) -> Result<ChannelBinding, InvalidDatabaseUrl> {
    match value {
        "disable" => Ok(ChannelBinding::Disable),
        "prefer" => Ok(ChannelBinding::Prefer),
        "require" => Ok(ChannelBinding::Require),
        _ => invalid("has a channel_binding other than disable, prefer, require"),
    }
}

fn is_neon(host: &str) -> bool {
    host.ends_with(".neon.tech")
}

/// Whether nobody can eavesdrop on the way to the host: loopback addresses and Unix sockets of this machine.
fn is_local(host: &str) -> bool {
    host == "localhost" || host.starts_with('/') || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn decode(value: &str) -> Result<String, InvalidDatabaseUrl> {
    match percent_decode_str(value).decode_utf8() {
        Ok(value) if !value.contains('\0') => Ok(value.into_owned()),
        _ => invalid("has a parameter that is not text when percent-decoded"),
    }
}

/// tokio-postgres's messages can quote the URL. Only the name of the invalid part is passed on.
fn describe_parse_error(error: tokio_postgres::Error) -> InvalidDatabaseUrl {
    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    let part = ["port", "host"].into_iter().find(|part| cause.contains(&format!("`{part}`")));
    InvalidDatabaseUrl(match part {
        Some("port") => "has a port that is not a number up to 65535".to_owned(),
        Some(part) => format!("has an invalid {part}"),
        None => "cannot be read: it has to look like postgresql://user:password@host/database".to_owned(),
    })
}

fn invalid<T>(what: &str) -> Result<T, InvalidDatabaseUrl> {
    Err(InvalidDatabaseUrl(what.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> DatabaseUrl {
        DatabaseUrl::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    fn refused(url: &str) -> String {
        let error = DatabaseUrl::parse(url).err().unwrap_or_else(|| panic!("{url} was accepted")).to_string();
        assert!(!error.contains("s3cret"), "{error}");
        error
    }

    #[test]
    fn urls_of_other_clients_are_accepted() {
        for url in [
            "postgresql://ann:s3cret@ep-x-pooler.eu.aws.neon.tech/db?sslmode=require&channel_binding=require",
            "  'postgres://ann:s3cret@ep-x-pooler.eu.aws.neon.tech/db?sslmode=verify-full&sslrootcert=system'\n",
            "psql 'postgresql://ann:s3cret@ep-x-pooler.eu.aws.neon.tech/db?sslmode=require'",
            "DATABASE_URL=\"postgresql://ann:s3cret@ep-x-pooler.eu.aws.neon.tech/db\"",
            "postgresql+psycopg2://ann:s3cret@ep-x-pooler.eu.aws.neon.tech/db",
            "postgresql+asyncpg://ann:s3cret@ep-x-pooler.eu.aws.neon.tech/db?ssl=require",
            "postgres://ann:s3cret@ep-x-pooler.eu.aws.neon.tech:5432/db?pgbouncer=true&connection_limit=1&pool_timeout=0&schema=public",
            "jdbc:postgresql://ep-x-pooler.eu.aws.neon.tech/db?user=ann&password=s3cret&sslmode=require",
            "postgresql://ann:s3cret@ep-x-pooler.eu.aws.neon.tech/db?options=endpoint%3Dep-x&uselibpqcompat=true&connect_timeout=0",
        ] {
            let url = parsed(url);
            assert_eq!((url.user(), url.database(), url.port()), ("ann", "db", 5432));
            assert_eq!(url.host(), "ep-x-pooler.eu.aws.neon.tech");
            assert_eq!(url.password().as_deref(), Some("s3cret"));
            assert!(url.uses_tls() && url.is_neon_pooler());
        }
    }

    #[test]
    fn a_password_is_percent_decoded() {
        assert_eq!(parsed("postgres://a:p%40%2F%23%25@h/d").password().as_deref(), Some("p@/#%"));
    }

    #[test]
    fn the_roots_are_those_that_the_host_needs_or_the_url_names() {
        for (rest, roots) in [
            ("ep-x-pooler.eu-central-1.aws.neon.tech/db", Roots::BuiltIn),
            ("db.abc.eu-central-1.rds.amazonaws.com/db", Roots::BuiltIn),
            ("db.example.com/db", Roots::System),
            ("neon.tech.example.com/db", Roots::System),
            ("ep-x.neon.tech/db?sslrootcert=system", Roots::System),
            ("ep-x.neon.tech/db?sslrootcert=/ca.pem", Roots::File("/ca.pem".into())),
        ] {
            assert_eq!(*parsed(&format!("postgresql://a:b@{rest}")).roots(), roots, "{rest}");
        }
    }

    #[test]
    fn tls_is_forced_for_every_host_that_is_not_local() {
        assert!(parsed("postgres://a:b@db.example.com/d?sslmode=disable").uses_tls());
        assert!(parsed("postgres://a:b@10.0.0.7/d").uses_tls());
        assert!(parsed("postgres://a:b@localhost.example.com/d").uses_tls());
        assert!(parsed("postgres://a:b@127.0.0.1/d?sslmode=require").uses_tls());
        assert!(!parsed("postgres://a:b@127.0.0.1/d").uses_tls());
        assert!(!parsed("postgres://a:b@[::1]:6000/d?sslmode=prefer").uses_tls());
        assert!(!parsed("postgres://a:b@localhost/d?sslmode=disable").uses_tls());
        assert!(!parsed("postgres:///d?host=/run/postgresql&user=a").uses_tls());
    }

    #[test]
    fn hostaddr_sets_the_address_and_the_host_sets_the_certificate_name() {
        for (rest, uses_tls) in [
            ("ep-x.neon.tech/d?hostaddr=127.0.0.1", false),
            ("ep-x.neon.tech/d?hostaddr=::1&sslmode=prefer", false),
            ("ep-x.neon.tech/d?hostaddr=127.0.0.1&sslmode=verify-full", true),
            ("ep-x.neon.tech/d?hostaddr=10.0.0.7&sslmode=disable", true),
            // The name localhost does not guarantee a local address.
            ("localhost/d?hostaddr=10.0.0.7&sslmode=disable", true),
            ("127.0.0.1/d?hostaddr=10.0.0.7", true),
        ] {
            let url = parsed(&format!("postgres://a:b@{rest}"));
            assert_eq!((url.uses_tls(), url.has_address()), (uses_tls, true), "{rest}");
            assert_eq!(url.host(), rest.split('/').next().unwrap());
            assert_eq!(url.config().get_hostaddrs().len(), 1, "{rest}");
        }
        assert!(!parsed("postgres://a:b@ep-x.neon.tech/d").has_address());
    }

    #[test]
    fn direct_tls_is_tried_on_neons_hosts_unless_the_url_says_otherwise() {
        for (rest, is_tried) in [
            ("ep-x-pooler.eu-central-1.aws.neon.tech/d", true),
            ("ep-x.neon.tech/d?sslmode=require&channel_binding=require", true),
            ("ep-x.neon.tech/d?sslnegotiation=postgres", false),
            ("ep-x.neon.tech/d?sslnegotiation=direct", false),
            ("ep-x.neon.tech/d?hostaddr=127.0.0.1", false),
            ("db.example.com/d", false),
        ] {
            assert_eq!(parsed(&format!("postgres://a:b@{rest}")).tries_direct_tls(), is_tried, "{rest}");
        }
    }

    #[test]
    fn neons_hosts_are_those_under_its_domain() {
        for (host, is_neon) in [
            ("ep-x-pooler.eu-central-1.aws.neon.tech", true),
            ("ep-x.neon.tech", true),
            ("neon.tech.example.com", false),
            ("not-neon.tech", false),
            ("127.0.0.1", false),
        ] {
            assert_eq!(parsed(&format!("postgres://a:b@{host}/d")).is_neon(), is_neon, "{host}");
        }
    }

    #[test]
    fn a_wrong_url_is_one_clear_sentence_without_a_secret() {
        for (url, expected) in [
            ("", "is empty"),
            ("   ", "is empty"),
            ("''", "is empty"),
            ("host=localhost password=s3cret", "is not a URL"),
            ("localhost:5432/db", "is not a URL"),
            ("mysql://a:s3cret@h/d", "has to begin with postgresql://"),
            ("https://a:s3cret@h/d", "has to begin with postgresql://"),
            ("postgres://a:s3cret@h:port/d", "port"),
            ("postgres://a:s3cret@h:99999/d", "port"),
            ("postgres://a:s3@cret@h/d", "%40"),
            ("postgres://a:s3#cret@h/d", "%23"),
            ("postgres://a:s3/cret@h/d", "%2F"),
            ("postgres://a:s3cret%@h/d", "%25"),
            ("postgres://a:<s3cret>@h/d", "placeholder"),
            ("postgres://a:****************@h/d", "asterisks"),
            ("postgres://a:s3cret@h", "names no database"),
            ("postgres://a:s3cret@h/", "names no database"),
            ("postgres://:s3cret@h/d", "names no user"),
            ("postgres://h/d", "names no user"),
            ("postgres://a:s3cret@/d", "names no host"),
            ("postgres://a:s3cret@h1,h2/d", "more than one host"),
            ("postgres://a:s3cret@h/d?sslmode=s3cret", "sslmode"),
            ("postgres://a:s3cret@h/d?sslnegotiation=s3cret", "sslnegotiation"),
            ("postgres://a:s3cret@h/d?channel_binding=s3cret", "channel_binding"),
            ("postgres://a:s3cret@h/d?connect_timeout=s3cret", "connect_timeout"),
            ("postgres://a:s3cret@h/d?hostaddr=s3cret", "a hostaddr that is not an IP address"),
            ("postgres://a:s3cret@h/d?hostaddr=", "a hostaddr that is not an IP address"),
            ("postgres://a:s3cret@h/d?hostaddr=127.0.0.1,127.0.0.2", "a hostaddr that is not an IP address"),
            ("postgres://a:s3cret@h/d?hostaddr=127.0.0.1&hostaddr=127.0.0.2", "more than one hostaddr"),
            ("postgres://a:s3cret@/d?hostaddr=127.0.0.1", "names no host"),
            ("postgres:///d?host=/run/s3cret&user=a&hostaddr=127.0.0.1", "Unix socket"),
            ("postgres://a:s3cret@h/d?options=-c%20search_path%3Ds3cret", "options"),
            ("postgres://a:s3cret@h/d?application_name=%00", "not text"),
        ] {
            let error = refused(url);
            assert!(error.contains(expected), "{url:?}: {error}");
        }
    }
}
