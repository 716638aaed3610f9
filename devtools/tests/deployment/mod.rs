//! The test environment of `cargo xtask deploy`: stand-ins for the SAM CLI, the output of `sam build`, and the deployed
//! API.
pub mod elf;

use axum::{
    Router,
    http::{StatusCode, Uri, header::CONTENT_TYPE},
};
use serde_json::{Value, json};
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
};
use tokio::{net::TcpListener, process::Command};

pub const API_SECRET: &str = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:task-api/dev/api-AbCdEf";
pub const DATABASE_SECRET: &str =
    "arn:aws:secretsmanager:eu-central-1:123456789012:secret:task-api/dev/database-AbCdEf";
pub const OWNER_SECRET: &str = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:task-api/dev/owner-AbCdEf";
pub const FRONT_END: &str = "https://app.example.com";
/// The flags that a first deployment needs.
pub const FLAGS: [&str; 8] = [
    "--api-secret",
    API_SECRET,
    "--database-secret",
    DATABASE_SECRET,
    "--owner-secret",
    OWNER_SECRET,
    "--front-end",
    FRONT_END,
];

pub const CONFIG: &str = r#"version = 0.1

# Whose environment this is.
[dev.deploy.parameters]
stack_name = "task-api-dev" # its name
confirm_changeset = true
parameter_overrides = [
  'Environment="dev"',
  'PurgeSchedule="rate(1 day)"', # Once is enough.
  'DeploymentId=""', # Replaced.
]

[staging.deploy.parameters]
stack_name = "task-api-staging"
"#;

/// Records each call's arguments, one per line, with an empty line after the last.
const SAM: &str = r#"#!/bin/sh
folder=$(dirname "$0")
if [ "$1" = --version ]; then
  echo "SAM CLI, version $(cat "$folder/version")"
  exit
fi
{ printf '%s\n' "$@"; echo; } >> "$folder/recorded"
case $1 in
  list)
    if [ ! -e "$folder/deployed" ]; then
      echo "Error: The input stack $4 does not exist on Cloudformation in the region $6" >&2
      exit 1
    fi
    cat "$folder/outputs"
    ;;
  deploy)
    touch "$folder/deployed"
    exit "$(cat "$folder/status")"
    ;;
esac
"#;

/// Records its arguments, and fails if the file `swept` has another status.
const PYTHON: &str = r#"#!/bin/sh
folder=$(dirname "$0")
printf '%s\n' "$@" > "$folder/python"
exit "$(cat "$folder/swept" 2> /dev/null || echo 0)"
"#;

/// The test environment.
pub struct Rig {
    folder: PathBuf,
    calls: Arc<Mutex<Vec<String>>>,
    pub url: String,
}

/// The result of a run.
pub struct Run {
    pub succeeded: bool,
    pub stdout: String,
    pub stderr: String,
}

impl Rig {
    /// Creates an environment in which a deployment succeeds, with an API that answers `/health` with this status.
    pub async fn new(name: &str, health: StatusCode) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("deploy").join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("bin")).unwrap();
        let calls = Arc::default();
        let rig = Self { folder, url: serve(health, Arc::clone(&calls)).await, calls };
        rig.write("samconfig.toml", CONFIG);
        rig.write("bin/sam", SAM);
        fs::set_permissions(rig.folder.join("bin/sam"), fs::Permissions::from_mode(0o755)).unwrap();
        rig.write("bin/python3", PYTHON);
        fs::set_permissions(rig.folder.join("bin/python3"), fs::Permissions::from_mode(0o755)).unwrap();
        rig.write("bin/version", "1.170.0");
        rig.write("bin/status", "0");
        let output = |key: &str, value: String| json!({"OutputKey": key, "OutputValue": value, "Description": ""});
        let outputs = json!([output("Url", rig.url.clone()), output("DocsUrl", format!("{}/docs", rig.url))]);
        rig.write("bin/outputs", &outputs.to_string());
        rig.build();
        rig
    }

    /// Creates the output folder of `sam build`.
    fn build(&self) {
        let template = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../template.yaml")).unwrap();
        let content: Value = serde_saphyr::from_str(&template).unwrap();
        let resources = content["Resources"].as_object().unwrap();
        let functions = resources.iter().filter(|(_, resource)| resource["Type"] == "AWS::Serverless::Function");
        let names: Vec<_> = functions.map(|(name, _)| name.as_str()).collect();
        assert!(names.contains(&"ListTasks"), "{names:?}");
        for name in names {
            self.make_program(name, elf::X86_64, "GLIBC_2.34", "libm.so.6");
        }
        self.write("built/template.yaml", &template);
    }

    /// Creates or replaces a function's program.
    pub fn make_program(&self, function: &str, machine: u16, glibc: &str, library: &str) {
        let file = self.folder.join("built").join(function).join("bootstrap");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, elf::program(machine, glibc, library)).unwrap();
    }

    pub fn remove(&self, file: &str) {
        fs::remove_file(self.folder.join(file)).unwrap();
    }

    pub fn write(&self, file: &str, text: &str) {
        fs::create_dir_all(self.folder.join(file).parent().unwrap()).unwrap();
        fs::write(self.folder.join(file), text).unwrap();
    }

    pub fn read(&self, file: &str) -> String {
        fs::read_to_string(self.folder.join(file)).unwrap()
    }

    pub fn path(&self, file: &str) -> String {
        self.folder.join(file).display().to_string()
    }

    pub fn config(&self) -> String {
        fs::read_to_string(self.folder.join("samconfig.toml")).unwrap()
    }

    /// Runs `cargo xtask deploy` on the built folder, without a terminal.
    pub async fn deploy(&self, args: &[&str]) -> Run {
        let mut command = Command::new(env!("CARGO_BIN_EXE_devtools"));
        let path = std::env::join_paths(
            std::iter::once(self.folder.join("bin")).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
        );
        command.args(["deploy", "--config-file", &self.path("samconfig.toml"), "--built", &self.path("built")]);
        command.args(["--call-timeout", "2"]).args(args).env("PATH", path.unwrap()).env("NO_PROXY", "127.0.0.1");
        let output = command.stdin(Stdio::null()).output().await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Run { succeeded: output.status.success(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// The arguments of each call of the SAM CLI, except `--version`.
    pub fn recorded(&self) -> Vec<Vec<String>> {
        let text = fs::read_to_string(self.folder.join("bin/recorded")).unwrap_or_default();
        let calls = text.split_terminator("\n\n");
        calls.map(|call| call.lines().map(str::to_owned).collect()).collect()
    }

    /// The called paths of the deployed API.
    pub fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }
}

/// Serves the calls that a deployment makes, and returns the URL.
async fn serve(health: StatusCode, calls: Arc<Mutex<Vec<String>>>) -> String {
    let problem =
        r#"{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"The database is away."}"#;
    let answer = move |uri: Uri| {
        calls.lock().unwrap().push(uri.to_string());
        let (status, body) = match uri.path() {
            "/health" if health == StatusCode::OK => (health, r#"{"status":"ok"}"#),
            "/health" => (health, problem),
            "/openapi.json" => (StatusCode::OK, r#"{"openapi":"3.1.0"}"#),
            "/api/tasks" => (StatusCode::UNAUTHORIZED, "{}"),
            _ => (StatusCode::NOT_FOUND, "{}"),
        };
        let content_type = if status.is_success() { "application/json" } else { "application/problem+json" };
        std::future::ready((status, [(CONTENT_TYPE, content_type)], body))
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, Router::new().fallback(answer)).await });
    url
}
