//! The proof that a request came through the edge: CloudFront sends a key with each request to the API.
//!
//! A function knows only the key's digest, which is no secret: nobody can find a random key of 256 bits by its digest. So even a
//! function without a secret can check the key.
use crate::{environment::variable, error::Error, http::request::Request};
use sha2::{Digest as _, Sha256};

/// The header with the key, in lower case.
const HEADER: &str = "x-edge-key";
/// The setting with the digests.
const SETTING: &str = "EDGE_KEY_SHA256";
/// Number of bytes of a digest.
const DIGEST_BYTES: usize = 32;

/// The digests of the keys that the edge may send. Two while a key is replaced, none if there is no edge.
pub(crate) struct EdgeKeys(Vec<[u8; DIGEST_BYTES]>);

impl EdgeKeys {
    /// Reads `EDGE_KEY_SHA256`: digests in hexadecimal, separated by commas.
    ///
    /// # Errors
    /// A sentence that names the setting if a digest is not valid. Without the check, a typing error would open the API.
    pub(crate) fn from_env() -> Result<Self, String> {
        Self::parse(variable(SETTING).as_deref())
    }

    fn parse(setting: Option<&str>) -> Result<Self, String> {
        let digests = setting.into_iter().flat_map(|text| text.split(',')).map(|text| parse_digest(text.trim()));
        let digests: Option<Vec<_>> = digests.collect();
        digests.map(Self).ok_or_else(|| format!("{SETTING} is not a list of SHA-256 digests in hexadecimal"))
    }

    /// Refuses a request that has not come through the edge, if there is one.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub(crate) fn check(&self, request: &Request) -> Result<(), Error> {
        if self.0.is_empty() {
            return Ok(());
        }
        let digest = request.header(HEADER).map(|key| Sha256::digest(key.as_bytes()));
        if digest.is_some_and(|digest| self.0.iter().any(|known| known[..] == digest[..])) {
            Ok(())
        } else {
            Err(Error::Forbidden("This address is closed: call the API at its public address."))
        }
    }
}

fn parse_digest(text: &str) -> Option<[u8; DIGEST_BYTES]> {
    if text.len() != 2 * DIGEST_BYTES || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut digest = [0; DIGEST_BYTES];
    for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// `printf key-of-the-edge | sha256sum`
    fn digest(key: &str) -> String {
        Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn request(headers: serde_json::Value) -> Request {
        serde_json::from_value(json!({ "headers": headers, "requestContext": { "http": { "method": "GET" } } }))
            .unwrap()
    }

    #[test]
    fn only_a_request_with_one_of_the_keys_is_admitted() {
        let keys = EdgeKeys::parse(Some(&format!("{}, {}", digest("old"), digest("new")))).ok().unwrap();
        for key in ["old", "new"] {
            assert!(keys.check(&request(json!({ "x-edge-key": key }))).is_ok(), "{key}");
        }
        let first = digest("old");
        for headers in
            [json!({}), json!({ "x-edge-key": "" }), json!({ "x-edge-key": "other" }), json!({ "x-edge-key": first })]
        {
            assert!(matches!(keys.check(&request(headers)), Err(Error::Forbidden(_))));
        }
    }

    #[test]
    fn without_an_edge_every_request_is_admitted_and_a_wrong_digest_is_no_setting() {
        assert!(EdgeKeys::parse(None).ok().unwrap().check(&request(json!({}))).is_ok());
        let long = format!("{}0", digest("a"));
        for wrong in ["0", &long, &digest("a").replace(['0', '1'], "g"), &format!("{},", digest("a"))] {
            let error = EdgeKeys::parse(Some(wrong)).err().unwrap_or_else(|| panic!("{wrong}"));
            assert!(error.starts_with("EDGE_KEY_SHA256 is not") && !error.contains(wrong), "{error}");
        }
    }
}
