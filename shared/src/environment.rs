//! Environment variables.

/// Returns a variable that is set and not blank, trimmed.
pub(crate) fn variable(name: &str) -> Option<String> {
    not_blank(&std::env::var_os(name)?.to_string_lossy())
}

/// Trims a value. Returns `None` if it is blank, which counts as not set.
pub(crate) fn not_blank(value: &str) -> Option<String> {
    let value = value.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blank_variable_is_not_set_and_white_space_around_a_value_is_no_part_of_it() {
        for (value, read) in [("debug", Some("debug")), (" debug ", Some("debug")), ("a b", Some("a b")), ("", None)] {
            assert_eq!(not_blank(value).as_deref(), read, "{value:?}");
        }
        assert_eq!(not_blank(" \t\n"), None);
        // Cargo sets it for tests.
        assert_eq!(variable("CARGO_PKG_NAME").as_deref(), Some("shared"));
        assert_eq!(variable("NOBODY_SETS_THIS"), None);
    }
}
