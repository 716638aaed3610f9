//! The SAM CLI's syntax of parameter overrides: `Name="value"` pairs, separated by whitespace.
use anyhow::{Result, bail};
use regex::Regex;
use std::sync::LazyLock;

/// One parameter, like SAM's own pattern (CfnParameterOverridesType).
static PARAMETER: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = r#"^(?:ParameterKey=(\w+),ParameterValue=|(\w+)=)("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|(?:\\.|[^\s"\\])*)(?:\s+|$)"#;
    Regex::new(pattern).expect("the pattern is valid")
});

/// Parses parameters into names and values.
pub fn parse(text: &str) -> Result<Vec<(String, String)>> {
    let mut parameters = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let Some(found) = PARAMETER.captures(rest) else { bail!("'{rest}' is not of the form Name=\"value\"") };
        let name = found.get(1).or(found.get(2)).map_or("", |name| name.as_str());
        parameters.push((name.to_owned(), unquoted(&found[3])));
        rest = &rest[found[0].len()..];
    }
    Ok(parameters)
}

/// Formats one parameter.
pub fn encode(name: &str, value: &str) -> String {
    format!("{name}=\"{}\"", value.replace('"', "\\\""))
}

/// Formats several parameters.
pub fn encode_all(parameters: &[(String, String)]) -> String {
    parameters.iter().map(|(name, value)| encode(name, value)).collect::<Vec<_>>().join(" ")
}

/// Removes the quotes and SAM's escapes from a value.
fn unquoted(value: &str) -> String {
    let inner = ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
    inner.unwrap_or(value).replace("\\ ", " ").replace("\\\"", "\"").replace("\\'", "'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_syntax_that_sam_accepts_is_parsed() {
        let text = r#"A="rate(1 day)"  B=two ParameterKey=C,ParameterValue='three' D="a \"b\"" E="""#;
        let parameters = parse(text).unwrap();
        let expected = [("A", "rate(1 day)"), ("B", "two"), ("C", "three"), ("D", "a \"b\""), ("E", "")];
        assert_eq!(parameters, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(parse(&encode_all(&parameters)).unwrap(), parameters);
        for wrong in ["file://values.yaml", "A=\"1", "A", "A=1 B"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
