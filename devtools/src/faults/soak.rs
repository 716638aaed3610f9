//! `cargo xtask soak`: many processes and clients read and write while the servers fail. Then every write is counted.
use crate::{
    checks::logs,
    faults::rig::{Call, Rig},
    servers::gateway::{Backend, Gateway, Watch},
    servers::watch::watch,
    system::build::build_functions,
    system::tools::{cargo_lambda, free_port},
};
use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::available_parallelism,
    time::{Duration, Instant},
};
use testing::{Database, Lambda, Network, OpenApi, Route, User};
use tokio::{
    sync::{Mutex, Semaphore},
    task::JoinSet,
    time::sleep,
};
use xtask::{cli::Soak, place::target, step};

/// Processes of the functions per core, and their maximum number.
const PROCESSES_PER_CORE: usize = 24;
const MAX_PROCESSES: usize = 200;
/// Number of clients that share a process.
const CLIENTS_PER_PROCESS: usize = 10;
/// Number of clients that call `cargo lambda watch`, and its maximum number of processes per function.
const WATCH_CLIENTS: usize = 16;
const WATCH_INSTANCES: usize = 4;
/// Number of users that the clients share.
const USERS: usize = 20;
/// The pooler's connections to the database.
const POOL_SIZE: u32 = 20;
/// Seconds from one fault to the next, and the duration of a fault that is not momentary.
const FAULT_EVERY_S: u64 = 12;
const FAULT_LASTS_S: u64 = 3;
/// Seconds after a fault in which the pooler may still be recovering.
const RECOVERY_S: u64 = 3;
/// Maximum number of attempts after 5xx answers, a second apart.
const MAX_ATTEMPTS: usize = 30;
/// Calls before the start value of a process's memory is measured.
const WARM_UP_CALLS: usize = 2_000;
/// Maximum memory growth of the process, in MB. It allows for the allocator, not for growth per call.
const MAX_GROWTH_MB: f64 = 1.0;

/// Relative number of processes per function.
const SHARES: [(&str, usize); 6] = [
    ("create-task", 6),
    ("complete-task", 5),
    ("get-task", 5),
    ("list-tasks", 3),
    ("update-task", 3),
    ("delete-task", 2),
];

/// Runs the load with faults, then many calls on one process, and writes target/soak/report.json. Fails if a write was
/// lost or doubled, a call failed outside a fault, or the process's memory or descriptors have grown.
pub async fn soak(options: &Soak) -> Result<()> {
    let folder = target().join("soak");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    let logs = folder.join("logs");
    fs::create_dir_all(&logs)?;
    testing::keep_logs_in(&logs.to_string_lossy());
    let binaries = build_functions().await?;
    let mut rig = Rig::start(&folder, POOL_SIZE, true, options.prepared).await?;
    let database = rig.database().await;
    let mut users = Vec::new();
    for number in 0..USERS {
        users.push(database.sign_up(&format!("u{number}")).await);
    }
    for statement in AUDIT {
        database.sql(statement, &[]).await;
    }
    let settings = settings(&rig, &database);
    let loaded = load(options, &mut rig, &database, &users, &binaries, &logs).await?;

    let calls = if options.quick { 20_000 } else { 100_000 };
    step(format!("One process for {calls} calls"));
    let (start, end) = drive_one(&binaries, &settings, &users[0], calls).await?;
    rig.check_prepared(&database).await?;
    let report = loaded.report(calls, &start, &end);
    let text = serde_json::to_string_pretty(&report)?;
    let file = folder.join("report.json");
    fs::write(&file, format!("{text}\n"))?;
    println!("{text}");
    for failure in loaded.unexpected.iter().take(10) {
        eprintln!("outside a fault: {failure}");
    }
    logs::check(&logs, &rig.cluster.secrets())?;
    if options.prepared {
        logs::check_still_prepared(&logs)?;
    }
    loaded.check(&file)?;
    if end.rss_mb > start.rss_mb + MAX_GROWTH_MB || end.fds > start.fds {
        bail!("the memory or the file descriptors of the process have grown: see {}", file.display());
    }
    Ok(())
}

