//! Guards against unnoticed growth of what depends only on the code: the size of the packages, the files that a
//! function opens, and the instructions per call. `cargo xtask test guard` builds the functions and finds the tools.
//! The part `api` checks that each call is one round trip.
use serde_json::{Value, json};
use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};
use testing::{Database, Lambda, OpenApi, SERVICES, Secret, User, logical_id};
use zip::{ZipWriter, write::SimpleFileOptions};

/// Maximum size of a function's program and of its package, in bytes. The compression is about the same as SAM's.
const PROGRAM_LIMIT: u64 = 8_500_000;
const PACKAGE_LIMIT: u64 = 3_500_000;

/// Instructions per call, unnamed and prepared, as last measured. A change by more than [`TOLERANCE`] must be intended: copy
/// the new number from the test's output.
const INSTRUCTIONS: [(&str, u64, u64); 3] =
    [("ListTasks", 623_000, 601_000), ("GetTask", 199_000, 190_000), ("CreateTask", 208_000, 197_000)];
/// Instructions from the start of ListTasks to its first answer, unnamed and prepared.
const COLD_START: (u64, u64) = (64_200_000, 64_800_000);
const TOLERANCE: f64 = 0.05;
/// Number of counted calls, and of warm-up calls before them.
const COUNTED: u64 = 100;
const WARM_UP: u64 = 20;
/// Maximum number of starts until a process connects in Init.
const ATTEMPTS: u32 = 30;

const TASKS: i32 = 50;

#[test]
fn no_function_of_the_api_has_outgrown_its_limit() {
    let openapi = OpenApi::read().expect("openapi.yaml");
    // The function docs is larger because it contains its files.
    let with_database = openapi.functions().into_iter().filter(|(_, routes)| routes[0].secret != Secret::None);
    for function in with_database.map(|(program, _)| logical_id(program)) {
        let program = fs::read(bootstrap(&function)).expect("sam build made it");
        let mut package = ZipWriter::new(io::Cursor::new(Vec::new()));
        package
            .start_file("bootstrap", SimpleFileOptions::default().compression_level(Some(6)))
            .expect("a file in a zip");
        package.write_all(&program).expect("memory");
        let (program, package) = (program.len() as u64, package.finish().expect("memory").into_inner().len() as u64);
        println!("{function:15} {program:>9} bytes, packed {package:>9}");
        assert!(program <= PROGRAM_LIMIT, "{function} has {program} bytes");
        assert!(package <= PACKAGE_LIMIT, "{function} has {package} bytes when packed");
    }
}

#[tokio::test]
async fn a_function_reads_only_the_roots_that_it_needs() {
    let (database, user, _) = tasks().await;
    let url = database.api_url();
    assert_eq!(roots_read(&url, &user, 200).await, std::slice::from_ref(&SERVICES.certificate));
    // Without `sslrootcert`, a host other than Neon's and AWS's needs a certificate from the system's roots.
    let (url, _) = url.split_once("&sslrootcert").expect("the usual URL");
    let [system_roots] = &roots_read(url, &user, 503).await[..] else { panic!("one file has the system's roots") };
    assert!(system_roots.contains("ca-"), "{system_roots}");
}

/// Returns the certificate files that a function opens from its start to its first answer.
async fn roots_read(url: &str, user: &User, status: u16) -> Vec<String> {
    let trace = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("strace.{status}"));
    let _ = fs::remove_file(&trace);
    let (strace, file) = (tool("STRACE"), trace.display().to_string());
    // -D: strace runs as a grandchild, so that the started process is the function.
    let command = [&strace, "-D", "-f", "-e", "trace=open,openat", "-o", &file];
    let mut lambda = Lambda::start_under(&command, &bootstrap("ListTasks").to_string_lossy(), &settings(url)).await;
    let answer = lambda.invoke(event(user, "GET", "/api/tasks", None, None)).await;
    assert_eq!(answer["statusCode"], status, "{answer}");
    lambda.terminate();
    lambda.ended().await;
    let lines = finished_trace(&trace).await;
    let opened = lines.lines().filter(|line| !line.contains("= -1")).filter_map(|line| line.split('"').nth(1));
    opened.filter(|path| ["cert", ".pem", ".crt"].iter().any(|part| path.contains(part))).map(str::to_owned).collect()
}

#[tokio::test]
async fn the_instructions_per_call_and_of_a_cold_start_are_as_recorded() {
    let mut failures = Vec::new();
    let mut compare = |what: String, counted: u64, recorded: u64| {
        println!("{what:32} {counted:>10} instructions; {recorded} recorded");
        if (counted as f64 / recorded as f64 - 1.0).abs() > TOLERANCE {
            failures.push(format!("{what} takes {counted} instructions, {recorded} recorded"));
        }
    };
    for (function, unnamed, prepared) in INSTRUCTIONS {
        for (way, recorded) in [(Way::Unnamed, unnamed), (Way::Prepared, prepared)] {
            let (database, user, task) = tasks().await;
            let few = count(function, way, &database, &user, task, WARM_UP).await;
            let more = count(function, way, &database, &user, task, WARM_UP + COUNTED).await;
            compare(format!("{function}, a call, {way:?}"), (more - few) / COUNTED, recorded);
        }
    }
    for (way, recorded) in [(Way::Unnamed, COLD_START.0), (Way::Prepared, COLD_START.1)] {
        let (database, user, task) = tasks().await;
        let counted = count("ListTasks", way, &database, &user, task, 1).await;
        compare(format!("ListTasks, a cold start, {way:?}"), counted, recorded);
    }
    assert!(failures.is_empty(), "{failures:?}");
}

