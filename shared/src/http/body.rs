//! The body of a response in the form that Lambda expects: a string. A JSON body is therefore JSON inside a JSON
//! string.
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Serialize;
use serde_json::{
    ser::{CharEscape, CompactFormatter, Formatter, Serializer},
    value::{RawValue, to_raw_value},
};
use std::io;

/// A body, stored as the JSON string of Lambda's response, with its quotes.
#[derive(Serialize)]
#[serde(transparent)]
pub(crate) struct Body(Box<RawValue>);

impl Body {
    /// Serialises a value as JSON.
    ///
    /// # Errors
    /// If the value cannot be represented as JSON.
    pub(crate) fn json(value: &impl Serialize) -> serde_json::Result<Self> {
        let mut json = Vec::with_capacity(256);
        json.push(b'"');
        write(&mut json, value)?;
        Self::closed(json)
    }

    /// A body of plain text.
    ///
    /// # Errors
    /// None known: any text can be a JSON string.
    pub(crate) fn text(text: &str) -> serde_json::Result<Self> {
        to_raw_value(text).map(Self)
    }

    /// A body of bytes, in base64.
    ///
    /// # Errors
    /// As [`Body::text`].
    pub(crate) fn binary(bytes: &[u8]) -> serde_json::Result<Self> {
        Self::text(&STANDARD.encode(bytes))
    }

    /// Adds the closing quote to a body that begins with the opening one.
    fn closed(mut json: Vec<u8>) -> serde_json::Result<Self> {
        json.push(b'"');
        let json = String::from_utf8(json).map_err(|error| serde::ser::Error::custom(error.utf8_error()))?;
        // SAFETY: this is one JSON string. It begins and ends with a quote. Everything between is brackets and commas
        // of an `Array`, or was written by serde_json with `WithinString`, which leaves no quote, backslash or control
        // character unescaped. The tests check that, and a build with debug assertions parses every body here.
        #[expect(unsafe_code, reason = "parsing what was just written would take a fifth of the time of a list")]
        Ok(Self(unsafe { RawValue::from_string_unchecked(json) }))
    }
}

/// A body that is a JSON array, built element by element.
pub(crate) struct Array {
    json: Vec<u8>,
    /// Where the elements begin.
    first: usize,
    /// Where the last element begins, including its comma.
    last: usize,
}

impl Array {
    /// Creates an empty array with room for this many bytes.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self::opened(bytes, b"\"[")
    }

    /// Creates an empty array that is the field `name` of an object. [`Array::finish_object`] closes both. The name needs no
    /// escape.
    pub(crate) fn in_object(name: &str, bytes: usize) -> Self {
        Self::opened(bytes, format!("\"{{\\\"{name}\\\":[").as_bytes())
    }

    fn opened(bytes: usize, opening: &[u8]) -> Self {
        let mut json = Vec::with_capacity(bytes);
        json.extend(opening);
        Self { first: json.len(), last: json.len(), json }
    }

    /// Appends an element.
    ///
    /// # Errors
    /// If the element cannot be represented as JSON. Then nothing is appended.
    pub(crate) fn push(&mut self, element: &impl Serialize) -> serde_json::Result<()> {
        let is_first = self.json.len() == self.first;
        self.last = self.json.len();
        if !is_first {
            self.json.push(b',');
        }
        write(&mut self.json, element).inspect_err(|_| self.json.truncate(self.last))
    }

    /// Removes the last element that was appended.
    pub(crate) fn pop(&mut self) {
        self.json.truncate(self.last);
    }

    /// The size of the finished body in Lambda's response, in bytes.
    pub(crate) fn len(&self) -> usize {
        self.json.len() + b"]\"".len()
    }

    /// The elements as they are in the body, such as for an entity tag.
    pub(crate) fn elements(&self) -> &[u8] {
        self.json.get(self.first..).unwrap_or_default()
    }

    /// Closes the array, adds the fields of `others`, which is an object with at least one, and returns the body.
    ///
    /// # Errors
    /// If `others` cannot be represented as JSON.
    pub(crate) fn finish_object(mut self, others: &impl Serialize) -> serde_json::Result<Body> {
        self.json.push(b']');
        let brace = self.json.len();
        write(&mut self.json, others)?;
        // The object goes on.
        if let Some(brace) = self.json.get_mut(brace) {
            *brace = b',';
        }
        Body::closed(self.json)
    }

    /// Closes the array and returns the body.
    ///
    /// # Errors
    /// None known: serde_json writes UTF-8.
    pub(crate) fn finish(mut self) -> serde_json::Result<Body> {
        self.json.push(b']');
        Body::closed(self.json)
    }
}