/// The results of the load.
struct LoadResults {
    calls: u64,
    processes: usize,
    clients: usize,
    faults: usize,
    found: Found,
    /// Number of calls that failed during a fault.
    failed_in_faults: usize,
    /// Descriptions of the calls that failed outside a fault.
    unexpected: Vec<String>,
}

impl LoadResults {
    fn report(&self, calls_of_one: usize, start: &Usage, end: &Usage) -> Value {
        json!({
            "calls": self.calls,
            "faults": self.faults,
            "processes": self.processes,
            "clients": self.clients,
            "acknowledged_writes": self.found.acknowledged,
            "found_once": self.found.once,
            "lost": self.found.lost,
            "doubled": self.found.doubled,
            "not_sent": self.found.not_sent,
            "ambiguous_writes": self.found.ambiguous,
            "failed_in_faults": self.failed_in_faults,
            "unexpected_5xx": self.unexpected.len(),
            "calls_of_one_process": calls_of_one,
            "rss_mb_start": start.rss_mb,
            "rss_mb_end": end.rss_mb,
            "fds_start": start.fds,
            "fds_end": end.fds,
        })
    }

    fn check(&self, report: &Path) -> Result<()> {
        let found = &self.found;
        if found.lost + found.doubled + found.not_sent > 0 || !self.unexpected.is_empty() {
            let report = report.display();
            bail!("writes are lost, doubled or were never sent, or calls failed outside a fault: see {report}");
        }
        if found.acknowledged == 0 || self.faults == 0 {
            bail!("no write was acknowledged, or no fault happened: this run proves nothing");
        }
        Ok(())
    }
}

/// Runs the clients and the faults, then looks for each write.
async fn load(
    options: &Soak,
    rig: &mut Rig,
    database: &Database,
    users: &[User],
    binaries: &Path,
    logs: &Path,
) -> Result<LoadResults> {
    let cores = available_parallelism()?.get();
    let processes = options.processes.unwrap_or((cores * PROCESSES_PER_CORE).min(MAX_PROCESSES));
    let settings = settings(rig, database);
    step(format!("Starting {processes} processes of the functions"));
    let fleet = Arc::new(Fleet::start(binaries, processes, &settings).await?);
    let (watch_port, port) = (free_port()?, free_port()?);
    let watched: BTreeMap<_, _> = settings.into_iter().collect();
    let output = fs::File::create(logs.join("watch"))?;
    let watch = watch(&cargo_lambda().await?, watch_port, WATCH_INSTANCES, &watched, output.into()).await?;
    let _gateway = Gateway::start(port, Backend::Watch(Watch::on(watch_port)?), "").await?;
    let gateway = GatewayClient { client: reqwest::Client::new(), url: format!("http://127.0.0.1:{port}") };
    gateway.wait_until_ready(&users[0]).await?;

    let load = Arc::new(Load {
        ends_at: Instant::now() + Duration::from_secs(if options.quick { 60 } else { 600 }),
        calls: AtomicU64::new(0),
        failures: Mutex::new(Vec::new()),
    });
    let fleet_clients = processes * CLIENTS_PER_PROCESS;
    let clients = fleet_clients + WATCH_CLIENTS;
    step(format!("{fleet_clients} clients of the processes, {WATCH_CLIENTS} of cargo lambda watch"));
    let mut running = JoinSet::new();
    for number in 0..clients {
        let api = if number < fleet_clients { Api::Fleet(fleet.clone()) } else { Api::Gateway(gateway.clone()) };
        let user = users[number % USERS].clone();
        let client = Client { number, api, user, load: load.clone(), tasks: Vec::new(), sent: Sent::default() };
        running.spawn(client.run());
    }
    let faults = inject_faults(rig, database, &load).await?;
    let mut sent = Sent::default();
    while let Some(client) = running.join_next().await {
        sent.add(client??);
    }
    rig.wait_until_reachable(database).await?;
    sleep(Duration::from_secs(2)).await;

    step("Looking for each write");
    let found = sent.compare(database).await;
    drop((fleet, watch));
    let failures = load.failures.lock().await;
    let unexpected: Vec<_> =
        failures.iter().filter(|failure| !failure.is_during(&faults)).map(|failure| failure.what.clone()).collect();
    let failed_in_faults = failures.len() - unexpected.len();
    let calls = load.calls.load(Ordering::Relaxed);
    Ok(LoadResults { calls, processes, clients, faults: faults.len(), found, failed_in_faults, unexpected })
}

