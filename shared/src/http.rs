//! HTTP as API Gateway speaks it: the request, the answer, and the answer's body.
pub(crate) mod body;
pub(crate) mod request;
pub(crate) mod response;
