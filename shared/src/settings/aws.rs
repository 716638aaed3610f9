//! Sends one signed HTTPS request to an AWS service.
//!
//! Written by hand around AWS's own signer. The client of AWS's SDK would add 7 MB to each function and 17 to 63 ms to
//! its start.
use crate::connection::roots::{self, Roots};
use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4::SigningParams,
};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Request, StatusCode, Uri,
    body::Bytes,
    client::conn::http1,
    header::{CONNECTION, CONTENT_TYPE, HOST},
    http::uri::Scheme,
};
use hyper_util::rt::TokioIo;
use std::{fmt::Display, net::IpAddr, path::PathBuf, time::SystemTime};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::yield_now,
};

/// Maximum size of a response in bytes. A secret has at most 64 KiB (AWS Secrets Manager's quotas).
const MAX_RESPONSE_BYTES: usize = 256 * 1024;

/// A service in one region, with the credentials for calling it. It cannot be printed.
pub(crate) struct Service {
    name: &'static str,
    region: String,
    credentials: Credentials,
    endpoint: Endpoint,
    roots: Roots,
}

/// Why a request failed, in one sentence for the log.
#[derive(Debug)]
pub(crate) enum RequestError {
    /// A setting is invalid.
    Setting(String),
    /// The service cannot be reached, or the connection broke off.
    Network(String),
}

impl Service {
    /// Configures a service from the environment as AWS's SDKs and CLI do (docs.aws.amazon.com/sdkref/latest/guide).
    /// `endpoint_variable` (`AWS_ENDPOINT_URL_` and the service) or `AWS_ENDPOINT_URL` replaces AWS's own address, and
    /// `AWS_CA_BUNDLE` the default roots. The credentials are those of the function's role, which Lambda sets.
    ///
    /// # Errors
    /// A sentence that names the setting that is missing or invalid.
    pub(crate) fn from_settings(
        name: &'static str,
        endpoint_variable: &str,
        region: &str,
        get: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        let required = |name: &str| get(name).ok_or_else(|| format!("{name} is not set: Lambda sets it"));
        let credentials = Credentials::new(
            required("AWS_ACCESS_KEY_ID")?,
            required("AWS_SECRET_ACCESS_KEY")?,
            get("AWS_SESSION_TOKEN"),
            None,
            "environment",
        );
        let configured =
            [endpoint_variable, "AWS_ENDPOINT_URL"].into_iter().find_map(|name| get(name).map(|url| (name, url)));
        let endpoint = match configured {
            Some((variable, url)) => Endpoint::parse(&url).map_err(|problem| format!("{variable} {problem}"))?,
            None => Endpoint::default_for(name, region)?,
        };
        let roots = match get("AWS_CA_BUNDLE") {
            Some(path) => Roots::File(PathBuf::from(path)),
            None if endpoint.host.ends_with(".amazonaws.com") => Roots::BuiltIn,
            None => Roots::System,
        };
        Ok(Self { name, region: region.to_owned(), credentials, endpoint, roots })
    }

    /// Calls an operation of a service with the JSON 1.1 protocol. Returns the status and body of the response.
    pub(crate) async fn post(&self, operation: &str, body: String) -> Result<(StatusCode, Bytes), RequestError> {
        let Endpoint { host, port, uses_tls, .. } = &self.endpoint;
        let address = host.trim_matches(['[', ']']).to_owned();
        // Spawned, so that the connect proceeds while OpenSSL is initialised, which takes milliseconds at a cold start.
        let connecting = tokio::spawn(TcpStream::connect((address.clone(), *port)));
        yield_now().await;
        let tls = uses_tls.then(|| roots::connector(&self.roots)).transpose();
        let tls = tls.map_err(|problem| RequestError::Setting(format!("AWS_CA_BUNDLE names a file {problem}")))?;
        let unreachable = |error: &dyn Display| RequestError::Network(format!("{host} cannot be reached: {error}"));
        let stream = connecting.await.map_err(|error| unreachable(&error))?.map_err(|error| unreachable(&error))?;
        let Some(tls) = tls else { return self.exchange(stream, operation, body).await };
        let stream = tokio_native_tls::TlsConnector::from(tls).connect(&address, stream).await;
        let stream = stream.map_err(|error| RequestError::Network(format!("no TLS with {host}: {error}")))?;
        self.exchange(stream, operation, body).await
    }