/// How statements are sent.
#[derive(Debug, Clone, Copy)]
enum Way {
    Unnamed,
    /// To PostgreSQL itself: the pooler of the tests does not track names.
    Prepared,
}

impl Way {
    fn settings(self, database: &Database) -> Vec<(String, String)> {
        let url = database.api_url();
        let (pooler, postgres) = (SERVICES.pooler_port.to_string(), SERVICES.postgres_port.to_string());
        let (url, prepares) = match self {
            Self::Unnamed => (url, "false"),
            Self::Prepared => (url.replace(&format!(":{pooler}/"), &format!(":{postgres}/")), "true"),
        };
        let mut settings = settings(&url);
        settings.push(("PREPARED_STATEMENTS".to_owned(), prepares.to_owned()));
        settings
    }
}

/// Counts the instructions of a process that answers some calls, with callgrind. Excludes the kernel and the database.
async fn count(function: &str, way: Way, database: &Database, user: &User, task: i32, calls: u64) -> u64 {
    let output = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("callgrind.{function}.{way:?}.{calls}"));
    let (valgrind, output_option) = (tool("VALGRIND"), format!("--callgrind-out-file={}", output.display()));
    let command = [&valgrind, "--quiet", "--tool=callgrind", &output_option];
    let mut lambda = connected_under(&command, function, &way.settings(database)).await;
    for number in 0..calls {
        let body = json!({"title": format!("Task {number:03}"), "description": "Made by the guard"});
        let event = match function {
            "GetTask" => event(user, "GET", &format!("/api/tasks/{task}"), Some(task), None),
            "CreateTask" => event(user, "POST", "/api/tasks", None, Some(body)),
            _ => event(user, "GET", "/api/tasks", None, None),
        };
        let answer = lambda.invoke(event).await;
        assert_eq!(answer["statusCode"], if function == "CreateTask" { 201 } else { 200 }, "{answer}");
    }
    lambda.terminate();
    lambda.ended().await;
    let text = fs::read_to_string(output).expect("callgrind's output");
    let total = text.lines().find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")));
    total.and_then(|total| total.trim().parse().ok()).expect("a total")
}

/// Starts a process under a tool, until one has connected to the database in Init. Valgrind can make the connection
/// slower than Init waits; then the first call would connect again.
async fn connected_under(tool: &[&str], function: &str, settings: &[(String, String)]) -> Lambda {
    for _ in 0..ATTEMPTS {
        let lambda = Lambda::start_under(tool, &bootstrap(function).to_string_lossy(), settings).await;
        let lines = lambda.log_lines(1).await;
        if lines[0].contains("\"started\"") {
            return lambda;
        }
        println!("{function} starts again, because Init did not connect: {}", lines[0]);
        lambda.terminate();
        lambda.ended().await;
    }
    panic!("{function} did not connect in Init in {ATTEMPTS} attempts: is the machine busy?");
}

/// Creates a user with fifty tasks. Returns one task's id.
async fn tasks() -> (Database, User, i32) {
    let database = Database::create().await;
    let user = database.sign_up("ada").await;
    let made = database
        .sql(
            "insert into tasks (user_id, title, description, created_at, updated_at)
            select $1, 'Task number ' || lpad(n::text, 3, '0'), repeat('Details follow here. ', n % 5), at, at
            from generate_series(1, $2::int) n, lateral (select '2026-01-01'::timestamp + n * interval '1 hour' as at) times
            returning id",
            &[&user.id, &TASKS],
        )
        .await;
    database.sql("vacuum analyze tasks", &[]).await;
    (database, user, made[0].get(0))
}

fn event(user: &User, method: &str, path: &str, task: Option<i32>, body: Option<Value>) -> Value {
    json!({
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": "limit=50",
        "headers": {"authorization": format!("Bearer {}", user.token), "content-type": "application/json", "host": "api.example.com"},
        "requestContext": {"http": {"method": method, "path": path}, "requestId": "JKJaXmPLvHcESHA="},
        "pathParameters": task.map(|task| json!({"id": task.to_string()})),
        "body": body.map(|body| body.to_string()),
        "isBase64Encoded": false,
    })
}

fn settings(url: &str) -> Vec<(String, String)> {
    let settings = [
        ("DATABASE_URL", url.to_owned()),
        ("BETTER_AUTH_SECRET", testing::SECRET.to_owned()),
        ("METRICS_NAMESPACE", "TaskApi".to_owned()),
    ];
    settings.map(|(name, value)| (name.to_owned(), value)).to_vec()
}

/// A function's program from `sam build`.
fn bootstrap(function: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../.aws-sam/build").join(function).join("bootstrap")
}

/// The path of a tool, from `cargo xtask test guard`.
fn tool(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: run this by 'cargo xtask test guard'"))
}

/// Waits until strace has recorded the process's end, and returns the trace.
async fn finished_trace(file: &Path) -> String {
    for _ in 0..500 {
        let text = fs::read_to_string(file).unwrap_or_default();
        if text.contains("+++ exited") {
            return text;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("strace does not end: see {}", file.display())
}