/// Creates a trigger that records every write.
const AUDIT: [&str; 3] = [
    "create table audit (operation text not null, task_id integer not null, title text not null, is_toggled boolean not null)",
    "create function audit() returns trigger language plpgsql security definer as $$ begin
        insert into public.audit values (tg_op, coalesce(new.id, old.id), coalesce(new.title, old.title),
            tg_op = 'UPDATE' and new.completed <> old.completed);
        return null;
    end $$",
    "create trigger audit after insert or update or delete on tasks for each row execute function audit()",
];

fn settings(rig: &Rig, database: &Database) -> Vec<(String, String)> {
    let mut settings = rig.settings(&database.api_url());
    // Few users write as much as many would.
    settings.push(("MAX_TASKS_PER_USER".to_owned(), i32::MAX.to_string()));
    settings
}

/// Processes of each function. Like on Lambda, a process handles one request at a time.
struct Fleet {
    openapi: OpenApi,
    functions: HashMap<String, (Semaphore, Mutex<Vec<Lambda>>)>,
}

impl Fleet {
    async fn start(binaries: &Path, processes: usize, settings: &[(String, String)]) -> Result<Self> {
        let shares: usize = SHARES.iter().map(|(_, share)| share).sum();
        let mut functions = HashMap::new();
        for (name, share) in SHARES {
            let mut idle = Vec::new();
            for _ in 0..(processes * share / shares).max(1) {
                idle.push(Lambda::start(&binaries.join(name).to_string_lossy(), settings).await);
            }
            functions.insert(name.to_owned(), (Semaphore::new(idle.len()), Mutex::new(idle)));
        }
        Ok(Self { openapi: OpenApi::read()?, functions })
    }

    async fn call(&self, call: &Call, token: &str) -> Result<Value> {
        let (function, event) = call.event(&self.openapi, token)?;
        let (free, idle) = self.functions.get(&function).context("a function of the fleet")?;
        let _permit = free.acquire().await?;
        let mut lambda = idle.lock().await.pop().context("an idle process")?;
        let answer = lambda.invoke(event).await;
        idle.lock().await.push(lambda);
        Ok(answer)
    }
}

/// Calls `cargo lambda watch` through the local gateway.
#[derive(Clone)]
struct GatewayClient {
    client: reqwest::Client,
    url: String,
}

impl GatewayClient {
    async fn call(&self, call: &Call, token: &str) -> Result<(u64, Value, Option<String>)> {
        let mut request =
            self.client.request(call.method.parse()?, format!("{}{}", self.url, call.path)).bearer_auth(token);
        for (name, value) in call.headers() {
            request = request.header(name, value);
        }
        if let Some(body) = &call.body {
            request = request.json(body);
        }
        let answer = request.send().await?;
        let status = answer.status().as_u16().into();
        let etag = answer.headers().get("etag").and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok((status, serde_json::from_str(&answer.text().await?).unwrap_or_default(), etag))
    }

    /// Calls each function that the clients use, until it answers: it may still be starting.
    async fn wait_until_ready(&self, user: &User) -> Result<()> {
        let until = Instant::now() + Duration::from_secs(300);
        let openapi = OpenApi::read()?;
        let is_called = |route: &&Route| SHARES.iter().any(|(name, _)| *name == route.function) && !route.names_user();
        for route in openapi.routes.iter().filter(is_called) {
            // An invalid body, so that nothing is written.
            let body = route.body.as_ref().map(|_| json!({"title": 1}));
            let path = route.path_and_query(&user.id, "0");
            let call = Call { method: route.method.clone(), path, body, ..Call::default() };
            while !matches!(self.call(&call, &user.token).await, Ok((200 | 404 | 422, ..))) {
                if Instant::now() > until {
                    bail!("cargo lambda watch does not answer {route}");
                }
                sleep(Duration::from_millis(500)).await;
            }
        }
        Ok(())
    }
}

