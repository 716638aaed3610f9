//! Looks for secrets in everything that the functions have logged during the tests.
use anyhow::{Result, bail};
use std::{fs, path::Path};

/// What no line may have, whatever its value: the names that stand before credentials, and the tests' signing secret.
const PATTERNS: [&str; 4] = ["session_token=", "Bearer ", "authorization", "a-secret-of-the-tests"];

/// Fails when a line has one of `secrets`, one that the tests have noted, or one of the patterns of a secret.
pub fn check(folder: &Path, secrets: &[&str]) -> Result<()> {
    let (mut lines, mut noted) = (Vec::new(), secrets.iter().map(|secret| (*secret).to_owned()).collect::<Vec<_>>());
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let text = String::from_utf8_lossy(&fs::read(entry.path())?).into_owned();
        let of = if entry.file_name().to_string_lossy().starts_with("secrets.") { &mut noted } else { &mut lines };
        of.extend(text.lines().map(str::to_owned));
    }
    for line in &lines {
        // An error's own example of what a URL looks like.
        let line = line.replace("postgresql://user:password@host/database", "");
        let is_in = |secret: &&str| line.contains(*secret);
        // A database's URL with a user in it, and so with what follows the user.
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
