//! Calls of the deployed API after a deployment.
use super::stack::Stack;
use anyhow::{Context as _, Result, anyhow, bail};
use reqwest::{Client, Response, StatusCode};
use serde_json::Value;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Timeout of one attempt, in seconds. API Gateway gives up after 30.
const ATTEMPT_TIMEOUT_S: u64 = 35;
/// Maximum length of the part of a response body that an error quotes, in characters.
const QUOTED: usize = 300;

/// A call and its expected answer.
pub struct Call {
    pub path: &'static str,
    pub expected: StatusCode,
    /// A field that the JSON body must have.
    field: Option<&'static str>,
    /// The function that answers. Its program and log have this name.
    function: &'static str,
    /// Printed after any other answer.
    advice: &'static str,
}

const CALLS: [Call; 3] = [
    Call {
        path: "/health?deep=true",
        expected: StatusCode::OK,
        field: None,
        function: "health",
        advice: "503 means that the database does not answer: check that it runs, and DATABASE_URL in the secret \
                 'database'",
    },
    Call {
        path: "/openapi.json",
        expected: StatusCode::OK,
        field: Some("openapi"),
        function: "docs",
        advice: "This call uses neither the database nor a secret",
    },
    Call {
        path: "/api/tasks",
        expected: StatusCode::UNAUTHORIZED,
        field: None,
        function: "list-tasks",
        advice: "A call without a session must be refused. 5xx means that the function does not start, or cannot read the \
                 secret 'api'",
    },
];

/// The calls, with the contract's answer.
pub fn calls(serves_docs: bool) -> impl Iterator<Item = Call> {
    CALLS.into_iter().map(move |call| match call.function {
        "docs" if !serves_docs => Call { expected: StatusCode::NOT_FOUND, field: None, ..call },
        _ => call,
    })
}

/// Makes every call. Retries a failed call until `timeout`, because a new API may need some seconds.
/// `serves_docs` is the parameter `ServeDocs`: without it, the contract must not be there.
pub async fn make_all(stack: &Stack, url: &str, serves_docs: bool, timeout: Duration) -> Result<()> {
    let client = Client::builder().timeout(Duration::from_secs(ATTEMPT_TIMEOUT_S)).build()?;
    for call in calls(serves_docs) {
        let until = Instant::now() + timeout;
        let mut pause = Duration::from_secs(1);
        loop {
            match call.attempt(&client, url).await {
                Ok(()) => {
                    println!("GET {} returned {}", call.path, call.expected.as_u16());
                    break;
                }
                Err(error) if Instant::now() + pause > until => {
                    bail!(
                        "{error:#}\n{}. The function's log:\n  sam logs --cw-log-group /aws/lambda/{}-{} --region {}\n\
                         See also docs/deploy.md, \"Finding a request\"",
                        call.advice,
                        stack.name,
                        call.function,
                        stack.region
                    )
                }
                Err(error) => println!("{error:#}; trying again in {} s", pause.as_secs()),
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(10));
        }
    }
    Ok(())
}

impl Call {
    async fn attempt(&self, client: &Client, url: &str) -> Result<()> {
        let answer = client.get(format!("{}{}", url.trim_end_matches('/'), self.path)).send().await;
        let answer = answer.with_context(|| format!("GET {} failed", self.path))?;
        if answer.status() != self.expected {
            let (status, expected) = (answer.status().as_u16(), self.expected.as_u16());
            return Err(anyhow!(
                "GET {} returned {status}, expected {expected}{}",
                self.path,
                first_line(answer).await
            ));
        }
        if let Some(field) = self.field {
            let body: Option<Value> = answer.json().await.ok();
            if body.is_none_or(|body| body.get(field).is_none()) {
                bail!("GET {} returned no JSON with '{field}'", self.path);
            }
        }
        Ok(())
    }
}

/// Returns the first line of a JSON error body: problem documents and API Gateway's own errors are JSON.
async fn first_line(answer: Response) -> String {
    let content_type = answer.headers().get("content-type").and_then(|value| value.to_str().ok());
    if !content_type.is_some_and(|it| it.contains("json")) {
        return String::new();
    }
    let body = answer.text().await.unwrap_or_default();
    let line: String = body.lines().next().unwrap_or_default().chars().take(QUOTED).collect();
    format!(": {line}")
}
