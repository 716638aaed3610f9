//! Fuzzing with mutated events. Most cases run in this process, up to the first SQL statement. One in twenty goes to
//! the real functions and the database. `cargo xtask fuzz` runs it.
use crate::{
    api::{Answer, Api, SECRET, get, session_cookie, signed, valid_request},
    contract::{self, OPENAPI, ROUTES},
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::{Map, Number, Value, json};
use shared::{
    Config, Error, Request, Response,
    tasks::{Batch, ChangesQuery, IdempotencyKey, IfMatch, ListQuery, NewTask, TaskChanges, TaskId},
    testing_support::{Access, DryRun},
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};
use testing::{Route, User};

/// One out of this many cases goes to a real function.
const REAL_EVERY: u64 = 20;
/// Two out of this many cases have a body of 6 MB, Lambda's limit.
const HUGE_EVERY: u64 = 20_000;
/// After this many cases for the real functions, a valid request must succeed, and the tasks they created are removed.
const CHECK_EVERY: u64 = 100;

/// Events recorded from API Gateway.
const RECORDED: [&str; 5] = [
    include_str!("../../../devtools/tests/events/get-unknown-id.json"),
    include_str!("../../../devtools/tests/events/get-with-cookies-and-query.json"),
    include_str!("../../../devtools/tests/events/post.json"),
    include_str!("../../../devtools/tests/events/post-base64.json"),
    include_str!("../../../devtools/tests/events/put-with-user-id.json"),
];

/// Values for places where a text is expected.
const TEXTS: [&str; 40] = [
    "",
    " ",
    "0",
    "-1",
    "2147483648",
    "18446744073709551616",
    "-9223372036854775809",
    "1e400",
    "NaN",
    "null",
    "true",
    "\0",
    "a\0b",
    "\r\n",
    "x\r\nSet-Cookie: a=b",
    "\u{FEFF}",
    "\u{FEFF}{\"title\":\"x\"}",
    "\u{202E}\u{0301}\u{FFFF}",
    "\u{10FFFF}\u{1F469}\u{200D}\u{1F4BB}",
    "' or '1'='1",
    "'; drop table tasks; --",
    "$1",
    "$$;select pg_sleep(10);$$",
    "\\'; copy tasks to program 'id'; --",
    "%' or title like '%",
    "%00",
    "%0d%0aX-Injected:%20x",
    "%ff%fe",
    "%",
    "%25%30",
    "../../../etc/passwd",
    "{{7*7}}${7*7}<script>alert(1)</script>",
    "*",
    "\"*\"",
    "W/\"1\"",
    "\"7fffffffffffffff\"",
    "\"-8000000000000000\"",
    "application/json",
    "Bearer",
    "all",
];

/// Cursors before their encoding.
const CURSORS: [&str; 13] = [
    "-created_at all 1700000000123456 1",
    "-created_at all 9223372036854775807 1",
    "-created_at all -9223372036854775808 -2147483648",
    "-created_at all -210866803200000000 1",
    "-created_at all 8210266876799999999 2147483647",
    "created_at pending -1 0",
    "-updated_at completed 0 2147483648",
    "-created_at all 1\r\n 1",
    "updated_at all 99999999999999999999 1",
    "title all 1\0Buy milk",
    "-title all 2147483647\0\u{10FFFF} \r\n'",
    "title all 1\0a\0b",
    "\0 \0 \0",
];

/// An event for the function behind a route.
struct Case {
    route: Route,
    event: Vec<u8>,
}

impl Case {
    /// Whether the fields that the gateway sets are still consistent. Only then must the response match openapi.yaml.
    fn is_routed(&self) -> bool {
        let event: Value = serde_json::from_slice(&self.event).unwrap_or_default();
        event["requestContext"]["http"]["method"] == *self.route.method
            && event["rawPath"].as_str().is_some_and(|path| path.starts_with('/'))
            && event["pathParameters"]["user_id"].is_string() == self.route.path.contains("{user_id}")
            && matches!(event["pathParameters"]["proxy"].as_str(), None | Some(""))
    }
}

/// Generates cases; the same seed generates the same cases.
struct Generator {
    seed: u64,
    events: Vec<(Route, Value)>,
    /// Values for places where a credential is expected.
    credentials: Vec<String>,
}

impl Generator {
    fn new(seed: u64, user: &User, task: i64) -> Self {
        let good = format!("Bearer {}", user.token);
        let mut events: Vec<(Route, Value)> = Vec::new();
        for route in ROUTES.iter().filter(|route| route.needs_session()) {
            let request = valid_request(route, user, task);
            if route.accepts_slash {
                let mut slash = request.clone();
                slash.path.push('/');
                events.push((route.clone(), slash.bearer(&user.token).routed_event()));
            }
            events.push((route.clone(), request.clone().bearer(&user.token).routed_event()));
            events.push((route.clone(), request.cookie(&user.token).routed_event()));
        }
        for text in RECORDED {
            let mut event: Value = serde_json::from_str(text).expect("a recorded event");
            let method = event["requestContext"]["http"]["method"].as_str().expect("a method");
            let path = event["rawPath"].as_str().expect("a path");
            let (route, _) = OPENAPI.route(method, path).expect("a route");
            event["headers"]["authorization"] = json!(good);
            events.push((route.clone(), event));
        }
        let credentials = vec![
            good,
            user.token.clone(),
            format!("Bearer {}", signed(&user.token, SECRET)),
            format!("Bearer {}.", user.token),
            session_cookie(&user.token, SECRET),
            session_cookie(&user.token, SECRET).replace('%', "%25"),
            "better-auth.session_token=\"".to_owned(),
            "better-auth.session_token=.=".to_owned(),
        ];
        Self { seed, events, credentials }
    }

    fn case(&self, number: u64) -> Case {
        let random = &mut StdRng::seed_from_u64(self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(number));
        let (route, mut event) = self.events.choose(random).expect("events").clone();
        for _ in 0..random.random_range(1..4) {
            self.mutate(&mut event, random);
        }
        // The first goes to a real function, the second runs in this process.
        if number % HUGE_EVERY < 2 {
            let unit = *["x", "[", "{\"a\":", "\u{1F4BB}", "A", "\\u0000"].choose(random).expect("a unit");
            *field(&mut event, "body") = json!(unit.repeat(6_000_000 / unit.len()));
        }
        let mut event = event.to_string().into_bytes();
        if random.random_bool(0.1) {
            mutate_bytes(&mut event, random);
        }
        Case { route, event }
    }

    /// Changes one part of an event.
    fn mutate(&self, event: &mut Value, random: &mut StdRng) {
        match random.random_range(0..14) {
            0 => {
                let node = any_node(event, random);
                *node = value(random, 0);
            }
            1 => {
                let node = any_node(event, random);
                if let Value::Object(fields) = node
                    && let Some(name) = fields.keys().nth(random.random_range(0..fields.len().max(1))).cloned()
                {
                    fields.remove(&name);
                }
            }
            2 => {
                let name = if random.random_bool(0.2) { "proxy" } else { "id" };
                *field(field(event, "pathParameters"), name) = json!(self.text(random));
            }
            3 => *field(field(event, "pathParameters"), "user_id") = json!(self.text(random)),
            4 => *field(event, "rawQueryString") = json!(self.query(random)),
            5..=6 => {
                let names = [
                    "authorization",
                    "cookie",
                    "if-match",
                    "if-none-match",
                    "idempotency-key",
                    "content-type",
                    "origin",
                    "x-y",
                ];
                *field(field(event, "headers"), names.choose(random).expect("a name")) = json!(self.text(random));
            }
            7 => *field(event, "cookies") = json!([self.text(random), self.text(random)]),
            8 => *field(event, "rawPath") = json!(self.text(random)),
            9..=12 => {
                let (body, is_base64) = self.body(random);
                *field(event, "body") = body;
                *field(event, "isBase64Encoded") = json!(is_base64);
            }
            _ => *field(event, "isBase64Encoded") = json!(random.random_bool(0.5)),
        }
    }

    fn text(&self, random: &mut StdRng) -> String {
        if random.random_bool(0.1) {
            let mut bytes = self.credentials.choose(random).expect("credentials").clone().into_bytes();
            if random.random_bool(0.5) {
                mutate_bytes(&mut bytes, random);
            }
            return String::from_utf8_lossy(&bytes).into_owned();
        }
        strange_text(random)
    }

    fn query(&self, random: &mut StdRng) -> String {
        let names = ["status", "sort", "q", "limit", "offset", "cursor", "order", "search", "x"];
        let good =
            ["all", "pending", "completed", "created_at", "-updated_at", "title", "-title", "1", "1000", "10000"];
        let mut query = Vec::new();
        for _ in 0..random.random_range(0..4) {
            let value = match random.random_range(0..3) {
                0 => (*good.choose(random).expect("values")).to_owned(),
                1 => URL_SAFE_NO_PAD.encode(CURSORS.choose(random).expect("cursors")),
                _ => self.text(random),
            };
            query.push(format!("{}={value}", names.choose(random).expect("names")));
        }
        query.join("&")
    }

    /// Generates a body, and whether the event marks it as base64.
    fn body(&self, random: &mut StdRng) -> (Value, bool) {
        let names = ["title", "description", "completed", "x"];
        let mut body = Map::new();
        for _ in 0..random.random_range(0..4) {
            let name = (*names.choose(random).expect("names")).to_owned();
            body.insert(name, if random.random_bool(0.6) { json!(strange_text(random)) } else { value(random, 0) });
        }
        let mut bytes = Value::from(body).to_string().into_bytes();
        match random.random_range(0..10) {
            0 => bytes = self.text(random).into_bytes(),
            1 => mutate_bytes(&mut bytes, random),
            2 => bytes = [&b"\xEF\xBB\xBF"[..], &bytes].concat(),
            3 => {
                let depth = random.random_range(1..5000);
                bytes =
                    ["{\"title\":".repeat(depth), "[".repeat(depth)].choose(random).expect("one").clone().into_bytes();
            }
            4 => bytes = br#"{"title":"x","completed":18446744073709551616,"n":1e999,"m":-0.0}"#.to_vec(),
            _ => {}
        }
        match random.random_range(0..4) {
            0 => (json!(STANDARD.encode(&bytes)), true),
            1 => (json!(String::from_utf8_lossy(&bytes)), random.random_bool(0.2)),
            _ => (json!(String::from_utf8_lossy(&bytes)), false),
        }
    }
}

fn strange_text(random: &mut StdRng) -> String {
    let mut text = match random.random_range(0..10) {
        0..=6 => (*TEXTS.choose(random).expect("texts")).to_owned(),
        7 => URL_SAFE_NO_PAD.encode(CURSORS.choose(random).expect("cursors")),
        8 => (0..random.random_range(0..20)).map(|_| random.random::<char>()).collect(),
        _ => TEXTS.choose(random).expect("texts").repeat(random.random_range(1..500)),
    };
    if random.random_bool(0.2) {
        let mut bytes = text.into_bytes();
        mutate_bytes(&mut bytes, random);
        text = String::from_utf8_lossy(&bytes).into_owned();
    }
    text
}

/// Generates any JSON value. It contains no credential, because values from a gateway's fields may be logged.
fn value(random: &mut StdRng, depth: usize) -> Value {
    match random.random_range(0..12) {
        0 => Value::Null,
        1 => json!(random.random::<bool>()),
        2 => json!(random.random::<i64>()),
        3 => json!(u64::MAX),
        4 => Number::from_f64(random.random::<f64>() * 1e300).map_or(Value::Null, Value::from),
        5..=8 => json!(strange_text(random)),
        9 if depth < 4 => (0..random.random_range(0..4)).map(|_| value(random, depth + 1)).collect(),
        10 if depth < 4 => {
            let fields = (0..random.random_range(0..4)).map(|_| (strange_text(random), value(random, depth + 1)));
            Value::Object(fields.collect())
        }
        11 => (0..random.random_range(1..200)).fold(Value::Null, |inner, _| json!([inner])),
        _ => json!({}),
    }
}

/// Returns a field of an object; any other value becomes an object first.
fn field<'v>(value: &'v mut Value, name: &str) -> &'v mut Value {
    if !value.is_object() {
        *value = json!({});
    }
    &mut value[name]
}