    async fn exchange<S>(&self, stream: S, operation: &str, body: String) -> Result<(StatusCode, Bytes), RequestError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let broken = |error: &dyn Display| RequestError::Network(format!("{} broke off: {error}", self.endpoint.host));
        let request = self.signed_request(operation, body, SystemTime::now()).map_err(RequestError::Setting)?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| broken(&error))?;
        let connection = tokio::spawn(connection);
        let answer = async {
            let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_RESPONSE_BYTES).collect().await;
            Ok((status, body.map_err(|error| broken(&error))?.to_bytes()))
        }
        .await;
        connection.abort();
        answer
    }

    /// Builds the request with its signature (AWS Signature Version 4).
    fn signed_request(&self, operation: &str, body: String, time: SystemTime) -> Result<Request<Full<Bytes>>, String> {
        let cannot = |_| "a request to AWS cannot be made of the settings".to_owned();
        let headers = [
            (HOST.as_str(), self.endpoint.authority.as_str()),
            (CONTENT_TYPE.as_str(), "application/x-amz-json-1.1"),
            ("x-amz-target", operation),
        ];
        let signature = self.signature_headers("POST", &headers, body.as_bytes(), time).map_err(|_| {
            "a request to AWS cannot be signed: are AWS_ACCESS_KEY_ID and AWS_SESSION_TOKEN as Lambda sets them?"
                .to_owned()
        })?;
        let mut request = Request::post("/").header(CONNECTION, "close");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        for (name, value) in &signature {
            request = request.header(name, value);
        }
        request.body(Full::from(body)).map_err(cannot)
    }

    /// Returns the headers that sign a request to the service's root path.
    fn signature_headers(
        &self,
        method: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        time: SystemTime,
    ) -> Result<Vec<(String, String)>, Box<dyn std::error::Error>> {
        let identity = self.credentials.clone().into();
        let parameters = SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(self.name)
            .time(time)
            .settings(SigningSettings::default())
            .build()?
            .into();
        let uri = format!("https://{}/", self.endpoint.authority);
        let request = SignableRequest::new(method, uri, headers.iter().copied(), SignableBody::Bytes(body))?;
        let (instructions, _) = sign(request, &parameters)?.into_parts();
        Ok(instructions.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}

/// The address of a service.
#[derive(Debug, PartialEq, Eq)]
struct Endpoint {
    uses_tls: bool,
    host: String,
    port: u16,
    /// The value of the `host` header. It includes the port only if that is not the scheme's default.
    authority: String,
}

impl Endpoint {
    /// Returns AWS's own address of a service (docs.aws.amazon.com/general/latest/gr/rande.html). The partitions for
    /// secret regions have other domains: there, set `AWS_ENDPOINT_URL`.
    fn default_for(service: &str, region: &str) -> Result<Self, String> {
        let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        Self::parse(&format!("https://{service}.{region}.{domain}"))
            .map_err(|_| format!("the region {region:?} is not one of AWS's"))
    }

    /// Parses a URL. Without TLS it must point to this machine, because a secret is sent over it.
    fn parse(url: &str) -> Result<Self, String> {
        let wrong = || "is not a URL like https://secretsmanager.eu-central-1.amazonaws.com".to_owned();
        let uri: Uri = url.trim().parse().map_err(|_| wrong())?;
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else { return Err(wrong()) };
        if authority.as_str().contains('@') || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err("has more than a scheme, a host and a port".to_owned());
        }
        let host = authority.host().to_ascii_lowercase();
        let (uses_tls, default_port) = match scheme {
            scheme if *scheme == Scheme::HTTPS => (true, 443),
            scheme if *scheme == Scheme::HTTP && is_loopback(&host) => (false, 80),
            scheme if *scheme == Scheme::HTTP => {
                return Err(
                    "is without TLS: http:// is for addresses of this machine only, such as 127.0.0.1".to_owned()
                );
            }
            _ => return Err(wrong()),
        };
        let port = authority.port_u16().unwrap_or(default_port);
        let authority = if port == default_port { host.clone() } else { format!("{host}:{port}") };
        Ok(Self { uses_tls, host, port, authority })
    }
}

