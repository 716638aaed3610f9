//! Tests of the front end in examples/nextjs: its types, TypeScript, ESLint, its build, and a person's tour in a browser
//! with `cargo xtask dev`, for each way in which it can send the credential. And of the copies that docs/rxdb keeps in two
//! browsers. `cargo xtask test front-end` installs the tools.
mod harness;

use harness::{Dev, free_port, new_folder};
use std::{
    collections::HashMap,
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command},
    time::{Duration, Instant},
};

/// Values of `TASKS_CREDENTIAL`: the cookie through the front end's host, or a bearer at the API's own host.
const CREDENTIALS: [&str; 3] = ["cookie", "session", "jwt"];
/// Maximum number of lines of the example's own TypeScript and CSS: it is there to be read.
const MAX_LINES: usize = 800;
/// Timeout of the front end's start, in seconds.
const START_TIMEOUT_S: u64 = 120;

fn folder(name: &str) -> PathBuf {
    let tools = std::env::var_os("FRONT_END").expect("run this with 'cargo xtask test front-end'");
    Path::new(&tools).join(name)
}

/// Runs a command in the copy of the example. Fails unless it succeeds.
fn run(arguments: &[&str], variables: &HashMap<String, String>) {
    let began = Instant::now();
    let status = command(arguments, variables).status().unwrap();
    assert!(status.success(), "{arguments:?} failed");
    println!("{arguments:?} took {:.1} s", began.elapsed().as_secs_f32());
}

fn command(arguments: &[&str], variables: &HashMap<String, String>) -> Command {
    let (program, arguments) = arguments.split_first().unwrap();
    let mut command = Command::new(program);
    command.args(arguments).envs(variables).env("NEXT_TELEMETRY_DISABLED", "1").current_dir(folder("example"));
    command
}

#[test]
fn the_committed_types_are_those_of_openapi_yaml() {
    let made = Path::new(env!("CARGO_TARGET_TMPDIR")).join("openapi.d.ts");
    let contract = concat!(env!("CARGO_MANIFEST_DIR"), "/../openapi.yaml");
    let program = "node_modules/openapi-typescript/bin/cli.js";
    run(&["node", program, contract, "--output", made.to_str().unwrap()], &HashMap::new());
    let committed = fs::read_to_string(folder("example/lib/openapi.d.ts")).unwrap();
    assert!(
        fs::read_to_string(made).unwrap() == committed,
        "examples/nextjs/lib/openapi.d.ts is old: 'npm run types' in examples/nextjs writes it anew"
    );
}

#[test]
fn the_example_can_be_read_in_a_quarter_of_an_hour() {
    let mut lines = 0;
    let mut folders = vec![folder("example")];
    while let Some(current) = folders.pop() {
        for entry in fs::read_dir(current).unwrap() {
            let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
            let is_ours = name != "openapi.d.ts" && name != "next-env.d.ts";
            if path.is_dir() && name != "node_modules" && name != ".next" {
                folders.push(path);
            } else if is_ours && path.extension().is_some_and(|kind| kind == "ts" || kind == "tsx" || kind == "css") {
                lines += fs::read_to_string(path).unwrap().lines().count();
            }
        }
    }
    println!("the example has {lines} lines of TypeScript and CSS");
    assert!((100..=MAX_LINES).contains(&lines), "{lines} lines, at most {MAX_LINES}");
}

#[test]
fn a_person_uses_every_function_with_each_credential() {
    let proxy_port = free_port();
    let front_port = proxy_port + 1;
    let front_end = format!("http://localhost:{front_port}");
    let dev_folder = new_folder("front-end");
    let settings = [("BETTER_AUTH_URL", &*front_end), ("TRUSTED_ORIGINS", &*front_end)];
    let port = free_port();
    let mut dev = Dev::start(&dev_folder, port, &settings, &[]);
    let api = dev.environment()["TASKS_URL"].clone();
    let mut variables = env_local(&dev_folder.join("env.local"));
    assert_eq!((&variables["TASKS_API_URL"], &variables["BETTER_AUTH_URL"]), (&api, &front_end));
    // The browser test takes the API away by its proxy. To a browser, 127.0.0.1 is another site than localhost.
    variables.insert("TASKS_API_URL".to_owned(), format!("http://127.0.0.1:{proxy_port}"));
    the_adapter_in_the_documentation_works(&dev.environment());
    run(&["npm", "run", "check"], &variables);
    run(&["npm", "run", "build"], &variables);

    // The front end makes the table of the keys with which it signs JWTs. The API finds it when it migrates once more.
    let mut with_tables = variables.clone();
    with_tables.extend(
        [("AUTH_MIGRATE", "true"), ("TASKS_CREDENTIAL", "jwt")].map(|(name, value)| (name.into(), value.into())),
    );
    let server = Server::start(front_port, &with_tables);
    let keys =
        format!("const {{ status }} = await fetch('{front_end}/api/auth/jwks'); if (status !== 200) throw status;");
    run(&["node", "--input-type=module", "--eval", &keys], &variables);
    drop(server);
    dev.stop();
    let mut dev = Dev::start(&dev_folder, port, &settings, &[]);
    assert_eq!(dev.environment()["TASKS_URL"], api);

    let pictures = new_folder("front-end-pictures");
    for credential in CREDENTIALS {
        variables.insert("TASKS_CREDENTIAL".to_owned(), credential.to_owned());
        let _server = Server::start(front_port, &variables);
        let pictures = pictures.join(credential);
        fs::create_dir_all(&pictures).unwrap();
        let status = Command::new("node")
            .arg("browser-test.mjs")
            .current_dir(folder("test"))
            .envs([("FRONT_END", &*front_end), ("API", &*api), ("CREDENTIAL", credential)])
            .env("PROXY_PORT", proxy_port.to_string())
            .env("PICTURES", &pictures)
            .status()
            .unwrap();
        assert!(status.success(), "{credential}: pictures of the failure are in {}", pictures.display());
    }
    dev.stop();
}

