//! HTTP in the form that API Gateway uses: the request, the response and its body.
pub(crate) mod body;
pub(crate) mod request;
pub(crate) mod response;
