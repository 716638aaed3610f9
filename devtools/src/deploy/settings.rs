//! The values that a deployment needs, from flags, samconfig.toml or a prompt.
use super::{config::Config, overrides, template::Template};
use anyhow::{Context as _, Result, bail};
use std::io::{IsTerminal as _, Write as _, stderr, stdin};
use xtask::cli::DeployValues;

const DEPLOYMENT_ID: &str = "DeploymentId";

/// A required parameter of the template.
struct Needed {
    parameter: &'static str,
    flag: &'static str,
    /// Placeholder of the flag's value.
    value: &'static str,
    /// Description for users.
    meaning: &'static str,
    is_secret_arn: bool,
}

const NEEDED: [Needed; 4] = [
    Needed {
        parameter: "ApiSecretArn",
        flag: "--api-secret",
        value: "ARN",
        meaning: "ARN of the secret with DATABASE_URL and BETTER_AUTH_SECRET, for the functions of the API",
        is_secret_arn: true,
    },
    Needed {
        parameter: "DatabaseSecretArn",
        flag: "--database-secret",
        value: "ARN",
        meaning: "ARN of the secret with DATABASE_URL alone, for health, purge and migrate",
        is_secret_arn: true,
    },
    Needed {
        parameter: "OwnerSecretArn",
        flag: "--owner-secret",
        value: "ARN",
        meaning: "ARN of the secret with DATABASE_URL_UNPOOLED, the owner's URL, for migrate",
        is_secret_arn: true,
    },
    Needed {
        parameter: "BetterAuthUrl",
        flag: "--front-end",
        value: "URL",
        meaning: "Address of the front end, such as https://app.example.com",
        is_secret_arn: false,
    },
];

/// The flags' values, in the order of [`NEEDED`].
fn flag_values(flags: &DeployValues) -> [Option<&String>; 4] {
    [&flags.api_secret, &flags.database_secret, &flags.owner_secret, &flags.front_end].map(Option::as_ref)
}

/// A deployment's validated values.
pub struct Settings {
    pub region: String,
    pub architecture: String,
    parameters: Vec<(String, String)>,
}

impl Settings {
    /// Adds the values from the flags and from prompts to `config`, and validates all values.
    pub async fn gather(config: &mut Config, flags: &DeployValues, template: &Template) -> Result<Self> {
        let given = NEEDED.iter().zip(flag_values(flags));
        let missing: Vec<_> = given
            .clone()
            .filter(|(needed, flag)| flag.is_none() && config.parameter(needed.parameter).is_none())
            .collect();
        if !missing.is_empty() && !stdin().is_terminal() {
            let line = |it: &Needed| format!("  {:21} {}", format!("{} {}", it.flag, it.value), it.meaning);
            let flags: Vec<_> = missing.iter().map(|(needed, _)| line(needed)).collect();
            bail!("samconfig.toml lacks values, so these flags are needed, once:\n{}", flags.join("\n"));
        }
        for (needed, flag) in given {
            let value = match flag {
                Some(value) => value.trim().to_owned(),
                None if config.parameter(needed.parameter).is_some() => continue,
                None => ask(needed, template).await?,
            };
            template.check(needed.parameter, &value).with_context(|| needed.flag)?;
            config.set_parameter(needed.parameter, &value)?;
        }
        let mut parameters = config.parameters()?;
        for pair in &flags.set {
            let (name, value) = pair.split_once('=').with_context(|| format!("--set {pair} is not NAME=VALUE"))?;
            if name == DEPLOYMENT_ID || NEEDED.iter().any(|needed| needed.parameter == name) {
                bail!("--set cannot change {name}");
            }
            template.check(name, value).context("--set")?;
            parameters.retain(|(known, _)| known != name);
            parameters.push((name.to_owned(), value.to_owned()));
        }
        for (name, value) in parameters.iter().filter(|(name, _)| name != DEPLOYMENT_ID) {
            template.check(name, value).context("samconfig.toml")?;
        }
        let region = region(config, flags.region.as_deref())?;
        config.set_option("region", &region)?;
        let architecture = parameters.iter().find(|(name, value)| name == "Architecture" && !value.is_empty());
        let architecture = architecture.map(|(_, value)| &**value).or_else(|| template.default_of("Architecture"));
        Ok(Self { region, architecture: architecture.unwrap_or("x86_64").to_owned(), parameters })
    }

    /// Whether the stack serves the reference.
    pub fn serves_docs(&self) -> bool {
        !self.parameters.iter().any(|(name, value)| name == "ServeDocs" && value == "false")
    }

    /// Returns all parameters in the SAM CLI's syntax, with this deployment's id.
    pub fn with_deployment_id(&self, id: &str) -> Vec<String> {
        let others = self.parameters.iter().filter(|(name, _)| name != DEPLOYMENT_ID);
        let others = others.map(|(name, value)| overrides::encode(name, value));
        others.chain([overrides::encode(DEPLOYMENT_ID, id)]).collect()
    }
}

/// Returns the region, or fails if the flag, samconfig.toml and the secrets' ARNs name different ones.
fn region(config: &Config, flag: Option<&str>) -> Result<String> {
    let mut regions = Vec::new();
    for needed in NEEDED.iter().filter(|needed| needed.is_secret_arn) {
        let arn = config.parameter(needed.parameter).unwrap_or_default();
        let region = arn.split(':').nth(3).context("an ARN has a region")?.to_owned();
        regions.push((needed.parameter, region));
    }
    let stack = flag.map(|it| ("--region", it)).or(config.option("region").map(|it| ("region of samconfig.toml", it)));
    regions.extend(stack.map(|(source, region)| (source, region.to_owned())));
    let (_, first) = regions[0].clone();
    if regions.iter().any(|(_, region)| *region != first) {
        let list: Vec<_> = regions.iter().map(|(source, region)| format!("  {source}: {region}")).collect();
        bail!("the stack and its secrets have to be in one region:\n{}", list.join("\n"));
    }
    Ok(first)
}

/// Prompts until the template accepts the value.
async fn ask(needed: &Needed, template: &Template) -> Result<String> {
    loop {
        eprint!("{}\n{}: ", needed.meaning, needed.parameter);
        stderr().flush()?;
        let value = read_line().await?.trim().to_owned();
        match template.check(needed.parameter, &value) {
            Ok(()) => return Ok(value),
            Err(error) => eprintln!("{error}"),
        }
    }
}

/// Reads a line from the terminal. The thread is not joined, so that Ctrl-C ends this process during the read.
async fn read_line() -> Result<String> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = stdin().read_line(&mut line);
        let _ = sender.send(read.map(|bytes| (bytes, line)));
    });
    let (bytes, line) = receiver.await??;
    if bytes == 0 {
        bail!("there was no answer");
    }
    Ok(line)
}