#[test]
fn two_browsers_copies_end_with_the_same_list_after_one_was_offline() {
    let page = format!("http://localhost:{}", free_port());
    let settings = [("BETTER_AUTH_URL", &*page), ("TRUSTED_ORIGINS", &*page)];
    let mut dev = Dev::start(&new_folder("sync"), free_port(), &settings, &[]);
    let env = dev.environment();
    let pictures = new_folder("sync-pictures");
    fs::create_dir_all(&pictures).unwrap();
    let status = Command::new("node")
        .arg("sync-test.mjs")
        .current_dir(folder("test"))
        .envs([("FRONT_END", &*page), ("API", &*env["TASKS_URL"]), ("TOKEN", &*env["TASKS_TOKEN"])])
        .env("REPLICATION", concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/rxdb/tasks.js"))
        .env("PICTURES", &pictures)
        .status()
        .unwrap();
    assert!(status.success(), "the two copies differ");
    dev.stop();
}

/// Runs the adapter of docs/front-ends.md, as it is printed, with a session of `cargo xtask dev`.
fn the_adapter_in_the_documentation_works(env: &HashMap<String, String>) {
    let page = include_str!("../../docs/front-ends.md");
    let (_, block) = page.split_once("```js\n// lib/tasks-adapter.js\n").unwrap();
    let (module, _) = block.split_once("```").unwrap();
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tasks-adapter.mjs");
    fs::write(&file, format!("{module}{ADAPTER_TEST}")).unwrap();
    assert!(Command::new("node").arg(file).envs(env).status().unwrap().success());
}

const ADAPTER_TEST: &str = r#"
import assert from "node:assert/strict";
const { TASKS_URL, TASKS_TOKEN } = process.env;
const headers = { Authorization: `Bearer ${TASKS_TOKEN}` };
const made = await call(`${TASKS_URL}/api/tasks`, { method: "POST", headers, body: { title: "From an older front end" } });
assert.equal(made.is_completed, false);
const changed = await call(`${TASKS_URL}/api/tasks/${made.id}`, { method: "PUT", headers, body: { is_completed: true } });
assert.equal(changed.is_completed, true);
const { tasks } = await call(`${TASKS_URL}/api/tasks?status=completed`, { headers });
assert.ok(tasks.some((task) => task.id === made.id && task.is_completed));
assert.equal(await call(`${TASKS_URL}/api/tasks/${made.id}`, { method: "DELETE", headers }), null);
await assert.rejects(call(`${TASKS_URL}/api/tasks`, { method: "POST", headers, body: { title: "" } }), /title must not be empty/);
"#;

/// Reads the file that `cargo xtask dev` writes for a front end.
fn env_local(file: &Path) -> HashMap<String, String> {
    let text = fs::read_to_string(file).unwrap();
    let pairs = text.lines().map(|line| line.split_once('=').unwrap());
    pairs.map(|(name, value)| (name.to_owned(), value.trim_matches('\'').to_owned())).collect()
}

/// A running `next start`.
struct Server(Child);

impl Server {
    fn start(port: u16, variables: &HashMap<String, String>) -> Self {
        assert!(TcpListener::bind(("127.0.0.1", port)).is_ok(), "the server before it has ended");
        let port_text = port.to_string();
        let mut server =
            command(&["node", "node_modules/next/dist/bin/next", "start", "--port", &port_text], variables);
        let mut server = Self(server.spawn().unwrap());
        let until = Instant::now() + Duration::from_secs(START_TIMEOUT_S);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert_eq!(server.0.try_wait().unwrap(), None, "next start ended");
            assert!(Instant::now() < until, "next start does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