enum Api {
    Fleet(Arc<Fleet>),
    Gateway(GatewayClient),
}

/// Shared by all clients.
struct Load {
    ends_at: Instant,
    calls: AtomicU64,
    failures: Mutex<Vec<Failure>>,
}

/// A call with a 5xx answer.
struct Failure {
    sent: Instant,
    answered: Instant,
    what: String,
}

impl Failure {
    /// Whether the call overlaps a fault.
    fn is_during(&self, faults: &[(Instant, Instant)]) -> bool {
        faults.iter().any(|(begin, end)| self.sent <= *end && self.answered >= *begin)
    }
}

/// Injects faults one after the other until the load ends, and returns their begin and end times.
async fn inject_faults(rig: &mut Rig, database: &Database, load: &Load) -> Result<Vec<(Instant, Instant)>> {
    let mut faults = Vec::new();
    let lasting = Duration::from_secs(FAULT_LASTS_S);
    loop {
        sleep(Duration::from_secs(FAULT_EVERY_S).saturating_sub(lasting)).await;
        let begin = Instant::now();
        if begin + Duration::from_secs(FAULT_EVERY_S) > load.ends_at {
            sleep(load.ends_at.saturating_duration_since(begin)).await;
            return Ok(faults);
        }
        let name = match faults.len() % 5 {
            0 => {
                let all = "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'tasks_api'";
                database.sql(all, &[]).await;
                "all backends killed"
            }
            1 => {
                rig.cluster.pooler.restart().await?;
                "pooler restarted"
            }
            2 => {
                rig.proxy.set(Network::CutsAnswers);
                sleep(lasting).await;
                rig.proxy.set(Network::Whole);
                "answers cut"
            }
            3 => {
                rig.cluster.pooler.signal(Signal::SIGSTOP);
                sleep(lasting).await;
                rig.cluster.pooler.signal(Signal::SIGCONT);
                "pooler stopped"
            }
            _ => {
                rig.proxy.set(Network::Lossy);
                sleep(lasting).await;
                rig.proxy.set(Network::Whole);
                rig.proxy.close_all().await;
                "packets lost"
            }
        };
        rig.wait_until_reachable(database).await?;
        faults.push((begin, Instant::now() + Duration::from_secs(RECOVERY_S)));
        let left = load.ends_at.saturating_duration_since(Instant::now()).as_secs();
        let (calls, failures) = (load.calls.load(Ordering::Relaxed), load.failures.lock().await.len());
        step(format!("{calls} calls, {failures} of them answered 5xx, {left} s left; fault {}: {name}", faults.len()));
    }
}

/// A client that sends one request after the other, on its own tasks. It retries failed calls if a retry is safe.
struct Client {
    number: usize,
    api: Api,
    user: User,
    load: Arc<Load>,
    tasks: Vec<i64>,
    sent: Sent,
}

struct Answer {
    status: u64,
    body: Value,
    etag: Option<String>,
}

impl Client {
    async fn run(mut self) -> Result<Sent> {
        let mut turn = self.number;
        while Instant::now() < self.load.ends_at {
            turn += 1;
            let title = format!("{}-{turn}", self.number);
            let task = self.tasks.get(turn % self.tasks.len().max(1)).copied();
            match (turn % 10, task) {
                (0 | 1, _) | (_, None) => self.create(title, true).await?,
                (2, _) => self.create(title, false).await?,
                (3 | 4, Some(task)) => drop(self.call(&task_call("GET", task)).await?),
                (5, _) => drop(
                    self.call(&Call { method: "GET".to_owned(), path: "/api/tasks".to_owned(), ..Call::default() })
                        .await?,
                ),
                (6, Some(task)) => self.update(task, title).await?,
                (7 | 8, Some(task)) => self.toggle(task).await?,
                (_, Some(task)) => self.delete(task).await?,
            }
        }
        Ok(self.sent)
    }

