//! The responses of the task endpoints.
use crate::{
    caller::Caller,
    error::Error,
    http::{request::Request, response::Response},
    tasks::{batch::BatchResults, changes::Changes, page::Page, precondition, task::Task},
};
use lambda_http::http::{
    HeaderName,
    header::{ETAG, LINK},
};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

/// The characters that a path segment cannot contain (RFC 3986, section 3.3).
const NOT_IN_SEGMENT: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'/')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// Marks the response to a request that an earlier one with the same key has done.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

impl Response {
    /// 200 with a task that was changed, and its entity tag.
    pub fn task(task: &Task) -> Self {
        Self::ok(task).with_tag(task)
    }

    /// 200 with a task and its entity tag, or 304 if the client already has this version (RFC 9110, section 13.1.2).
    ///
    /// # Errors
    /// [`Error::Invalid`] if `If-None-Match` is too long.
    pub fn task_if_changed(request: &Request, task: &Task) -> Result<Self, Error> {
        let response =
            if precondition::is_not_modified(request, task)? { Self::not_modified() } else { Self::ok(task) };
        Ok(response.private().with_tag(task))
    }

    /// 201 with the new task, its entity tag and its `Location`. `is_replay` marks a task that an earlier request
    /// created.
    pub fn created_task(caller: &Caller, task: &Task, is_replay: bool) -> Self {
        let path = format!("{}/{}", path_of_tasks(caller), task.id);
        let response = Self::created(task, &path).with_tag(task);
        if is_replay {
            return response.with_header(REPLAYED, "true");
        }
        response
    }

    /// 200 with a page of tasks, and a `Link` to the next page (RFC 8288).
    pub fn task_page(caller: &Caller, page: Page) -> Self {
        let response = Self::ok_body(page.body).private();
        match page.next {
            Some(next) => response.with_header(LINK, &format!("<{}?{next}>; rel=\"next\"", path_of_tasks(caller))),
            None => response,
        }
    }

    /// 200 with a page of changes, or 304 if they are those that the client has.
    pub fn task_changes(changes: Changes) -> Self {
        let response = changes.body.map_or_else(Self::not_modified, Self::ok_body).private();
        match changes.tag {
            Some(tag) => response.with_header(ETAG, &tag),
            None => response,
        }
    }

    /// 200 with the results of a batch. A header marks those of an earlier request.
    pub fn batch(results: BatchResults) -> Self {
        let response = Self::ok_body(results.body);
        if results.is_replay { response.with_header(REPLAYED, "true") } else { response }
    }

    fn with_tag(self, task: &Task) -> Self {
        self.with_header(ETAG, &task.etag().to_string())
    }
}

/// The path of the caller's tasks, in the form that the request used: with the user's id or without.
fn path_of_tasks(caller: &Caller) -> String {
    match caller.path_user_id() {
        Some(user_id) => format!("/api/{}/tasks", utf8_percent_encode(user_id, NOT_IN_SEGMENT)),
        None => "/api/tasks".to_owned(),
    }
}