/// Whether a host, in lower case, is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn service(changes: &[(&str, &str)]) -> Result<Service, String> {
        let usual = [
            ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
            ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
        ];
        Service::from_settings("service", "AWS_ENDPOINT_URL_SERVICE", "us-east-1", |name| {
            let settings = changes.iter().chain(&usual);
            let value = settings.clone().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
            value.filter(|value| !value.is_empty())
        })
    }

    /// AWS's published test suite for Signature Version 4: `post-vanilla`, `post-sts-header-before` and
    /// `post-x-www-form-urlencoded` (github.com/awslabs/aws-c-auth, tests/aws-signing-test-suite; the last one as in
    /// the suite's first edition, without the checksum header that only S3 has).
    #[test]
    fn signatures_match_those_of_aws_test_suite() {
        let token = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==";
        let time = UNIX_EPOCH + Duration::from_secs(1_440_938_160);
        let form = ("content-type", "application/x-www-form-urlencoded");
        for (token, header, body, signed, signature) in [
            ("", None, "", "host;x-amz-date", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
            (
                token,
                None,
                "",
                "host;x-amz-date;x-amz-security-token",
                "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
            ),
            (
                "",
                Some(form),
                "Param1=value1",
                "content-type;host;x-amz-date",
                "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
            ),
        ] {
            let service =
                service(&[("AWS_SESSION_TOKEN", token), ("AWS_ENDPOINT_URL", "https://example.amazonaws.com")])
                    .unwrap();
            let headers: Vec<_> = [("host", "example.amazonaws.com")].into_iter().chain(header).collect();
            let made = service.signature_headers("POST", &headers, body.as_bytes(), time).unwrap();
            let header = |name: &str| made.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str());
            assert_eq!(header("x-amz-date"), Some("20150830T123600Z"));
            assert_eq!(header("x-amz-security-token").unwrap_or_default(), token);
            let expected = format!(
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders={signed}, Signature={signature}"
            );
            assert_eq!(header("authorization"), Some(&*expected));
        }
    }

    #[test]
    fn what_is_sent_is_what_was_signed() {
        let service = service(&[("AWS_ENDPOINT_URL", "http://127.0.0.1:5000")]).unwrap();
        let request = service.signed_request("service.Operation", "{}".to_owned(), UNIX_EPOCH).unwrap();
        let header = |name: &str| request.headers()[name].to_str().unwrap();
        let signed = header("authorization").split("SignedHeaders=").nth(1).unwrap().split(',').next().unwrap();
        assert_eq!(signed, "content-type;host;x-amz-date;x-amz-target");
        assert_eq!((header("host"), header("x-amz-target")), ("127.0.0.1:5000", "service.Operation"));
        assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/"));
    }

    #[test]
    fn the_endpoint_is_that_of_aws_or_the_configured_one() {
        for (region, host) in [
            ("eu-central-1", "secretsmanager.eu-central-1.amazonaws.com"),
            ("us-gov-west-1", "secretsmanager.us-gov-west-1.amazonaws.com"),
            ("cn-north-1", "secretsmanager.cn-north-1.amazonaws.com.cn"),
        ] {
            let endpoint = Endpoint::default_for("secretsmanager", region).unwrap();
            assert_eq!((endpoint.uses_tls, &*endpoint.host, endpoint.port), (true, host, 443));
            assert_eq!(endpoint.authority, host);
        }
        let both = [("AWS_ENDPOINT_URL", "https://a.example:8443/"), ("AWS_ENDPOINT_URL_SERVICE", "http://[::1]:5000")];
        assert_eq!(service(&both).unwrap().endpoint.authority, "[::1]:5000");
        assert_eq!(service(&both[..1]).unwrap().endpoint.authority, "a.example:8443");
    }

    #[test]
    fn a_wrong_setting_is_one_sentence_that_names_it() {
        for (name, value, expected) in [
            ("AWS_ACCESS_KEY_ID", "", "AWS_ACCESS_KEY_ID is not set"),
            ("AWS_SECRET_ACCESS_KEY", "", "AWS_SECRET_ACCESS_KEY is not set"),
            ("AWS_ENDPOINT_URL", "secretsmanager", "AWS_ENDPOINT_URL is not a URL"),
            ("AWS_ENDPOINT_URL", "ftp://127.0.0.1", "AWS_ENDPOINT_URL is not a URL"),
            ("AWS_ENDPOINT_URL", "https://a:b@example.com", "AWS_ENDPOINT_URL has more than"),
            ("AWS_ENDPOINT_URL", "https://example.com/path", "AWS_ENDPOINT_URL has more than"),
            ("AWS_ENDPOINT_URL", "http://example.com", "AWS_ENDPOINT_URL is without TLS"),
            ("AWS_ENDPOINT_URL_SERVICE", "http://169.254.169.254", "AWS_ENDPOINT_URL_SERVICE is without TLS"),
        ] {
            let error = service(&[(name, value)]).err().unwrap_or_else(|| panic!("{name}={value} was accepted"));
            assert!(error.starts_with(expected), "{name}={value}: {error}");
        }
    }
}
