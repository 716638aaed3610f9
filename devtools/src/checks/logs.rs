//! Searches the functions' logs for secrets, and for what a run must not have.
use anyhow::{Result, bail};
use std::{fs, path::Path};

/// Texts that no line may contain: names that precede credentials, and the signing secret of the tests.
const PATTERNS: [&str; 4] = ["session_token=", "Bearer ", "authorization", "a-secret-of-the-tests"];

/// Fails if a log line in `folder` contains one of `secrets`, a secret from the tests' `secrets.*` files, one of
/// [`PATTERNS`], or a URL with a user.
pub fn check(folder: &Path, secrets: &[&str]) -> Result<()> {
    let (mut lines, mut noted) = (Vec::new(), secrets.iter().map(|secret| (*secret).to_owned()).collect::<Vec<_>>());
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let text = String::from_utf8_lossy(&fs::read(entry.path())?).into_owned();
        let texts = if entry.file_name().to_string_lossy().starts_with("secrets.") { &mut noted } else { &mut lines };
        texts.extend(text.lines().map(str::to_owned));
    }
    for line in &lines {
        // The example URL in an error message.
        let line = line.replace("postgresql://user:password@host/database", "");
        let is_in = |secret: &&str| line.contains(*secret);
        // A URL with a user can have a password too.
        let has_url =
            line.split("://").skip(1).any(|rest| rest.split(['/', ' ', '"']).next().unwrap_or("").contains('@'));
        if has_url {
            bail!("a function has logged a URL with a user: {line}");
        }
        if let Some(secret) = noted.iter().map(String::as_str).chain(PATTERNS).find(is_in) {
            bail!("a function has logged a secret ('{secret}'): {line}");
        }
    }
    if !lines.is_empty() {
        println!(
            "no secret in {} lines of the functions' logs: {} looked for",
            lines.len(),
            noted.len() + PATTERNS.len()
        );
    }
    Ok(())
}

/// Fails if a process has stopped preparing statements: behind a pooler that tracks their names, it has no reason to.
pub fn check_still_prepared(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let text = String::from_utf8_lossy(&fs::read(entry?.path())?).into_owned();
        if let Some(line) = text.lines().find(|line| line.contains("no longer prepared")) {
            bail!("a function has stopped preparing statements: {line}");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_has_stopped_preparing_is_found() {
        let folder = std::env::temp_dir().join(format!("task-api-logs-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("one"), "{\"message\":\"started\"}\n").unwrap();
        assert!(check_still_prepared(&folder).is_ok());
        let line = r#"{"message":"statements are no longer prepared by this process: see PREPARED_STATEMENTS"}"#;
        fs::write(folder.join("two"), format!("{line}\n")).unwrap();
        assert!(check_still_prepared(&folder).unwrap_err().to_string().ends_with(line));
        fs::remove_dir_all(folder).unwrap();
    }
}
