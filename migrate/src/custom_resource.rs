//! The custom resource protocol of CloudFormation. The resource exists once the database is up to date
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

/// Attempts to send the response.
const ATTEMPTS: u32 = 3;
/// Seconds that one attempt may take.
const ATTEMPT_TIMEOUT_S: u64 = 3;
/// Characters of the reason that are sent: a response may have at most 4096 bytes.
const MAX_REASON_CHARACTERS: usize = 800;
/// Constant, because CloudFormation deletes the old resource when the id changes.
const PHYSICAL_RESOURCE_ID: &str = "migrations";

/// A request from CloudFormation. Never log it: whoever has the URL can respond to it.
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

/// Migrates, and always reports the outcome to CloudFormation: without a response it waits, by default for an hour.
///
/// # Errors
/// Only if the response cannot be delivered. CloudFormation then waits as long as the template allows (ServiceTimeout).
pub async fn answer(request: &CustomResource, time_left: Duration) -> Result<()> {
    let result = match request.request_type {
        // Deleting the stack must not delete the data. Nor may the cleanup after a failed creation.
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
        // The URL's signature requires an empty Content-Type.
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