/// Returns a random node of a JSON value.
fn any_node<'v>(value: &'v mut Value, random: &mut StdRng) -> &'v mut Value {
    let length = match &*value {
        Value::Object(fields) => fields.len(),
        Value::Array(items) => items.len(),
        _ => 0,
    };
    if length == 0 || random.random_bool(0.2) {
        return value;
    }
    let place = random.random_range(0..length);
    let inner = match value {
        Value::Object(fields) => fields.values_mut().nth(place),
        Value::Array(items) => items.get_mut(place),
        _ => None,
    };
    any_node(inner.expect("one of them"), random)
}

/// Flips, truncates, repeats and inserts bytes.
fn mutate_bytes(bytes: &mut Vec<u8>, random: &mut StdRng) {
    for _ in 0..random.random_range(1..4) {
        let place = random.random_range(0..=bytes.len());
        match random.random_range(0..5) {
            0 if place < bytes.len() => bytes[place] ^= 1 << random.random_range(0..8),
            1 => bytes.truncate(place),
            2 => bytes.insert(place, random.random()),
            3 => {
                let strange: [&[u8]; 6] = [b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"\xc0\xaf", b"\r\n", b"\"},{\""];
                bytes.splice(place..place, strange.choose(random).expect("one").iter().copied());
            }
            4 => {
                let end = bytes.len().min(place + 50);
                bytes.extend_from_within(place..end);
            }
            _ => {}
        }
    }
}

