//! Reads and updates an environment's settings in samconfig.toml. Updates keep the comments and the order.
use super::overrides;
use anyhow::{Context as _, Result, anyhow, bail};
use std::{
    fs,
    path::{Path, PathBuf},
};
use toml_edit::{Array, DocumentMut, Item, Table, Value, value};

const OVERRIDES: &str = "parameter_overrides";

/// An environment's settings in samconfig.toml.
pub struct Config {
    file: PathBuf,
    environment: String,
    document: DocumentMut,
    /// Changes since the file was read, one line each.
    changes: Vec<String>,
}

impl Config {
    pub fn read(file: &Path, environment: &str) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
        let document: DocumentMut = text.parse().with_context(|| format!("{} is not TOML", file.display()))?;
        let config = Self { file: file.to_owned(), environment: environment.to_owned(), document, changes: Vec::new() };
        if config.section("deploy").is_none() {
            let tables = config.document.iter().filter(|(_, item)| item.get("deploy").is_some());
            let names: Vec<_> = tables.map(|(name, _)| name).collect();
            bail!("{} has no environment '{environment}'; it has {}", file.display(), names.join(", "));
        }
        // Fails early if the parameters cannot be parsed.
        config.parameters()?;
        Ok(config)
    }

    /// The settings of a SAM command.
    fn section(&self, command: &str) -> Option<&Table> {
        self.document.get(&self.environment)?.get(command)?.get("parameters")?.as_table()
    }

    /// An option of `sam deploy`, from its own section or from `global`, which is for all commands.
    pub fn option(&self, name: &str) -> Option<&str> {
        ["deploy", "global"].into_iter().find_map(|command| self.section(command)?.get(name)?.as_str())
    }

    /// Whether `sam deploy` asks before it changes anything.
    pub fn asks_for_confirmation(&self) -> bool {
        let confirm = self.section("deploy").and_then(|section| section.get("confirm_changeset"));
        confirm.and_then(Item::as_bool).unwrap_or_default()
    }

    /// The template's parameters, in the order of the file.
    pub fn parameters(&self) -> Result<Vec<(String, String)>> {
        let Some(item) = self.section("deploy").and_then(|section| section.get(OVERRIDES)) else {
            return Ok(Vec::new());
        };
        let texts: Vec<&str> = match (item.as_str(), item.as_array()) {
            (Some(text), _) => vec![text],
            (_, Some(array)) => array.iter().map(|text| text.as_str().unwrap_or_default()).collect(),
            _ => Vec::new(),
        };
        if texts.is_empty() {
            bail!("{}: {OVERRIDES} of {} is neither a list nor a string", self.file.display(), self.environment);
        }
        let mut all: Vec<(String, String)> = Vec::new();
        for text in texts {
            let parsed = overrides::parse(text);
            for (name, value) in parsed.with_context(|| format!("{OVERRIDES} in {}", self.file.display()))? {
                // SAM uses the last of several values.
                all.retain(|(known, _)| *known != name);
                all.push((name, value));
            }
        }
        Ok(all)
    }

    pub fn parameter(&self, name: &str) -> Option<String> {
        let all = self.parameters().ok()?;
        all.into_iter().find(|(known, value)| known == name && !value.is_empty()).map(|(_, value)| value)
    }

    /// Sets a parameter of the template.
    pub fn set_parameter(&mut self, name: &str, to: &str) -> Result<()> {
        let before = self.parameter(name);
        if before.as_deref() == Some(to) {
            return Ok(());
        }
        let item = self.section_mut()?.entry(OVERRIDES).or_insert_with(|| value(Array::new()));
        if let Some(array) = item.as_array_mut() {
            set_in_array(array, name, to)?;
        } else {
            let mut all = overrides::parse(item.as_str().unwrap_or_default())?;
            all.retain(|(known, _)| known != name);
            all.push((name.to_owned(), to.to_owned()));
            *item = value(overrides::encode_all(&all));
        }
        self.record(name, before.as_deref(), &overrides::encode(name, to));
        Ok(())
    }

    /// Sets an option of `sam deploy`.
    pub fn set_option(&mut self, name: &str, to: &str) -> Result<()> {
        let before = self.option(name).map(str::to_owned);
        if before.as_deref() == Some(to) {
            return Ok(());
        }
        let section = self.section_mut()?;
        if let Some(present) = section.get_mut(name).and_then(Item::as_value_mut) {
            replace(present, to);
        } else {
            // Insert before the parameters, if that long list is the last entry.
            let is_list_last = section.iter().last().is_some_and(|(key, _)| key == OVERRIDES);
            let list = if is_list_last { section.remove_entry(OVERRIDES) } else { None };
            section[name] = value(to);
            if let Some((key, list)) = list {
                section.insert_formatted(&key, list);
            }
        }
        self.record(name, before.as_deref(), &format!("{name} = \"{to}\""));
        Ok(())
    }

    fn section_mut(&mut self) -> Result<&mut Table> {
        let section = self.document.get_mut(&self.environment).and_then(|it| it.get_mut("deploy"));
        let section = section.and_then(|it| it.get_mut("parameters")).and_then(Item::as_table_mut);
        section.ok_or_else(|| anyhow!("no section of 'sam deploy'"))
    }

    fn record(&mut self, name: &str, before: Option<&str>, line: &str) {
        let replaced = before.map(|before| format!(", replaces {name} '{before}'")).unwrap_or_default();
        self.changes.push(format!("{line}{replaced}"));
    }

    /// The changes that `save` writes, one line each.
    pub fn changes(&self) -> &[String] {
        &self.changes
    }

    /// Writes the file if there are changes.
    pub fn save(&self) -> Result<()> {
        if !self.changes.is_empty() {
            let written = fs::write(&self.file, self.document.to_string());
            written.with_context(|| format!("{} cannot be written", self.file.display()))?;
        }
        Ok(())
    }
}

