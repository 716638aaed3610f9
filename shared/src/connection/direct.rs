//! Direct TLS: a connection begins with TLS, without a request for it first, which saves a round trip (PostgreSQL 17, "Protocol
//! Flow", SSL). If a server refuses that, the usual negotiation follows.
use crate::connection::roots::{self, Roots};
use deadpool_postgres::{ConfigConnectImpl, Connect};
use postgres_native_tls::{MakeTlsConnector, set_postgresql_alpn};
use std::{error::Error as _, pin::Pin, sync::OnceLock};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, Error, config::SslNegotiation};

/// Returns a connector for direct TLS, which requires the protocol's name in ALPN.
///
/// # Errors
/// What is wrong with the file of roots or with TLS, worded to follow the name of the setting `sslrootcert`.
pub(crate) fn connector(roots: &Roots) -> Result<MakeTlsConnector, String> {
    let mut builder = roots::builder(roots)?;
    set_postgresql_alpn(&mut builder);
    let connector = builder.build().map_err(|error| format!("that TLS cannot be set up with: {error}"))?;
    Ok(MakeTlsConnector::new(connector))
}

/// Connects by direct TLS or, if the server refuses that, by the usual negotiation. It then remembers that, and the next
/// connection does not try.
pub(crate) struct DirectFirst {
    direct: MakeTlsConnector,
    roots: Roots,
    /// The connector of the usual negotiation, once a server has refused direct TLS.
    usual: OnceLock<MakeTlsConnector>,
}

impl DirectFirst {
    /// Connects to servers whose certificates these roots verify.
    ///
    /// # Errors
    /// As [`connector`].
    pub(crate) fn new(roots: &Roots) -> Result<Self, String> {
        Ok(Self { direct: connector(roots)?, roots: roots.clone(), usual: OnceLock::new() })
    }

    async fn connect_to(&self, mut config: Config) -> Result<(Client, JoinHandle<()>), Error> {
        let usual = match self.usual.get() {
            Some(usual) => usual.clone(),
            None => {
                config.ssl_negotiation(SslNegotiation::Direct);
                let result = ConfigConnectImpl { tls: self.direct.clone() }.connect(&config).await;
                let Err(error) = result else { return result };
                match roots::connector(&self.roots) {
                    Ok(usual) if is_tls(&error) => MakeTlsConnector::new(usual),
                    _ => return Err(error),
                }
            }
        };
        config.ssl_negotiation(SslNegotiation::Postgres);
        let connection = ConfigConnectImpl { tls: usual.clone() }.connect(&config).await?;
        self.usual.get_or_init(|| usual);
        Ok(connection)
    }
}

impl Connect for DirectFirst {
    fn connect(
        &self,
        config: &Config,
    ) -> Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), Error>> + Send + '_>> {
        Box::pin(self.connect_to(config.clone()))
    }
}