/// Serialises a value in its escaped form. Escaping the finished body would take as long again as creating it.
fn write(json: &mut Vec<u8>, value: &impl Serialize) -> serde_json::Result<()> {
    value.serialize(&mut Serializer::with_formatter(json, WithinString))
}

/// A formatter for JSON inside a JSON string: it adds a backslash before every quote and every backslash.
struct WithinString;

impl Formatter for WithinString {
    fn begin_string<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b"\\\"")
    }

    fn end_string<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b"\\\"")
    }

    fn write_char_escape<W: ?Sized + io::Write>(&mut self, writer: &mut W, escape: CharEscape) -> io::Result<()> {
        // One for the escape's own backslash, and one more if it stands for a quote or a backslash.
        let more: &[u8] =
            if matches!(escape, CharEscape::Quote | CharEscape::ReverseSolidus) { b"\\\\" } else { b"\\" };
        writer.write_all(more)?;
        CompactFormatter.write_char_escape(writer, escape)
    }

    fn write_raw_fragment<W: ?Sized + io::Write>(&mut self, _: &mut W, _: &str) -> io::Result<()> {
        Err(io::Error::other("JSON that is text already cannot stand in a body"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use std::collections::BTreeMap;

    fn escaped_twice(value: &Value) -> String {
        Value::String(value.to_string()).to_string()
    }

    proptest! {
        #[test]
        fn a_body_is_what_escaping_twice_makes(
            texts in prop::collection::btree_map(any::<String>(), prop::option::of("[\\PC\\x00-\\x1f\"\\\\]{0,20}"), 0..5),
            numbers in any::<[i64; 3]>(), flag in any::<bool>(),
        ) {
            let texts: BTreeMap<String, Option<String>> = texts;
            let value = json!([texts, numbers, flag]);
            let body = Body::json(&value).unwrap();
            prop_assert_eq!(body.0.get(), escaped_twice(&value));
        }
    }

    #[test]
    fn every_character_that_json_escapes_is_read_back() {
        let all: String = ('\0'..='\u{7f}').chain(['\u{80}', 'é', '\u{2028}', '😀']).collect();
        let body = Body::json(&all).unwrap();
        assert_eq!(body.0.get(), escaped_twice(&json!(all)));
        let json: String = serde_json::from_str(body.0.get()).unwrap();
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), all);
    }

    #[test]
    fn an_array_has_what_was_added_and_not_taken_away() {
        let mut array = Array::with_capacity(0);
        assert_eq!((array.len(), Array::with_capacity(9).finish().unwrap().0.get()), (4, r#""[]""#));
        array.push(&"one").unwrap();
        array.push(&"\"two\"").unwrap();
        array.pop();
        array.push(&3).unwrap();
        assert!(array.push(&BTreeMap::from([(vec![1], 1)])).is_err(), "a key has to be a text");
        let length = array.len();
        let body = array.finish().unwrap();
        assert_eq!((body.0.get(), body.0.get().len()), (r#""[\"one\",3]""#, length));
    }

    #[test]
    fn raw_json_is_refused() {
        assert!(Body::json(&RawValue::from_string("\"raw\"".to_owned()).unwrap()).is_err());
    }

    #[test]
    fn text_and_bytes_are_strings() {
        assert_eq!(Body::text("a \"page\"\n").unwrap().0.get(), r#""a \"page\"\n""#);
        assert_eq!(Body::binary(&[0xff, 0xfe]).unwrap().0.get(), r#""//4=""#);
    }
}
