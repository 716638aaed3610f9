//! Reads HTTP/1.1 messages from a blocking stream.
use std::io::{self, BufRead};

/// A request.
pub(crate) struct Request {
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    pub(crate) fn into_path_and_body(self) -> (String, Vec<u8>) {
        (self.path, self.body)
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.body
    }

    /// The value of the first header with this name. Case is ignored.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// Reads a request.
///
/// # Errors
/// If the stream ends, or the request is not valid.
pub(crate) fn read_request(reader: &mut impl BufRead) -> io::Result<Request> {
    let mut head = Vec::with_capacity(512);
    while !head.ends_with(b"\r\n\r\n") {
        if reader.read_until(b'\n', &mut head)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let mut headers = [httparse::EMPTY_HEADER; 48];
    let mut parsed = httparse::Request::new(&mut headers);
    parsed.parse(&head).map_err(io::Error::other)?;
    let path = parsed.path.unwrap_or_default().to_owned();
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let headers = parsed.headers.iter().map(|header| (header.name.to_owned(), text(header.value))).collect();
    let mut request = Request { path, headers, body: Vec::new() };
    if request.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        read_chunks(reader, &mut request.body)?;
    } else {
        let length = request.header("content-length").map_or(Ok(0), str::parse).map_err(io::Error::other)?;
        request.body.resize(length, 0);
        reader.read_exact(&mut request.body)?;
    }
    Ok(request)
}

/// Reads a chunked body (RFC 9112, section 7.1), which the Node.js and Python clients send.
fn read_chunks(reader: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let length = usize::from_str_radix(digits, 16).map_err(io::Error::other)?;
        let begin = body.len();
        body.resize(begin + length, 0);
        reader.read_exact(&mut body[begin..])?;
        reader.read_line(&mut String::new())?;
        if length == 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_its_length_or_comes_in_chunks() {
        for message in [
            "POST /a HTTP/1.1\r\nX-One: 1\r\nContent-Length: 5\r\n\r\nhello",
            "POST /a HTTP/1.1\r\nx-one: 1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n",
        ] {
            let request = read_request(&mut message.as_bytes()).expect("a request");
            assert_eq!(request.header("X-ONE"), Some("1"));
            assert_eq!(request.into_path_and_body(), ("/a".to_owned(), b"hello".to_vec()));
        }
        assert!(read_request(&mut "POST /a HTTP/1.1\r\nContent-Length: 5\r\n\r\nhe".as_bytes()).is_err());
    }
}