    async fn create(&mut self, title: String, has_key: bool) -> Result<()> {
        let call = Call {
            method: "POST".to_owned(),
            path: "/api/tasks".to_owned(),
            idempotency_key: has_key.then(|| title.clone()),
            body: Some(json!({"title": title})),
            ..Call::default()
        };
        let (answer, _) = if has_key { self.call_with_retries(&call).await? } else { (self.call(&call).await?, false) };
        if answer.status == 201 {
            self.tasks.extend(answer.body["id"].as_i64());
        }
        self.sent.created.insert(title, answer.status == 201);
        Ok(())
    }

    /// Changes a task's title with `If-Match`, so that a retry is safe.
    async fn update(&mut self, task: i64, title: String) -> Result<()> {
        let (seen, _) = self.call_with_retries(&task_call("GET", task)).await?;
        let Some(etag) = seen.etag else { return Ok(()) };
        let call = Call { if_match: Some(etag), body: Some(json!({"title": title})), ..task_call("PUT", task) };
        let (answer, was_retried) = self.call_with_retries(&call).await?;
        let mut is_done = answer.status == 200;
        if answer.status == 412 && was_retried {
            // An earlier attempt was written, or a late write of a change before it.
            is_done = self.call_with_retries(&task_call("GET", task)).await?.0.body["title"] == title;
        }
        self.sent.updated.insert(title, is_done);
        Ok(())
    }

    async fn toggle(&mut self, task: i64) -> Result<()> {
        let call = Call { path: format!("/api/tasks/{task}/complete"), ..task_call("PATCH", task) };
        let is_done = self.call(&call).await?.status == 200;
        let (acknowledged, ambiguous) = self.sent.toggled.entry(task).or_default();
        *if is_done { acknowledged } else { ambiguous } += 1;
        Ok(())
    }

    async fn delete(&mut self, task: i64) -> Result<()> {
        let (answer, was_retried) = self.call_with_retries(&task_call("DELETE", task)).await?;
        if answer.status == 404 && !was_retried {
            bail!("a task of client {} is not found when it is deleted", self.number);
        }
        self.tasks.retain(|known| *known != task);
        self.sent.deleted.insert(task, matches!(answer.status, 204 | 404));
        Ok(())
    }

    /// Sends a call until the answer is not 5xx. The second value is whether that took more than one attempt.
    async fn call_with_retries(&self, call: &Call) -> Result<(Answer, bool)> {
        let mut was_retried = false;
        for _ in 0..MAX_ATTEMPTS {
            let answer = self.call(call).await?;
            if answer.status < 500 {
                return Ok((answer, was_retried));
            }
            was_retried = true;
            sleep(Duration::from_secs(1)).await;
        }
        bail!("{} {} fails {MAX_ATTEMPTS} times", call.method, call.path)
    }

    async fn call(&self, call: &Call) -> Result<Answer> {
        let sent = Instant::now();
        let answer = match &self.api {
            Api::Fleet(fleet) => {
                let answer = fleet.call(call, &self.user.token).await?;
                Answer {
                    status: answer["statusCode"].as_u64().unwrap_or_default(),
                    body: serde_json::from_str(answer["body"].as_str().unwrap_or_default()).unwrap_or_default(),
                    etag: answer["headers"]["etag"].as_str().map(str::to_owned),
                }
            }
            Api::Gateway(gateway) => {
                let (status, body, etag) = gateway.call(call, &self.user.token).await?;
                Answer { status, body, etag }
            }
        };
        self.load.calls.fetch_add(1, Ordering::Relaxed);
        if answer.status >= 500 {
            let what = format!("{} {}: {} {}", call.method, call.path, answer.status, answer.body);
            self.load.failures.lock().await.push(Failure { sent, answered: Instant::now(), what });
        }
        Ok(answer)
    }
}

fn task_call(method: &str, task: i64) -> Call {
    Call { method: method.to_owned(), path: format!("/api/tasks/{task}"), ..Call::default() }
}

/// The writes that were sent, and whether they were acknowledged. Titles are unique.
#[derive(Default)]
struct Sent {
    created: HashMap<String, bool>,
    updated: HashMap<String, bool>,
    deleted: HashMap<i64, bool>,
    /// Per task: the number of acknowledged toggles, and of the others.
    toggled: HashMap<i64, (u64, u64)>,
}

