//! Tests of `cargo xtask deploy` with a stand-in for the SAM CLI: what it runs, writes and refuses. And of the scripts of a
//! deployment, in tests/scripts. `cargo xtask test deploy` installs what those need.
mod deployment;

use axum::http::StatusCode;
use deployment::{
    API_SECRET, CONFIG, DATABASE_SECRET, FLAGS, FRONT_END, OWNER_SECRET, Rig, Run,
    elf::{ARM64, X86_64},
};
use regex::Regex;
use std::{process::Command, time::Duration};

/// The arguments of a complete deployment.
fn with_flags<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [&["dev"], &FLAGS[..], args].concat()
}

/// Asserts that a run failed with these words in its error.
fn assert_refused(run: &Run, words: &[&str]) {
    assert!(!run.succeeded, "{}", run.stdout);
    let (_, error) = run.stderr.split_once("error: ").unwrap_or_else(|| panic!("no error: {}", run.stderr));
    for words in words {
        assert!(error.contains(words), "'{words}' is not in: {error}");
    }
}

/// Runs Python's tests of a script, with moto.
fn run_python_tests(module: &str) {
    let python = std::env::var_os("PYTHON").expect("run this with 'cargo xtask test deploy'");
    let mut command = Command::new(python);
    command.args(["-m", "unittest", module]).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts"));
    command.env("DEVTOOLS", env!("CARGO_BIN_EXE_devtools")).env("PYTHONDONTWRITEBYTECODE", "1");
    let output = command.output().unwrap();
    let report = String::from_utf8_lossy(&output.stderr);
    println!("{report}");
    assert!(output.status.success() && report.contains("\nOK\n"), "{module}: its report is above");
}

/// Returns the deployment id of a `sam deploy` call.
fn deployment_id(call: &[String]) -> String {
    let ids: Vec<_> = call.iter().filter_map(|word| word.strip_prefix("DeploymentId=")).collect();
    let [id] = ids[..] else { panic!("one DeploymentId: {call:?}") };
    let id = id.trim_matches('"').to_owned();
    // Without git, the id has no commit.
    assert!(Regex::new("^[0-9]{10}([0-9a-f]{12}d?)?$").unwrap().is_match(&id), "{id}");
    id
}

#[tokio::test]
async fn the_first_deployment_gets_its_values_from_flags_and_the_next_from_the_file() {
    let rig = Rig::new("first", StatusCode::OK).await;
    let first = rig.deploy(&with_flags(&[])).await;
    assert!(first.succeeded, "{}{}", first.stdout, first.stderr);
    let recorded = rig.recorded();
    let [before, deploy, after] = &recorded[..] else { panic!("three calls: {recorded:?}") };
    let list =
        ["list", "stack-outputs", "--stack-name", "task-api-dev", "--region", "eu-central-1", "--output", "json"];
    assert_eq!((&before[..], &after[..]), (&list.map(str::to_owned)[..], &list.map(str::to_owned)[..]));
    let id = deployment_id(deploy);
    let expected = [
        "deploy",
        "--config-env",
        "dev",
        "--config-file",
        &rig.path("samconfig.toml"),
        "--template-file",
        &rig.path("built/template.yaml"),
        "--region",
        "eu-central-1",
        "--no-fail-on-empty-changeset",
        "--no-confirm-changeset",
        "--parameter-overrides",
        "Environment=\"dev\"",
        "PurgeSchedule=\"rate(1 day)\"",
        &format!("ApiSecretArn=\"{API_SECRET}\""),
        &format!("DatabaseSecretArn=\"{DATABASE_SECRET}\""),
        &format!("OwnerSecretArn=\"{OWNER_SECRET}\""),
        &format!("BetterAuthUrl=\"{FRONT_END}\""),
        &format!("DeploymentId=\"{id}\""),
    ];
    assert_eq!(deploy[..], expected);
    assert_eq!(rig.calls(), ["/health?deep=true", "/openapi.json", "/api/tasks"]);
    assert!(first.stdout.ends_with(&format!("\nUrl      {0}\nDocsUrl  {0}/docs\n", rig.url)), "{}", first.stdout);

    let written = rig.config();
    let expected = CONFIG
        .replace("confirm_changeset = true\n", "confirm_changeset = true\nregion = \"eu-central-1\"\n")
        .replace(
            "  'DeploymentId=\"\"', # Replaced.\n",
            &format!(
                "  'DeploymentId=\"\"', # Replaced.\n  'ApiSecretArn=\"{API_SECRET}\"',\n  'DatabaseSecretArn=\"{DATABASE_SECRET}\"',\n  \
                 'OwnerSecretArn=\"{OWNER_SECRET}\"',\n  'BetterAuthUrl=\"{FRONT_END}\"',\n"
            ),
        );
    assert_eq!(written, expected);

    // The time in a deployment id is in seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let second = rig.deploy(&["dev"]).await;
    assert!(second.succeeded, "{}", second.stderr);
    assert_eq!(rig.config(), written);
    let recorded = rig.recorded();
    assert_eq!(recorded[4][..18], deploy[..18]);
    let next = deployment_id(&recorded[4]);
    assert_ne!(next[..10], id[..10], "the ten characters that make a new version");
    assert_eq!(next[10..], id[10..], "the commit");
}