/// Parses a request like the function's handler does before it queries the database. Add a function here if it parses
/// anything special; for all others this parses the query, the id and a JSON body, as far as the route has them.
fn parse_request(route: &Route, request: &Request) -> Result<Response, Error> {
    match &*route.function {
        "list-tasks" => drop(ListQuery::from_request(request)?),
        "task-changes" => drop(ChangesQuery::from_request(request)?),
        "batch-tasks" => drop(Batch::from_request(request)?),
        "create-task" => {
            NewTask::from_request(request)?;
            IdempotencyKey::from_request(request)?;
        }
        "update-task" | "patch-task" | "complete-task" => {
            let parse_changes = match &*route.function {
                "update-task" => TaskChanges::from_put_request,
                "patch-task" => TaskChanges::from_patch_request,
                _ => TaskChanges::from_completion_request,
            };
            parse_changes(request)?;
            TaskId::from_request(request)?;
            IfMatch::from_request(request)?;
        }
        "delete-task" => {
            TaskId::from_request(request)?;
            IfMatch::from_request(request)?;
        }
        _ => {
            request.query().count();
            if route.path.contains("{id}") {
                TaskId::from_request(request)?;
            }
            if route.body.is_some() {
                request.json_object()?;
            }
        }
    }
    Ok(Response::no_content())
}

