//! The database that a developer names with `DATABASE_URL` and `DATABASE_URL_UNPOOLED`, checked before anything is
//! built.
use crate::place::variable;
use anyhow::{Context as _, Result, bail};
use std::{
    fs,
    net::{TcpStream, ToSocketAddrs as _},
    path::Path,
    time::Duration,
};

/// Seconds to wait for a host to accept a connection.
const CONNECT_TIMEOUT_S: u64 = 10;

/// The two URLs of a database that the developer provides.
pub struct Given {
    /// `DATABASE_URL`, with the API's role.
    pub url: String,
    /// `DATABASE_URL_UNPOOLED`, with the owner role.
    pub owner_url: String,
}

impl Given {
    /// Reads the URLs from the environment; `None` if neither is set. Fails if only one is set.
    ///
    /// URLs of the server in `postgres_folder` are ignored: a shell has them if it exported the front end's `.env.local`,
    /// as an earlier `cargo xtask dev` printed it.
    pub fn find(postgres_folder: &Path) -> Result<Option<Self>> {
        let own = fs::read_to_string(postgres_folder.join("settings.json")).unwrap_or_default();
        // That server's passwords are random, so a URL with one of them belongs to it.
        let is_own =
            |url: &str| parts(url).is_some_and(|parts| !parts.password.is_empty() && own.contains(parts.password));
        let get = |name| variable(name).filter(|url| !is_own(url));
        match (get("DATABASE_URL"), get("DATABASE_URL_UNPOOLED")) {
            (Some(url), Some(owner_url)) => Ok(Some(Self { url, owner_url })),
            (None, None) => Ok(None),
            (Some(_), None) => bail!(
                "DATABASE_URL_UNPOOLED is not set: with DATABASE_URL it has to name the same database, as the owner and without a pooler"
            ),
            (None, Some(_)) => bail!(
                "DATABASE_URL is not set: with DATABASE_URL_UNPOOLED it has to name the same database, as the API's role"
            ),
        }
    }

    /// Fails if a host cannot be reached. Does not try the passwords: that needs a PostgreSQL client, which is not
    /// built yet.
    pub fn check_hosts(&self) -> Result<()> {
        check_reachable("DATABASE_URL", &self.url)?;
        check_reachable("DATABASE_URL_UNPOOLED", &self.owner_url)
    }
}

/// Fails if a URL's host cannot be reached. Text that is not a URL passes, because the full parser reports it better.
pub fn check_reachable(name: &str, url: &str) -> Result<()> {
    let Some(Parts { host, port, .. }) = parts(url) else { return Ok(()) };
    let addresses = (host, port).to_socket_addrs();
    let addresses = addresses.with_context(|| format!("{name}: the host {host} is not known"))?;
    let mut last = None;
    for address in addresses {
        match TcpStream::connect_timeout(&address, Duration::from_secs(CONNECT_TIMEOUT_S)) {
            Ok(_) => return Ok(()),
            Err(error) => last = Some(error),
        }
    }
    Err(last.map_or_else(|| anyhow::anyhow!("it has no address"), Into::into))
        .with_context(|| format!("{name}: {host} does not accept connections on port {port}"))
}

struct Parts<'u> {
    password: &'u str,
    host: &'u str,
    port: u16,
}

/// Splits `postgresql://user:password@host:port/database?options`; `None` for anything else.
fn parts(url: &str) -> Option<Parts<'_>> {
    let (_, rest) = url.split_once("://")?;
    let (authority, _) = rest.split_once(['/', '?']).unwrap_or((rest, ""));
    let (user, address) = authority.rsplit_once('@')?;
    let password = user.split_once(':').map_or("", |(_, password)| password);
    let (host, port) = match address.strip_prefix('[').and_then(|address| address.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':').map_or(Ok(5432), str::parse).ok()?),
        None => match address.split_once(':') {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (address, 5432),
        },
    };
    (!host.is_empty() && !host.contains(',')).then_some(Parts { password, host, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_url() {
        let found = |url| parts(url).map(|parts| (parts.password, parts.host, parts.port));
        assert_eq!(found("postgresql://a:b@db.example.com/x?sslmode=require"), Some(("b", "db.example.com", 5432)));
        assert_eq!(found("postgres://a@127.0.0.1:6432"), Some(("", "127.0.0.1", 6432)));
        assert_eq!(found("postgres://a:p%40@[::1]:1/x"), Some(("p%40", "::1", 1)));
        for other in
            ["", "db", "postgres://db.example.com/x", "postgres://a@/x", "postgres://a@b:x/y", "postgres://a@b,c/d"]
        {
            assert_eq!(found(other), None, "{other}");
        }
    }

    #[test]
    fn a_host_that_cannot_be_reached_is_named_and_its_password_is_not() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = format!("postgresql://a:s3cret@127.0.0.1:{port}/x");
        assert!(check_reachable("DATABASE_URL", &url).is_ok());
        drop(listener);
        let error = format!("{:#}", check_reachable("DATABASE_URL", &url).unwrap_err());
        assert!(error.contains("DATABASE_URL: 127.0.0.1 does not accept") && !error.contains("s3cret"), "{error}");
        let error =
            format!("{:#}", check_reachable("DATABASE_URL", "postgresql://a:s3cret@nowhere.invalid/x").unwrap_err());
        assert!(error.contains("nowhere.invalid is not known") && !error.contains("s3cret"), "{error}");
    }
}