#[tokio::test]
async fn a_flag_that_differs_replaces_what_the_file_has() {
    let rig = Rig::new("replaces", StatusCode::OK).await;
    rig.deploy(&with_flags(&[])).await;
    let run = rig.deploy(&["dev", "--front-end", "https://new.example.com"]).await;
    assert!(run.succeeded, "{}", run.stderr);
    assert!(run.stdout.contains(&format!("replaces BetterAuthUrl '{FRONT_END}'")), "{}", run.stdout);
    assert!(rig.config().contains("BetterAuthUrl=\"https://new.example.com\"") && !rig.config().contains(FRONT_END));
    assert!(rig.recorded()[4].contains(&"BetterAuthUrl=\"https://new.example.com\"".to_owned()));
}

#[tokio::test]
async fn a_parameter_can_be_set_for_one_deployment_alone() {
    let rig = Rig::new("set", StatusCode::OK).await;
    let run = rig.deploy(&with_flags(&["--set", "GradualDeployment=true", "--set", "Environment=prod"])).await;
    assert!(run.succeeded, "{}", run.stderr);
    let deploy = &rig.recorded()[1];
    for word in ["GradualDeployment=\"true\"", "Environment=\"prod\""] {
        assert_eq!(deploy.iter().filter(|it| *it == word).count(), 1, "{deploy:?}");
    }
    assert!(!deploy.contains(&"Environment=\"dev\"".to_owned()), "{deploy:?}");
    assert!(rig.config().contains("Environment=\"dev\"") && !rig.config().contains("GradualDeployment"));
    for (pair, words) in [
        ("GradualDeployment", "is not NAME=VALUE"),
        ("GradualDeployment=perhaps", "One of: true, false."),
        ("Gradual=true", "the template has no parameter Gradual"),
        ("DeploymentId=0123456789", "--set cannot change DeploymentId"),
    ] {
        assert_refused(&rig.deploy(&["dev", "--set", pair]).await, &[words]);
    }
    assert_eq!(rig.recorded().len(), 3);
}

#[tokio::test]
async fn a_dry_run_runs_and_writes_nothing() {
    let rig = Rig::new("dry", StatusCode::OK).await;
    let run = rig.deploy(&with_flags(&["--dry-run"])).await;
    assert!(run.succeeded, "{}", run.stderr);
    assert_eq!((rig.config().as_str(), rig.recorded().len(), rig.calls().len()), (CONFIG, 0, 0));
    for words in [
        "bin/sam list stack-outputs --stack-name task-api-dev --region eu-central-1 --output json",
        "bin/sam deploy --config-env dev",
        "'PurgeSchedule=\"rate(1 day)\"'",
        &format!("ApiSecretArn=\"{API_SECRET}\""),
        "# GET <Url>/health?deep=true must return 200",
    ] {
        assert!(run.stdout.contains(words), "'{words}' is not in: {}", run.stdout);
    }
}

#[tokio::test]
async fn an_old_sam_is_refused() {
    let rig = Rig::new("old-sam", StatusCode::OK).await;
    rig.write("bin/version", "1.99.1");
    let run = rig.deploy(&with_flags(&[])).await;
    assert_refused(&run, &["SAM CLI 1.99.1", "1.170.0 or newer", "pip install --upgrade \"aws-sam-cli>=1.170.0\""]);
    assert_eq!((rig.config().as_str(), rig.recorded().len()), (CONFIG, 0));
}