/// Returns what is wrong with a response, if anything.
fn find_fault(answer: &Value) -> Option<&'static str> {
    let status = answer["statusCode"].as_u64().unwrap_or_default();
    let body = answer["body"].as_str().unwrap_or_default();
    let parsed: Option<Value> = serde_json::from_str(body).ok();
    if !(200..500).contains(&status) {
        Some("wrong status")
    } else if answer["headers"]["x-request-id"].is_null() {
        Some("no x-request-id")
    } else if status >= 400 && parsed.is_none_or(|problem| problem["status"] != status) {
        Some("invalid problem details")
    } else if answer["headers"].to_string().contains("\\n") || answer["headers"].to_string().contains("\\r") {
        Some("a line break in a header")
    } else {
        None
    }
}

fn report(generator: &Generator, number: u64, why: &str, case: &Case) -> ! {
    let event = String::from_utf8_lossy(&case.event);
    let event: String = event.chars().take(4000).collect();
    panic!("seed {}, case {number}, {:?}: {why}\n{event}", generator.seed, case.route)
}

/// Counts cases by their outcome.
#[derive(Default)]
struct Counts {
    tried: AtomicU64,
    refused: AtomicU64,
    invalid_events: AtomicU64,
}

impl Counts {
    fn add(&self, status: Option<u64>) {
        self.tried.fetch_add(1, Ordering::Relaxed);
        match status {
            None => self.invalid_events.fetch_add(1, Ordering::Relaxed),
            Some(400..) => self.refused.fetch_add(1, Ordering::Relaxed),
            Some(_) => 0,
        };
    }

    fn print(&self, place: &str) {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (tried, refused, invalid_events) = (get(&self.tried), get(&self.refused), get(&self.invalid_events));
        let accepted = tried - refused - invalid_events;
        println!(
            "{place:12} {tried:>9} cases: {accepted} accepted, {refused} refused (4xx), {invalid_events} invalid events; no 5xx, no panic"
        );
    }
}

