//! Tests of openapi.yaml and of its page /docs with `cargo xtask dev`: thousands of generated requests, and a browser.
//! `cargo xtask test reference` installs the tools.
mod harness;

use harness::{Dev, free_port, new_folder};
use std::{fs, path::Path, process::Command};
use testing::{OpenApi, Route};

/// Schemathesis's maximum number of requests per operation and phase.
const MAX_EXAMPLES: &str = "300";
/// Minimum number of generated test cases.
const MIN_CASES: u64 = 5000;

fn tools() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/openapi"))
}

fn program(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run this with 'cargo xtask test reference'"))
}

#[test]
fn generated_requests_get_answers_that_match_the_contract() {
    let mut dev = Dev::start(&new_folder("reference-requests"), free_port(), &[], &[]);
    let env = dev.environment();
    let output = Command::new(program("SCHEMATHESIS"))
        .arg("--config-file")
        .arg(tools().join("schemathesis.toml"))
        .args(["run", &format!("{}/openapi.json", env["TASKS_URL"])])
        .args(["--header", &format!("Authorization: Bearer {}", env["TASKS_TOKEN"])])
        .args(["--max-examples", MAX_EXAMPLES, "--continue-on-failure", "--no-color"])
        .env("TASKS_USER_ID", &env["TASKS_USER_ID"])
        // Schemathesis writes its cache into the current folder.
        .current_dir(env!("CARGO_TARGET_TMPDIR"))
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    let summary = report.rfind("= SUMMARY =").map_or("", |at| &report[at..]);
    println!("{summary}");
    assert!(output.status.success(), "{report}\n{}", String::from_utf8_lossy(&output.stderr));
    // "Test cases:\n  5234 generated, ..."
    let cases =
        summary.split("Test cases:").nth(1).and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
    assert!(cases.is_some_and(|cases| cases >= MIN_CASES), "only {cases:?} cases: {summary}");
    dev.stop();
}

#[test]
fn a_developer_reads_the_contract_and_tries_a_call_in_a_browser() {
    let mut dev = Dev::start(&new_folder("reference-page"), free_port(), &[], &[]);
    let env = dev.environment();
    let pictures = new_folder("reference-pictures");
    fs::create_dir_all(&pictures).unwrap();
    let operations: Vec<_> = OpenApi::read().unwrap().routes.iter().map(Route::to_string).collect();
    let status = Command::new("node")
        .arg("reference-test.mjs")
        .current_dir(tools())
        .envs([("TASKS_URL", &env["TASKS_URL"]), ("TASKS_TOKEN", &env["TASKS_TOKEN"])])
        .env("CHROMIUM", program("CHROMIUM"))
        .env("OPERATIONS", operations.join("\n"))
        .env("PICTURES", &pictures)
        .status()
        .unwrap();
    assert!(status.success());
    for picture in ["light", "dark", "operation", "call"] {
        assert!(pictures.join(format!("{picture}.png")).exists(), "no picture of {picture}");
    }
    dev.stop();
}
