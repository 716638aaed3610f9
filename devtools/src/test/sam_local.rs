//! The part `sam-local`: tests of the API over HTTP, against the functions of `sam build` in AWS's `sam local start-api`.
use crate::{
    servers::{sam_local::SamLocal, services::Services},
    system::{build::cargo_test, process::run_tests},
};
use anyhow::{Result, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use testing::{Database, OpenApi, RunningApi, logical_id};

/// The tests of functions/tests/api that see the API as a client does, by the start of their names.
const TESTS: [&str; 13] = [
    "access::",
    "changes::a_client",
    "changes::a_tag",
    "changes::pages",
    "changes::what_others_write",
    "conditional::",
    "front_ends::",
    "idempotency::",
    "input::",
    "isolation::",
    "jwt::a_jwt_of_each_algorithm",
    "listing::",
    "tasks::",
];

/// Those among them that start functions of their own, or functions with other settings.
const WITH_OWN_FUNCTIONS: [&str; 9] = [
    "access::a_function_that_writes_needs_a_trusted_origin_whatever_method_the_event_names",
    "access::a_session_expires_on_time_in_every_time_zone",
    "access::the_cookie_name_follows_the_settings",
    "conditional::of_two_writers_with_one_tag_exactly_one_wins",
    "conditional::the_time_of_the_last_change_only_grows_under_many_writers",
    "front_ends::the_contract_and_its_page_are_served_to_anybody_without_a_database",
    "idempotency::a_connection_lost_between_write_and_answer_makes_no_second_task",
    "idempotency::a_write_whose_answer_is_lost_is_not_sent_again_by_the_function",
    "idempotency::concurrent_processes_create_one_task",
];

/// Those that need API Gateway as it is. SAM's stand-in redirects paths like `/api/../tasks`, ignores a slash after any
/// path, and reads headers as Latin-1.
const NOT_AS_SAM_HAS_IT: [&str; 3] = [
    "access::the_path_of_another_user_is_forbidden_and_nothing_happens",
    "front_ends::a_path_below_a_collection_is_not_the_collection",
    "idempotency::a_key_has_1_to_255_characters",
];

/// Random histories of the test in `isolation`, each of up to some dozens of requests.
const HISTORIES: &str = "5";

/// Starts the API of `.aws-sam/build`, and runs the tests one after the other: they share its database. With a filter,
/// runs the tests whose name contains it.
pub async fn test(services: &Services, filter: Option<&str>) -> Result<()> {
    let description = services.description()?;
    // Leaked, because `Database` needs a static reference.
    let database = Database::create_in(Box::leak(Box::new(description.clone()))).await;
    let api = SamLocal::start(&description, &database.name).await?;
    let running = RunningApi { address: api.address(), database: database.name };
    let mut command = cargo_test(&["--test", "api"]);
    services.pass_with_api(running, &mut command)?.env("RUST_TEST_THREADS", "1").arg("--");
    match filter {
        Some(filter) => command.arg(filter),
        None => command.args(TESTS),
    };
    command.args(WITH_OWN_FUNCTIONS.iter().chain(&NOT_AS_SAM_HAS_IT).flat_map(|name| ["--skip", name]));
    if std::env::var_os("PROPTEST_CASES").is_none() {
        command.env("PROPTEST_CASES", HISTORIES);
    }
    run_tests(&mut command).await?;
    report(&api.log()?, filter.is_none())
}

/// Maximum duration of a start, in milliseconds. It does not measure speed: an Init that waits for something that only
/// comes later takes over five seconds.
const INIT_LIMIT_MS: f64 = 3000.0;

/// What a function has logged.
#[derive(Default)]
struct Calls {
    count: usize,
    /// The durations of its starts, in milliseconds.
    init_times: Vec<f64>,
}

/// Counts the calls of each function, by its logical id, in the functions' log.
fn count_calls(log: &str) -> BTreeMap<String, Calls> {
    let mut functions: BTreeMap<String, Calls> = BTreeMap::new();
    for line in log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let Some(name) = line["function"].as_str() else { continue };
        let calls = functions.entry(name.to_owned()).or_default();
        calls.init_times.extend(line["InitTime"].as_f64());
        calls.count += usize::from(line["status"].is_u64());
    }
    functions
}

/// Prints the calls of each function. Fails if an Init took too long. If all tests ran, also fails if a function with a
/// route was not called: the tests have then called another API.
fn report(log: &str, is_whole: bool) -> Result<()> {
    let functions = count_calls(log);
    println!("{:16} {:>6}  Init ms", "function", "calls");
    for (name, Calls { count, init_times }) in &functions {
        let slowest = init_times.iter().copied().fold(0.0, f64::max);
        ensure!(slowest < INIT_LIMIT_MS, "{name}: Init took {slowest:.0} ms");
        let init_times: Vec<_> = init_times.iter().map(|time| format!("{time:.0}")).collect();
        println!("{name:16} {count:>6}  {}", init_times.join(" "));
    }
    println!("{:16} {:>6}", "together", functions.values().map(|calls| calls.count).sum::<usize>());
    for (program, _) in OpenApi::read()?.functions() {
        let is_called = functions.get(&logical_id(program)).is_some_and(|calls| calls.count > 0);
        ensure!(is_called || !is_whole, "no test has called {program}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use xtask::place::root;

    #[test]
    fn each_excluded_test_exists() {
        for name in WITH_OWN_FUNCTIONS.iter().chain(&NOT_AS_SAM_HAS_IT) {
            let (module, test) = name.split_once("::").unwrap();
            let file = root().join("functions/tests/api").join(module).with_extension("rs");
            let text = std::fs::read_to_string(&file).unwrap();
            assert!(text.contains(&format!("fn {test}()")), "{} has no test {test}", file.display());
        }
    }

    #[test]
    fn calls_and_starts_are_counted_by_function() {
        let log = r#"START RequestId: 1
            {"function":"GetTask","message":"started","InitTime":12.3}
            {"function":"GetTask","message":"request","status":200}
            {"function":"GetTask","message":"request failed","status":503}
            {"function":"Health","level":"WARN","message":"x"}"#;
        let functions = count_calls(log);
        assert_eq!((functions["GetTask"].count, &functions["GetTask"].init_times), (2, &vec![12.3]));
        assert_eq!(functions["Health"].count, 0);
        let slow = report(&log.replace("12.3", "5201.0"), false).unwrap_err();
        assert_eq!(slow.to_string(), "GetTask: Init took 5201 ms");
        let missed = report(log, true).unwrap_err().to_string();
        assert!(missed.starts_with("no test has called "), "{missed}");
    }
}