/// Runs cases in this process.
fn run_in_process(generator: &Generator, numbers: impl Iterator<Item = u64>, counts: &Counts) {
    let settings = [("DATABASE_URL", "postgresql://tasks_api:x@localhost/tasks"), ("BETTER_AUTH_SECRET", SECRET)];
    let setting = |name: &str| settings.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    let function = DryRun::new(Config::from_settings(setting).expect("good settings"));
    for number in numbers {
        let case = generator.case(number);
        let access = if case.route.is_write() { Access::Write } else { Access::Read };
        let answer = catch_unwind(AssertUnwindSafe(|| {
            function.answer(&case.event, access, |request| parse_request(&case.route, request)).ok()
        }));
        match answer {
            Err(_) => report(generator, number, "a panic", &case),
            Ok(None) => counts.add(None),
            Ok(Some((response, line))) => {
                let answer = serde_json::to_value(&response).unwrap_or_default();
                if let Some(fault) = find_fault(&answer) {
                    report(generator, number, fault, &case);
                }
                if line.matches('\n').count() != 1 || serde_json::from_str::<Value>(&line).is_err() {
                    report(generator, number, "its log entry is not one line of JSON", &case);
                }
                counts.add(answer["statusCode"].as_u64());
            }
        }
    }
}

/// Runs cases with the real functions and the database.
async fn run_with_real_functions(
    generator: &Generator,
    api: &mut Api,
    user: &User,
    numbers: impl Iterator<Item = u64>,
    counts: &Counts,
) {
    for (index, number) in (0..).zip(numbers) {
        let case = generator.case(number);
        let invoked = api.function(&case.route.function).await.try_invoke_bytes(case.event.clone()).await;
        match invoked {
            Ok(answer) => {
                if let Some(fault) = find_fault(&answer) {
                    report(generator, number, &format!("{fault}: {answer}"), &case);
                }
                if case.is_routed() {
                    contract::check_answer(&case.route, &Answer::new(&answer));
                }
                counts.add(answer["statusCode"].as_u64());
            }
            // The invocation failed with an error that the runtime reported. The process must survive.
            Err(failure)
                if failure["error"]
                    .as_str()
                    .is_some_and(|it| it.contains("errorMessage") && !it.contains("panicked")) =>
            {
                counts.add(None)
            }
            Err(failure) => report(generator, number, &format!("{failure}"), &case),
        }
        if index % CHECK_EVERY == 0 {
            assert_eq!(api.call(get("/api/session").bearer(&user.token)).await.status, 200);
            api.database.sql("delete from tasks where title <> 'kept'", &[]).await;
        }
    }
}

#[test]
#[ignore = "a million cases: cargo xtask fuzz"]
fn no_event_causes_a_5xx_or_a_panic() {
    let number = |name: &str| std::env::var(name).ok().and_then(|number| number.parse().ok());
    let cases = number("FUZZ_CASES").unwrap_or(20_000);
    let seed = number("FUZZ_SEED").unwrap_or(0);
    println!("seed {seed}, {cases} cases");
    let began = Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let (mut api, user, task) = runtime.block_on(async {
        let mut api = Api::start().await;
        let user = api.database.sign_up("ada").await;
        let task = api.make_task(&user, "kept").await;
        (api, user, task)
    });
    let generator = Arc::new(Generator::new(seed, &user, task));
    let (in_process, real) = (Arc::new(Counts::default()), Counts::default());
    let threads = std::thread::available_parallelism().map_or(1, |it| it.get() as u64);
    let workers: Vec<_> = (0..threads)
        .map(|worker| {
            let (generator, in_process) = (generator.clone(), in_process.clone());
            std::thread::spawn(move || {
                let numbers = (worker..cases).step_by(threads as usize).filter(|number| number % REAL_EVERY != 0);
                run_in_process(&generator, numbers, &in_process);
            })
        })
        .collect();
    let progress = {
        let in_process = in_process.clone();
        std::thread::spawn(move || {
            let mut reported = 0;
            while Arc::strong_count(&in_process) > 2 {
                std::thread::sleep(std::time::Duration::from_millis(500));
                let tried = in_process.tried.load(Ordering::Relaxed);
                if tried - reported >= 50_000 {
                    reported = tried;
                    println!("{tried} of {cases} cases, {:.0} s", began.elapsed().as_secs_f64());
                }
            }
        })
    };
    let numbers = (0..cases).filter(|number| number % REAL_EVERY == 0);
    runtime.block_on(run_with_real_functions(&generator, &mut api, &user, numbers, &real));
    for worker in workers {
        worker.join().expect("no finding");
    }
    progress.join().expect("no panic");
    in_process.print("in process");
    real.print("real");
    println!("seed {seed}: {cases} cases in {:.0} s", began.elapsed().as_secs_f64());
}