/// Replaces a value and keeps the whitespace and comments around it.
fn replace(present: &mut Value, to: &str) {
    let decor = present.decor().clone();
    *present = Value::from(to);
    *present.decor_mut() = decor;
}

/// Replaces a parameter's entry, or adds one on a separate line.
fn set_in_array(array: &mut Array, name: &str, to: &str) -> Result<()> {
    for entry in array.iter_mut() {
        let mut parsed = overrides::parse(entry.as_str().unwrap_or_default())?;
        if let Some(pair) = parsed.iter_mut().rev().find(|(known, _)| known == name) {
            to.clone_into(&mut pair.1);
            replace(entry, &overrides::encode_all(&parsed));
            return Ok(());
        }
    }
    // Keep a comment after the last entry with that entry.
    let mut between = array.trailing().as_str().unwrap_or_default().to_owned();
    if let Some(last) = array.iter_mut().last() {
        let suffix = last.decor().suffix().and_then(|suffix| suffix.as_str()).unwrap_or_default().to_owned();
        between = suffix + &between;
        last.decor_mut().set_suffix("");
    }
    let before = format!("{}\n  ", between.trim_end());
    array.push_formatted(Value::from(overrides::encode(name, to)).decorated(before, ""));
    array.set_trailing("\n");
    array.set_trailing_comma(true);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns `text` after a parameter and the region were set.
    fn changed(text: &str) -> String {
        let folder = xtask::place::target().join("tmp");
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join(format!("samconfig-{}.toml", text.len()));
        fs::write(&file, text).unwrap();
        let mut config = Config::read(&file, "dev").unwrap();
        config.set_parameter("Url", "https://new").unwrap();
        config.set_option("region", "eu-west-1").unwrap();
        config.save().unwrap();
        let text = fs::read_to_string(&file).unwrap();
        fs::remove_file(&file).unwrap();
        text
    }

    #[test]
    fn comments_and_order_stay_as_they_are() {
        let list = "# top\n[dev.deploy.parameters]\n# the name\nstack_name = \"a\"\nparameter_overrides = [\n  'A=\"1\"', # one\n  'B=\"2\"', # two\n]\n\n[x]\n";
        let expected = "# top\n[dev.deploy.parameters]\n# the name\nstack_name = \"a\"\nregion = \"eu-west-1\"\nparameter_overrides = [\n  'A=\"1\"', # one\n  'B=\"2\"', # two\n  'Url=\"https://new\"',\n]\n\n[x]\n";
        assert_eq!(changed(list), expected);
        // Without a comma after the last entry.
        assert_eq!(changed(&list.replace("'B=\"2\"',", "'B=\"2\"'")), expected);
        assert_eq!(changed(expected), expected);
    }

    #[test]
    fn a_value_is_replaced_where_it_stands() {
        let list = "[dev.deploy.parameters]\nregion = \"us-east-1\" # there\nparameter_overrides = [ 'Url=\"https://old\"', 'B=\"2\"' ] # all\n";
        let expected = "[dev.deploy.parameters]\nregion = \"eu-west-1\" # there\nparameter_overrides = [ 'Url=\"https://new\"', 'B=\"2\"' ] # all\n";
        assert_eq!(changed(list), expected);
    }

    #[test]
    fn a_string_of_parameters_stays_a_string() {
        let text = changed("[dev.deploy.parameters]\nparameter_overrides = \"A=1 B=\\\"two words\\\"\"\n");
        assert!(text.contains(r#"'A="1" B="two words" Url="https://new"'"#), "{text}");
    }
}