/// Whether the TLS handshake failed: an older server takes it for a malformed message, and closes the connection.
fn is_tls(error: &Error) -> bool {
    error.source().is_some_and(|source| source.is::<native_tls::Error>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use openssl::{
        asn1::Asn1Time,
        hash::MessageDigest,
        pkey::{PKey, Private},
        rsa::Rsa,
        ssl::{AlpnError, SslAcceptor, SslMethod, select_next_proto},
        x509::{X509, X509NameBuilder, extension::SubjectAlternativeName},
    };
    use std::{
        env, fs,
        io::{Read, Write},
        net::{TcpListener, TcpStream},
        path::PathBuf,
        process,
        sync::mpsc::{Receiver, channel},
        thread,
    };

    const HOST: &str = "ep-test.neon.tech";

    /// A certificate for the host, signed by itself.
    fn certificate() -> (X509, PKey<Private>) {
        let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
        let mut name = X509NameBuilder::new().unwrap();
        name.append_entry_by_text("CN", HOST).unwrap();
        let name = name.build();
        let mut builder = X509::builder().unwrap();
        builder.set_version(2).unwrap();
        builder.set_subject_name(&name).unwrap();
        builder.set_issuer_name(&name).unwrap();
        builder.set_pubkey(&key).unwrap();
        builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
        builder.set_not_after(&Asn1Time::days_from_now(1).unwrap()).unwrap();
        let names = SubjectAlternativeName::new().dns(HOST).build(&builder.x509v3_context(None, None)).unwrap();
        builder.append_extension(names).unwrap();
        builder.sign(&key, MessageDigest::sha256()).unwrap();
        (builder.build(), key)
    }

    /// Starts a server that lets everybody in. Returns its port, its certificate's file and, for each connection, its first byte.
    fn start(name: &str, accepts_direct: bool) -> (u16, PathBuf, Receiver<u8>) {
        let (certificate, key) = certificate();
        let file = env::temp_dir().join(format!("{name}-{}.pem", process::id()));
        fs::write(&file, certificate.to_pem().unwrap()).unwrap();
        let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).unwrap();
        acceptor.set_certificate(&certificate).unwrap();
        acceptor.set_private_key(&key).unwrap();
        // Like PostgreSQL 17, it ends a handshake that offers another protocol.
        acceptor.set_alpn_select_callback(|_, offered| {
            select_next_proto(b"\x0apostgresql", offered)
                .filter(|chosen| *chosen == b"postgresql")
                .ok_or(AlpnError::ALERT_FATAL)
        });
        let acceptor = acceptor.build();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (seen, first_bytes) = channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut first = [0];
                stream.peek(&mut first).unwrap();
                seen.send(first[0]).unwrap();
                match (first[0], accepts_direct) {
                    // The request for TLS.
                    (0, _) => {
                        stream.read_exact(&mut [0; 8]).unwrap();
                        stream.write_all(b"S").unwrap();
                    }
                    (_, true) => {}
                    (_, false) => continue,
                }
                let acceptor = acceptor.clone();
                thread::spawn(move || welcome(acceptor.accept(stream).unwrap()));
            }
        });
        (port, file, first_bytes)
    }

    /// Reads the startup message, answers AuthenticationOk and ReadyForQuery, and waits for the end.
    fn welcome(mut stream: openssl::ssl::SslStream<TcpStream>) {
        let _ = stream.read(&mut [0; 1024]);
        stream.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").unwrap();
        let _ = stream.read(&mut [0; 1024]);
    }

    fn config(port: u16) -> Config {
        let mut config = Config::new();
        config.host(HOST).hostaddr("127.0.0.1".parse().unwrap()).port(port).user("a").dbname("d");
        config.ssl_mode(tokio_postgres::config::SslMode::Require);
        config
    }

    /// The first byte of a TLS handshake, and of the request for one.
    const HANDSHAKE: u8 = 0x16;
    const REQUEST: u8 = 0;

    #[tokio::test]
    async fn a_server_that_accepts_direct_tls_is_asked_for_nothing_else() {
        let (port, file, first_bytes) = start("accepts", true);
        let connector = DirectFirst::new(&Roots::File(file)).unwrap();
        for _ in 0..2 {
            drop(connector.connect(&config(port)).await.unwrap());
        }
        assert_eq!(first_bytes.try_iter().collect::<Vec<_>>(), [HANDSHAKE, HANDSHAKE]);
    }

    #[tokio::test]
    async fn a_server_that_refuses_direct_tls_costs_one_more_connect_once() {
        let (port, file, first_bytes) = start("refuses", false);
        let connector = DirectFirst::new(&Roots::File(file)).unwrap();
        for _ in 0..3 {
            drop(connector.connect(&config(port)).await.unwrap());
        }
        assert_eq!(first_bytes.try_iter().collect::<Vec<_>>(), [HANDSHAKE, REQUEST, REQUEST, REQUEST]);
    }

    #[tokio::test]
    async fn a_certificate_that_does_not_verify_is_refused_in_either_negotiation() {
        let (port, _, first_bytes) = start("unknown", true);
        let connector = DirectFirst::new(&Roots::BuiltIn).unwrap();
        for _ in 0..2 {
            assert!(connector.connect(&config(port)).await.is_err());
        }
        // It is no refusal of direct TLS that would be remembered.
        assert_eq!(first_bytes.try_iter().collect::<Vec<_>>(), [HANDSHAKE, REQUEST, HANDSHAKE, REQUEST]);
    }

    #[tokio::test]
    async fn nothing_that_listens_is_no_refusal() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let connector = DirectFirst::new(&Roots::BuiltIn).unwrap();
        let error = connector.connect(&config(port)).await.err().unwrap();
        assert!(!is_tls(&error) && connector.usual.get().is_none(), "{error:?}");
    }
}
