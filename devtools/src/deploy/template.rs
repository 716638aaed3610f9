//! The parameters and functions of a SAM template.
use anyhow::{Context as _, Result, bail};
use regex::Regex;
use serde_json::Value;
use std::{fs, path::Path};

pub struct Template {
    content: Value,
}

impl Template {
    pub fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
        let content = serde_saphyr::from_str(&text).with_context(|| format!("{} is not a template", file.display()))?;
        Ok(Self { content })
    }

    pub fn default_of(&self, parameter: &str) -> Option<&str> {
        self.content["Parameters"][parameter]["Default"].as_str()
    }

    /// Returns the logical ids of all functions.
    pub fn functions(&self) -> Vec<&str> {
        let resources = self.content["Resources"].as_object().into_iter().flatten();
        let functions = resources.filter(|(_, resource)| resource["Type"] == "AWS::Serverless::Function");
        functions.map(|(name, _)| name.as_str()).collect()
    }

    /// Checks a parameter's value by the template's rules. CloudFormation would apply them only after the build.
    pub fn check(&self, parameter: &str, value: &str) -> Result<()> {
        // The SAM CLI silently drops a parameter that the template does not have.
        let rules = self.content["Parameters"].get(parameter);
        let rules = rules.with_context(|| format!("the template has no parameter {parameter}"))?;
        let matches = match rules["AllowedPattern"].as_str() {
            None => true,
            Some(pattern) => Regex::new(&format!("^(?:{pattern})$"))
                .with_context(|| format!("the template's AllowedPattern of {parameter}"))?
                .is_match(value),
        };
        let allowed: Vec<String> = rules["AllowedValues"].as_array().into_iter().flatten().map(as_text).collect();
        let is_allowed = allowed.is_empty() || allowed.iter().any(|it| it == value);
        if matches && is_allowed {
            return Ok(());
        }
        let constraint = match rules["ConstraintDescription"].as_str() {
            Some(description) => description.to_owned(),
            None => format!("One of: {}.", allowed.join(", ")),
        };
        bail!("{parameter} cannot be '{value}'. {constraint}")
    }
}

/// Converts a scalar to a string, because CloudFormation's values are strings.
fn as_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use xtask::place::root;

    #[test]
    fn the_template_refuses_what_cloudformation_would() {
        let template = Template::read(&root().join("template.yaml")).unwrap();
        template.check("BetterAuthUrl", "https://app.example.com").unwrap();
        template.check("MemorySize", "512").unwrap();
        template.check("DeploymentId", "1790000000abcdef012345d").unwrap();
        for (parameter, value, reason) in [
            ("BetterAuthUrl", "app.example.com", "An address like https://app.example.com;"),
            ("ApiSecretArn", "task-api/dev/api", "The whole ARN of a secret"),
            ("MemorySize", "300", "One of: 128, 256, 512, 1024, 1769."),
            ("MemroySize", "512", "the template has no parameter MemroySize"),
        ] {
            let error = template.check(parameter, value).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
