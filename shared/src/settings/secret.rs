//! Fetches the secret settings from AWS Secrets Manager, with one request: GetSecretValue
//! (docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html).
use crate::settings::aws::{RequestError, Service};
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::json;
use std::{
    collections::HashMap,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::time::{sleep, timeout};

/// Pause before the second attempt, in milliseconds. It doubles before each later one. Part of it is random, so that
/// functions that are throttled together do not retry together.
const FIRST_PAUSE_MS: u64 = 50;

/// The content of a secret: settings by name, such as `DATABASE_URL`.
pub(crate) type SecretSettings = HashMap<String, String>;

/// A secret's id, and the service that it is fetched from. It cannot be printed.
pub(crate) struct SecretSource {
    secret_id: String,
    service: Service,
}

/// Why a secret could not be fetched, in one sentence that contains no part of the secret.
#[derive(Debug, PartialEq, Eq)]
enum Failure {
    /// Another attempt may succeed.
    Transient(String),
    /// Another attempt fails in the same way until somebody changes something.
    Permanent(String),
}

impl SecretSource {
    /// Returns the secret that the environment names, or `None` if it names none. `API_SECRET_ID` is the secret's ARN,
    /// or its name in the region of `AWS_REGION`.
    ///
    /// # Errors
    /// A sentence that names the setting that is missing or invalid.
    pub(crate) fn from_settings(get: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, String> {
        let Some(secret_id) = get("API_SECRET_ID") else { return Ok(None) };
        // arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME
        let region = match secret_id.strip_prefix("arn:").and_then(|arn| arn.split(':').nth(2)) {
            Some(region) => region.to_owned(),
            None => {
                get("AWS_REGION").ok_or("AWS_REGION is not set, and API_SECRET_ID is not an ARN that names a region")?
            }
        };
        let service = Service::from_settings("secretsmanager", "AWS_ENDPOINT_URL_SECRETS_MANAGER", &region, get)?;
        Ok(Some(Self { secret_id, service }))
    }

    /// Fetches the secret's current version (AWSCURRENT). Transient failures, such as throttling, are retried until
    /// `limit` is over.
    ///
    /// # Errors
    /// A sentence with the cause, for the log.
    pub(crate) async fn fetch(&self, limit: Duration) -> Result<SecretSettings, String> {
        let until = Instant::now() + limit;
        let left = || until.saturating_duration_since(Instant::now());
        let mut pause = FIRST_PAUSE_MS;
        let mut last = None;
        loop {
            let Ok(result) = timeout(left(), self.fetch_once()).await else {
                let seconds = limit.as_secs_f32();
                return Err(last.unwrap_or_else(|| format!("Secrets Manager did not answer within {seconds} s")));
            };
            let cause = match result {
                Ok(settings) => return Ok(settings),
                Err(Failure::Permanent(cause)) => return Err(cause),
                Err(Failure::Transient(cause)) => cause,
            };
            let wait = Duration::from_millis(pause / 2 + jitter(pause / 2));
            if wait >= left() {
                return Err(cause);
            }
            sleep(wait).await;
            last = Some(cause);
            pause *= 2;
        }
    }

    async fn fetch_once(&self) -> Result<SecretSettings, Failure> {
        let body = json!({ "SecretId": self.secret_id }).to_string();
        let answer = self.service.post("secretsmanager.GetSecretValue", body).await;
        let (status, body) = answer.map_err(|error| match error {
            RequestError::Setting(cause) => Failure::Permanent(cause),
            RequestError::Network(cause) => Failure::Transient(format!("Secrets Manager: {cause}")),
        })?;
        if status == StatusCode::OK {
            parse(&body).map_err(Failure::Permanent)
        } else {
            Err(explain_failure(status, &body))
        }
    }
}

/// Returns a number below `limit` that differs between processes. It spreads retries, and is not meant to be
/// unpredictable.
fn jitter(limit: u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::from(since.subsec_nanos()));
    now.checked_rem(limit).unwrap_or_default()
}

/// The part of GetSecretValue's response that is used.
#[derive(Deserialize)]
struct SecretValue {
    #[serde(rename = "SecretString")]
    secret_string: Option<String>,
}

fn parse(body: &[u8]) -> Result<SecretSettings, String> {
    let value: SecretValue = serde_json::from_slice(body).map_err(|_| "Secrets Manager's answer cannot be read")?;
    let text = value.secret_string.ok_or("the secret of API_SECRET_ID is binary: it has to be a JSON object")?;
    serde_json::from_str(&text).map_err(|_| {
        "the secret of API_SECRET_ID is not a JSON object of strings, such as {\"DATABASE_URL\": \"...\", \"BETTER_AUTH_SECRET\": \"...\"}"
            .to_owned()
    })
}

/// An error of the JSON 1.1 protocol. Its type may be preceded by a namespace and a `#`.
#[derive(Default, Deserialize)]
struct ErrorResponse {
    #[serde(rename = "__type", default)]
    error_type: String,
    #[serde(alias = "Message", default)]
    message: String,
}

/// Explains an error response, and what to do about it. Of the response's text only the error type is repeated.
fn explain_failure(status: StatusCode, body: &[u8]) -> Failure {
    let response: ErrorResponse = serde_json::from_slice(body).unwrap_or_default();
    let error_type = response.error_type.rsplit('#').next().unwrap_or_default();
    let error_type: String = error_type.chars().filter(char::is_ascii_alphanumeric).take(60).collect();
    let code = [status.as_str(), &error_type].join(" ");
    let code = code.trim_end();
    let is_about_kms = response.message.contains("KMS");
    let meaning = match error_type.as_str() {
        "DecryptionFailure" | "KMSAccessDeniedException" => {
            "cannot decrypt the secret of API_SECRET_ID: the function's role needs kms:Decrypt on its key, and the key has to be enabled"
        }
        "AccessDeniedException" if is_about_kms => {
            "cannot decrypt the secret of API_SECRET_ID: the function's role needs kms:Decrypt on its key (SecretsKmsKeyArn)"
        }
        "AccessDeniedException" => {
            "denies the function's role the secret of API_SECRET_ID: the role needs secretsmanager:GetSecretValue on it"
        }
        "ResourceNotFoundException" => {
            "has no secret of API_SECRET_ID, or the secret has no current version (AWSCURRENT)"
        }
        "InvalidRequestException" => "does not give the secret of API_SECRET_ID: it is probably marked for deletion",
        "ValidationException" | "InvalidParameterException" => {
            "does not accept API_SECRET_ID: it has to be a secret's ARN or name"
        }
        "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "IncompleteSignature"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "ExpiredTokenException"
        | "ExpiredToken"
        | "MissingAuthenticationToken" => {
            "does not accept the function's credentials (AWS_ACCESS_KEY_ID and its like, which Lambda sets)"
        }
        "ThrottlingException" | "Throttling" | "TooManyRequestsException" | "RequestLimitExceeded" => {
            return Failure::Transient(format!("Secrets Manager throttles requests ({code})"));
        }
        _ if status == StatusCode::TOO_MANY_REQUESTS => {
            return Failure::Transient(format!("Secrets Manager throttles requests ({code})"));
        }
        _ if status.is_server_error() => {
            return Failure::Transient(format!("Secrets Manager failed ({code})"));
        }
        _ => "refused the request for the secret of API_SECRET_ID",
    };
    Failure::Permanent(format!("Secrets Manager {meaning} ({code})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_a_json_object_of_strings() {
        let settings = parse(br#"{"Name":"x","SecretString":"{\"DATABASE_URL\":\"postgres://a\"}"}"#).unwrap();
        assert_eq!(settings["DATABASE_URL"], "postgres://a");
        for wrong in [
            "s3cret",
            r#"{"SecretBinary":"s3cret"}"#,
            r#"{"SecretString":"s3cret"}"#,
            r#"{"SecretString":"{\"DATABASE_URL\":{\"s3cret\":1}}"}"#,
        ] {
            let error = parse(wrong.as_bytes()).unwrap_err();
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    /// The error types of GetSecretValue's API reference and its "Common Errors".
    #[test]
    fn each_refusal_is_one_sentence_without_its_own_text() {
        for (status, body, is_transient, expected) in [
            (
                400,
                r#"{"__type":"AccessDeniedException","Message":"s3cret"}"#,
                false,
                "needs secretsmanager:GetSecretValue",
            ),
            (
                400,
                r#"{"__type":"AccessDeniedException","Message":"Access to KMS is not allowed"}"#,
                false,
                "kms:Decrypt",
            ),
            (400, r#"{"__type":"DecryptionFailure","message":"s3cret"}"#, false, "kms:Decrypt"),
            (400, r#"{"__type":"ResourceNotFoundException","Message":"s3cret"}"#, false, "AWSCURRENT"),
            (400, r#"{"__type":"InvalidRequestException","Message":"s3cret"}"#, false, "marked for deletion"),
            (400, r#"{"__type":"com.amazon.coral#ThrottlingException","message":"s3cret"}"#, true, "throttles"),
            (429, "s3cret", true, "throttles"),
            (400, r#"{"__type":"ExpiredTokenException","message":"s3cret"}"#, false, "the function's credentials"),
            (500, r#"{"__type":"InternalServiceError","message":"s3cret"}"#, true, "failed"),
            (503, "s3cret", true, "failed"),
            (403, "<s3cret>", false, "refused"),
        ] {
            let failure = explain_failure(StatusCode::from_u16(status).unwrap(), body.as_bytes());
            let (cause, passes) = match &failure {
                Failure::Transient(cause) => (cause, true),
                Failure::Permanent(cause) => (cause, false),
            };
            assert!(cause.starts_with("Secrets Manager ") && cause.contains(expected), "{body}: {cause}");
            assert_eq!((passes, cause.contains("s3cret")), (is_transient, false), "{body}: {cause}");
        }
    }

    #[test]
    fn the_region_is_the_arns_or_the_functions() {
        let source = |settings: &[(&str, &str)]| {
            SecretSource::from_settings(|name| {
                let value = settings.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
                value.or_else(|| name.starts_with("AWS_").then(|| "x".to_owned()).filter(|_| name.contains("KEY")))
            })
        };
        let arn = "arn:aws-cn:secretsmanager:cn-north-1:123456789012:secret:task-api/api-AbCdEf";
        assert!(source(&[]).unwrap().is_none());
        assert!(source(&[("API_SECRET_ID", arn)]).unwrap().is_some());
        assert!(source(&[("API_SECRET_ID", "task-api/api"), ("AWS_REGION", "eu-central-1")]).unwrap().is_some());
        let error = source(&[("API_SECRET_ID", "task-api/api")]).err().unwrap();
        assert!(error.starts_with("AWS_REGION is not set"), "{error}");
    }
}