#[tokio::test]
async fn a_program_that_lambda_cannot_run_is_refused() {
    let rig = Rig::new("programs", StatusCode::OK).await;
    rig.make_program("ListTasks", X86_64, "GLIBC_2.38", "libm.so.6");
    let run = rig.deploy(&with_flags(&[])).await;
    let ways = ["cargo xtask deploy dev --zig", "public.ecr.aws/amazonlinux/amazonlinux:2023", "--built"];
    assert_refused(&run, &["cannot run 1 of the ", "ListTasks needs GLIBC_2.38, and Lambda has GLIBC_2.34"]);
    assert_refused(&run, &ways);

    rig.make_program("ListTasks", X86_64, "GLIBC_2.17", "libssl.so.3");
    assert_refused(&rig.deploy(&["dev"]).await, &["ListTasks needs libssl.so.3"]);

    rig.make_program("ListTasks", ARM64, "GLIBC_2.34", "ld-linux-aarch64.so.1");
    let run = rig.deploy(&["dev"]).await;
    assert_refused(&run, &["ListTasks is built for arm64, and the stack's Architecture is x86_64"]);

    rig.write("built/ListTasks/bootstrap", "#!/bin/sh\n");
    assert_refused(&rig.deploy(&["dev"]).await, &["ListTasks cannot be deployed: it is not a program of Linux"]);

    rig.remove("built/ListTasks/bootstrap");
    rig.remove("built/Migrate/bootstrap");
    assert_refused(&rig.deploy(&["dev"]).await, &["has no program for ListTasks, Migrate"]);
    assert!(rig.recorded().iter().all(|call| call[0] == "list"), "{:?}", rig.recorded());
}

#[tokio::test]
async fn a_stack_for_arm64_refuses_programs_for_x86_64() {
    let rig = Rig::new("arm64", StatusCode::OK).await;
    rig.write("samconfig.toml", &CONFIG.replace("'Environment=\"dev\"',", "'Architecture=\"arm64\"',"));
    assert_refused(
        &rig.deploy(&with_flags(&[])).await,
        &["ClearCompleted is built for x86_64", "Migrate is built for x86_64", "UpdateTask is built for x86_64"],
    );
}

#[tokio::test]
async fn all_missing_values_are_named_at_once() {
    let rig = Rig::new("missing", StatusCode::OK).await;
    let run = rig.deploy(&["dev", "--owner-secret", OWNER_SECRET]).await;
    assert_refused(&run, &["--api-secret ARN", "--database-secret ARN", "--front-end URL"]);
    assert!(!run.stderr.contains("--owner-secret"), "{}", run.stderr);
    let run = rig.deploy(&["production"]).await;
    assert_refused(&run, &["has no environment 'production'; it has dev, staging"]);
    assert_eq!((rig.config().as_str(), rig.recorded().len()), (CONFIG, 0));
}

#[tokio::test]
async fn a_value_that_the_template_does_not_allow_is_refused() {
    let rig = Rig::new("values", StatusCode::OK).await;
    let mut flags = FLAGS;
    flags[1] = "task-api/dev/api";
    let run = rig.deploy(&[&["dev"], &flags[..]].concat()).await;
    assert_refused(&run, &["--api-secret: ApiSecretArn cannot be 'task-api/dev/api'. The whole ARN of a secret"]);

    rig.write("samconfig.toml", &CONFIG.replace("Environment", "Enviroment"));
    assert_refused(&rig.deploy(&with_flags(&[])).await, &["the template has no parameter Enviroment"]);
    assert_eq!(rig.recorded().len(), 0);
}

#[tokio::test]
async fn regions_that_differ_are_refused() {
    let rig = Rig::new("regions", StatusCode::OK).await;
    let there = OWNER_SECRET.replace("eu-central-1", "us-east-1");
    let mut flags = FLAGS;
    flags[5] = &there;
    let run = rig.deploy(&[&["dev"], &flags[..]].concat()).await;
    assert_refused(&run, &["ApiSecretArn: eu-central-1", "OwnerSecretArn: us-east-1"]);
    let run = rig.deploy(&with_flags(&["--region", "us-east-1"])).await;
    assert_refused(&run, &["ApiSecretArn: eu-central-1", "--region: us-east-1"]);
    rig.write("samconfig.toml", &CONFIG.replace("confirm_changeset = true", "region = \"us-west-2\""));
    assert_refused(&rig.deploy(&with_flags(&[])).await, &["region of samconfig.toml: us-west-2"]);
    let run = rig.deploy(&with_flags(&["--region", "eu-central-1"])).await;
    assert!(run.succeeded, "{}", run.stderr);
    assert!(rig.config().contains("region = \"eu-central-1\""), "{}", rig.config());
}

