//! HTTP requests through the host. The parameter of the grant `http` lists the permitted URL patterns.

use crate::HostError;
pub use crate::bindings::services::pintle::plugin::http::{Request, Response, fetch_many};

/// Timeout in milliseconds. Short, since a client waits at the other end of the SMTP session.
const TIMEOUT_MS: u32 = 5_000;

/// Limit on the size of a response, in octets.
const MAX_RESPONSE: u32 = 1 << 20;

/// Sends one request. For several, use [`fetch_many`].
///
/// # Errors
///
/// The URL is not granted, or there was no response in time. A response with a status of 400 or above is not an error.
pub fn fetch(request: Request) -> Result<Response, HostError> {
    fetch_many(&[request])
        .pop()
        .unwrap_or_else(|| Err(HostError::Invalid("the host gave no result for the request".to_owned())))
}

impl Request {
    /// A GET request with a timeout of five seconds and a response limit of 1 MiB.
    #[must_use]
    pub fn get(url: impl Into<String>) -> Self {
        Self::new("GET", url, Vec::new())
    }

    /// A POST request with a JSON body, a timeout of five seconds and a response limit of 1 MiB.
    #[must_use]
    pub fn post_json(url: impl Into<String>, body: &serde_json::Value) -> Self {
        let mut request = Self::new("POST", url, body.to_string().into_bytes());
        request.headers.push(("content-type".to_owned(), "application/json".to_owned()));
        request
    }

    fn new(method: &str, url: impl Into<String>, body: Vec<u8>) -> Self {
        Self {
            method: method.to_owned(),
            url: url.into(),
            headers: Vec::new(),
            body,
            timeout_ms: TIMEOUT_MS,
            max_response: MAX_RESPONSE,
        }
    }
}

impl Response {
    /// Parses the body as JSON.
    ///
    /// # Errors
    ///
    /// The body is not valid JSON, or does not match the type.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_post_carries_json_and_says_so() {
        let request = Request::post_json("https://api.example/v1", &serde_json::json!({ "a": 1 }));
        assert_eq!(request.method, "POST");
        assert_eq!(request.body, br#"{"a":1}"#);
        assert_eq!(request.headers, [("content-type".to_owned(), "application/json".to_owned())]);
        assert!(request.timeout_ms > 0 && request.max_response > 0);
    }

    #[test]
    fn a_response_is_read_as_json() {
        let response = Response { status: 200, headers: Vec::new(), body: b"[1, 2]".to_vec() };
        assert_eq!(response.json::<Vec<u32>>().unwrap(), [1, 2]);
        assert!(response.json::<String>().is_err());
    }
}
