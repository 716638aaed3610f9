//! CloudFormation's side: a custom resource that is there when the database is up to date
//! (docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/crpg-ref.html).
use crate::{command, stack};
use anyhow::{Context as _, Result, anyhow};
use futures_util::FutureExt as _;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use serde::{Deserialize, Serialize};
use std::{
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};

/// How often the answer is sent, until one arrives.
const ATTEMPTS: u32 = 3;
/// How long an attempt may take, in seconds.
const ATTEMPT_TIMEOUT_S: u64 = 3;
/// The longest reason that is told, in characters: an answer has at most 4096 bytes.
const MAX_REASON_CHARACTERS: usize = 800;
/// It never changes: a new one would make CloudFormation delete the old resource.
const PHYSICAL_RESOURCE_ID: &str = "migrations";

/// What CloudFormation asks. Never printed: whoever has the URL can answer.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CustomResource {
    request_type: RequestType,
    #[serde(rename = "ResponseURL")]
    response_url: String,
    stack_id: String,
    request_id: String,
    logical_resource_id: String,
    physical_resource_id: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum RequestType {
    Create,
    Update,
    Delete,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Answer<'a> {
    status: &'static str,
    reason: String,
    physical_resource_id: &'a str,
    stack_id: &'a str,
    request_id: &'a str,
    logical_resource_id: &'a str,
}

/// Migrates, and tells CloudFormation in every case how that went: without an answer it waits for an hour.
///
/// # Errors
/// Only when the answer could not be delivered: then CloudFormation waits for as long as the template says.
pub async fn answer(request: &CustomResource, time_left: Duration) -> Result<()> {
    let result = match request.request_type {
        // A stack that goes must not take the data along; nor may one whose creation failed.
        RequestType::Delete => Ok("the database stays as it is".to_owned()),
        RequestType::Create | RequestType::Update => AssertUnwindSafe(deploy(request, time_left))
            .catch_unwind()
            .await
            .unwrap_or_else(|_| Err(anyhow!("the migrations panicked: the function's log says where"))),
    };
    let (status, reason) = match result {
        Ok(done) => ("SUCCESS", done),
        Err(error) => ("FAILED", format!("{error:#}")),
    };
    tracing::info!(status, reason, request_type = format!("{:?}", request.request_type), "answering CloudFormation");
    let answer = Answer {
        status,
        reason: reason.chars().take(MAX_REASON_CHARACTERS).collect(),
        physical_resource_id: request.physical_resource_id.as_deref().unwrap_or(PHYSICAL_RESOURCE_ID),
        stack_id: &request.stack_id,
        request_id: &request.request_id,
        logical_resource_id: &request.logical_resource_id,
    };
    deliver(&request.response_url, &answer).await
}

async fn deploy(request: &CustomResource, time_left: Duration) -> Result<String> {
    let began = Instant::now();
    if request.request_type == RequestType::Update && stack::is_rolling_back(&request.stack_id).await {
        return Ok("the stack is rolling back: the database stays as it is".to_owned());
    }
    command::deploy(time_left.saturating_sub(began.elapsed())).await
}

async fn deliver(url: &str, answer: &Answer<'_>) -> Result<()> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(ATTEMPT_TIMEOUT_S)).build()?;
    let body = serde_json::to_vec(answer)?;
    let mut attempt = 1;
    loop {
        // The URL is signed for an empty type.
        let request = client.put(url).header(CONTENT_TYPE, HeaderValue::from_static("")).body(body.clone());
        match request.send().await.and_then(reqwest::Response::error_for_status) {
            Ok(_) => return Ok(()),
            Err(_) if attempt < ATTEMPTS => attempt += 1,
            Err(error) => {
                return Err(error.without_url()).context("CloudFormation's answer URL does not take the answer");
            }
        }
    }
}