/// The writes that were found in the database, as counts.
#[derive(Default)]
struct Found {
    acknowledged: u64,
    once: u64,
    lost: u64,
    doubled: u64,
    not_sent: u64,
    ambiguous: u64,
}

impl Sent {
    fn add(&mut self, other: Self) {
        self.created.extend(other.created);
        self.updated.extend(other.updated);
        self.deleted.extend(other.deleted);
        self.toggled.extend(other.toggled);
    }

    async fn compare(&self, database: &Database) -> Found {
        let (mut created, mut updated) = (HashMap::<String, u64>::new(), HashMap::<String, u64>::new());
        let (mut deleted, mut toggled) = (HashMap::<i64, u64>::new(), HashMap::<i64, u64>::new());
        for row in database.sql("select operation, task_id::bigint, title, is_toggled from audit", &[]).await {
            let (task, title) = (row.get("task_id"), row.get("title"));
            match (row.get("operation"), row.get("is_toggled")) {
                ("INSERT", _) => *created.entry(title).or_default() += 1,
                ("DELETE", _) => *deleted.entry(task).or_default() += 1,
                (_, true) => *toggled.entry(task).or_default() += 1,
                (_, false) => *updated.entry(title).or_default() += 1,
            }
        }
        let mut found = Found::default();
        for (title, is_acknowledged) in &self.created {
            found.count(created.remove(title), u64::from(*is_acknowledged), u64::from(!is_acknowledged));
        }
        for (title, is_acknowledged) in &self.updated {
            found.count(updated.remove(title), u64::from(*is_acknowledged), u64::from(!is_acknowledged));
        }
        for (task, is_acknowledged) in &self.deleted {
            found.count(deleted.remove(task), u64::from(*is_acknowledged), u64::from(!is_acknowledged));
        }
        for (task, (acknowledged, ambiguous)) in &self.toggled {
            found.count(toggled.remove(task), *acknowledged, *ambiguous);
        }
        let rest = created.values().chain(updated.values()).chain(deleted.values()).chain(toggled.values());
        found.not_sent = rest.sum();
        found
    }
}

impl Found {
    /// Adds `written` writes in the database, out of those that were acknowledged and those whose outcome is unknown.
    fn count(&mut self, written: Option<u64>, acknowledged: u64, ambiguous: u64) {
        let written = written.unwrap_or_default();
        let lost = acknowledged.saturating_sub(written);
        let doubled = written.saturating_sub(acknowledged + ambiguous);
        self.acknowledged += acknowledged;
        self.ambiguous += ambiguous;
        self.lost += lost;
        self.doubled += doubled;
        self.once += acknowledged.saturating_sub(lost).saturating_sub(doubled);
    }
}

/// A process's resource usage.
struct Usage {
    rss_mb: f64,
    fds: usize,
}

impl Usage {
    fn read(process: u32) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        let kb: f64 = rss.trim().trim_end_matches(" kB").parse()?;
        Ok(Self { rss_mb: (kb / 102.4).round() / 10.0, fds: fs::read_dir(format!("/proc/{process}/fd"))?.count() })
    }
}

/// Calls one process repeatedly, for a user's list. Returns its usage after the warm-up and at the end.
async fn drive_one(
    binaries: &Path,
    settings: &[(String, String)],
    user: &User,
    calls: usize,
) -> Result<(Usage, Usage)> {
    let openapi = OpenApi::read()?;
    let mut lambda = Lambda::start(&binaries.join("list-tasks").to_string_lossy(), settings).await;
    let call = Call { method: "GET".to_owned(), path: "/api/tasks".to_owned(), ..Call::default() };
    let (_, event) = call.event(&openapi, &user.token)?;
    let mut start = None;
    for number in 0..calls {
        if number == WARM_UP_CALLS {
            start = Some(Usage::read(lambda.process_id())?);
        }
        let answer = lambda.invoke(event.clone()).await;
        if answer["statusCode"] != 200 {
            bail!("call {number} of one process returned {answer}");
        }
        if number % 10_000 == 9_999 {
            step(format!("{} calls", number + 1));
        }
    }
    Ok((start.context("there are too few calls for the warm-up")?, Usage::read(lambda.process_id())?))
}