#[tokio::test]
async fn an_api_with_a_wrong_answer_is_an_error() {
    let rig = Rig::new("health", StatusCode::SERVICE_UNAVAILABLE).await;
    let run = rig.deploy(&with_flags(&[])).await;
    assert_refused(
        &run,
        &["GET /health?deep=true returned 503, expected 200: {\"type\"", "The database is away.", "docs/deploy.md"],
    );
    assert_refused(&run, &["sam logs --cw-log-group /aws/lambda/task-api-dev-health --region eu-central-1"]);
    assert!(rig.calls().len() > 1, "it tries again: {:?}", rig.calls());
}

#[tokio::test]
async fn nothing_is_called_after_a_deployment_that_failed() {
    let rig = Rig::new("failed", StatusCode::OK).await;
    rig.write("bin/status", "1");
    let run = rig.deploy(&with_flags(&[])).await;
    assert_refused(&run, &["'sam deploy' failed", "docs/deploy.md, \"When a deployment is stuck\""]);
    assert_eq!(rig.recorded().iter().map(|call| call[0].as_str()).collect::<Vec<_>>(), ["list", "deploy"]);
    assert!(rig.calls().is_empty(), "{:?}", rig.calls());
}

#[tokio::test]
async fn the_target_of_the_domains_record_is_named_if_the_domain_does_not_work() {
    let rig = Rig::new("domain", StatusCode::SERVICE_UNAVAILABLE).await;
    let target = "d-abc.execute-api.eu-central-1.amazonaws.com";
    let outputs = rig
        .read("bin/outputs")
        .replace("]", &format!(r#",{{"OutputKey":"DomainTarget","OutputValue":"{target}","Description":""}}]"#));
    rig.write("bin/outputs", &outputs);
    let zone = ["--set", "DomainName=api.example.com", "--set", "HostedZoneId=Z0123456789ABCDEFGHIJ"];
    let run = rig.deploy(&with_flags(&zone)).await;
    assert_refused(&run, &["CNAME record to", target, "GET /health?deep=true"]);
    assert!(rig.recorded()[1].contains(&"DomainName=\"api.example.com\"".to_owned()));
    let wrong = ["dev", "--set", "DomainName=https://api.example.com"];
    assert_refused(&rig.deploy(&wrong).await, &["A name like api.example.com"]);
}

#[tokio::test]
async fn the_contract_must_not_be_there_if_it_is_switched_off() {
    let rig = Rig::new("docs", StatusCode::OK).await;
    let run = rig.deploy(&with_flags(&["--set", "ServeDocs=false"])).await;
    assert_refused(&run, &["GET /openapi.json returned 200, expected 404"]);
}

#[tokio::test]
async fn old_versions_are_removed_after_a_good_deployment_and_it_stays_good_if_that_fails() {
    let rig = Rig::new("sweep", StatusCode::OK).await;
    for (status, words) in [("0", ""), ("1", "NOT REMOVED")] {
        rig.write("bin/swept", status);
        let run = rig.deploy(&with_flags(&[])).await;
        assert!(run.succeeded && run.stdout.contains(words), "{}{}", run.stdout, run.stderr);
        let arguments = rig.read("bin/python");
        assert!(arguments.ends_with("devtools/sam/sweep.py\ntask-api-dev\neu-central-1\n"), "{arguments}");
    }
    let failed = Rig::new("no-sweep", StatusCode::SERVICE_UNAVAILABLE).await;
    assert_refused(&failed.deploy(&with_flags(&[])).await, &["GET /health?deep=true returned 503"]);
    assert!(!std::path::Path::new(&failed.path("bin/python")).exists(), "the old versions are still needed");
}

#[test]
fn the_script_that_removes_old_versions_keeps_what_is_needed() {
    run_python_tests("test_sweep");
}

#[test]
fn the_script_of_previews_makes_and_removes_everything_and_prints_no_secret() {
    run_python_tests("test_preview");
}
