//! The fault matrix: every [`Fault`] between a function and its database, in every [`State`] of the function, for every
//! [`Operation`]. Checks the client's answer, its latency, and the writes in the database.
use crate::{
    checks::logs,
    faults::rig::{Call, Rig},
    system::build::build_functions,
    system::tools::find_or_install,
};
use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};
use testing::{Client, Database, Lambda, Network, OpenApi};
use tokio::{
    sync::Mutex,
    task::JoinHandle,
    time::{sleep, sleep_until},
};
use xtask::{place::target, step};

/// Maximum latency, in seconds: 19 by the constants of shared/src/database.rs, plus one for a busy machine.
const MAX_LATENCY_S: u64 = 20;
/// Duration of a freeze, in seconds. It exceeds the idle time after which a connection is tested before it is used.
const FROZEN_S: u64 = 62;
/// Seconds after the fault until the lock is released that blocks a statement in flight.
const LOCK_HELD_S: u64 = 2;
/// Seconds that the sleeping database takes to wake up.
const WAKE_UP_S: u64 = 5;
/// The pooler's connections per database.
const POOL_SIZE: u32 = 4;
/// Number of faults that run at a time. Each has its own servers.
const PARALLEL_FAULTS: usize = 7;
/// The database's host name, for [`Fault::NameUnknown`].
const HOST: &str = "database.test";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Fault {
    BackendKilled,
    AllBackendsKilled,
    PoolerRestarted,
    PoolerStopped,
    PacketsLost,
    AnswerCut,
    DatabaseRestarted,
    ReadOnly,
    OutOfConnections,
    PoolFull,
    NameUnknown,
    CertificateChanged,
    WakeUp,
}

/// What the function does when the fault begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Frozen,
    Idle,
    InFlight,
}

/// The client's request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Read,
    Create,
    CreateOnce,
    Update,
    Toggle,
    Delete,
}

const STATES: [State; 3] = [State::Frozen, State::Idle, State::InFlight];
const OPERATIONS: [Operation; 6] = [
    Operation::Read,
    Operation::Create,
    Operation::CreateOnce,
    Operation::Update,
    Operation::Toggle,
    Operation::Delete,
];

/// Runs all faults, or those whose name contains `filter`. Prints the matrix, and fails if a cell has a problem. `prepares` is
/// whether the functions prepare statements.
pub async fn faults(filter: Option<&str>, prepares: bool) -> Result<()> {
    let folder = target().join("faults");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    let logs = folder.join("logs");
    fs::create_dir_all(&logs)?;
    testing::keep_logs_in(&logs.to_string_lossy());
    let bench = Bench {
        binaries: build_functions().await?,
        nss_wrapper: nss_wrapper().await?,
        openapi: OpenApi::read()?,
        starting: Mutex::new(()),
        prepares,
        folder,
    };

    let chosen: Vec<_> = Fault::value_variants()
        .iter()
        .copied()
        .filter(|fault| filter.is_none_or(|it| fault.id().contains(it)))
        .collect();
    let tried: Vec<(Fault, Vec<Line>)> = stream::iter(chosen)
        .map(|fault| bench.try_fault(fault).map(move |lines| (fault, lines.unwrap_or_else(Line::from_error))))
        .buffered(PARALLEL_FAULTS)
        .collect()
        .await;
    print(&tried);
    logs::check(&logs, &[])?;
    if prepares {
        logs::check_still_prepared(&logs)?;
    }
    let problems: Vec<_> = tried.iter().flat_map(|(_, rows)| rows).flat_map(|row| &row.problems).collect();
    if !problems.is_empty() {
        bail!(
            "{} problems:\n{}",
            problems.len(),
            problems.iter().map(|it| format!("  {it}")).collect::<Vec<_>>().join("\n")
        );
    }
    Ok(())
}

/// Shared by all faults.
struct Bench {
    folder: PathBuf,
    binaries: PathBuf,
    /// The library that resolves host names by a file.
    nss_wrapper: PathBuf,
    openapi: OpenApi,
    /// Held while servers start, so that no two pick the same free port.
    starting: Mutex<()>,
    /// Whether the functions prepare statements.
    prepares: bool,
}

/// The matrix line of one state.
struct Line {
    state: State,
    /// A text per operation, or why the state was not tried.
    cells: Result<Vec<String>, &'static str>,
    problems: Vec<String>,
}

impl Line {
    /// The line of a fault whose test failed to run.
    fn from_error(error: anyhow::Error) -> Vec<Self> {
        vec![Self { state: State::Idle, cells: Err("was not tried"), problems: vec![format!("{error:#}")] }]
    }
}

impl Bench {
    async fn try_fault(&self, fault: Fault) -> Result<Vec<Line>> {
        let folder = self.folder.join(fault.id());
        let starting = self.starting.lock().await;
        step(format!("Trying: {}", fault.title()));
        let mut rig = Rig::start(&folder, POOL_SIZE, fault != Fault::BackendKilled, self.prepares).await?;
        drop(starting);
        let hosts = folder.join("hosts");
        if fault == Fault::NameUnknown {
            fs::write(&hosts, format!("127.0.0.1 {HOST}\n"))?;
            let named = rcgen::generate_simple_self_signed([HOST.to_owned()])?;
            fs::write(hosts.with_extension("crt"), named.cert.pem())?;
            rig.cluster
                .pooler
                .set_certificate(named.cert.pem().as_bytes(), named.signing_key.serialize_pem().as_bytes())?;
            rig.cluster.pooler.restart().await?;
        }

        let mut cells = Vec::new();
        for state in STATES.into_iter().filter(|state| fault.not_applicable(*state).is_none()) {
            for operation in OPERATIONS {
                let cell = Cell::start(self, &rig, &hosts, fault, state, operation).await?;
                if cells.is_empty() {
                    rig.check_prepared(&cell.database).await?;
                }
                cells.push(cell);
            }
        }
        for cell in &mut cells {
            match cell.state {
                State::InFlight => cell.hold(&self.openapi).await?,
                State::Frozen => cell.freeze(),
                State::Idle => {}
            }
        }
        self.call_during(fault, &mut rig, &mut cells, &hosts).await?;
        self.call_after(fault, &mut rig, &mut cells, &hosts).await?;
        let lines = judge(fault, &cells).await;
        logs::check(&self.folder.join("logs"), &rig.cluster.secrets())?;
        drop(cells);
        tokio::task::block_in_place(|| drop(rig));
        fs::remove_dir_all(folder)?;
        Ok(lines)
    }

    /// Begins the fault and makes the first calls.
    async fn call_during(&self, fault: Fault, rig: &mut Rig, cells: &mut [Cell], hosts: &Path) -> Result<()> {
        let thaw_at = tokio::time::Instant::now() + Duration::from_secs(FROZEN_S);
        fault.begin(rig, cells, hosts).await?;
        if fault.is_momentary() {
            for cell in &*cells {
                rig.wait_until_reachable(&cell.database).await?;
            }
        }
        for cell in cells.iter_mut().filter(|cell| cell.state == State::Idle) {
            cell.call(&self.openapi, cell.first())?;
        }
        sleep(Duration::from_secs(LOCK_HELD_S)).await;
        for cell in cells.iter_mut().filter(|cell| cell.state == State::InFlight) {
            cell.database.sql("rollback", &[]).await;
        }
        for cell in cells.iter_mut().filter(|cell| cell.state != State::Frozen) {
            cell.answered().await?;
        }
        if cells.iter().any(|cell| cell.state == State::Frozen) {
            sleep_until(thaw_at).await;
            if fault == Fault::WakeUp {
                // The calls of the other states have woken the database.
                fault.begin(rig, cells, hosts).await?;
            }
            for cell in cells.iter_mut().filter(|cell| cell.state == State::Frozen) {
                cell.thaw();
                cell.call(&self.openapi, cell.first())?;
            }
            for cell in cells.iter_mut().filter(|cell| cell.state == State::Frozen) {
                cell.answered().await?;
            }
        }
        Ok(())
    }

    /// Ends the fault and makes the second calls.
    async fn call_after(&self, fault: Fault, rig: &mut Rig, cells: &mut [Cell], hosts: &Path) -> Result<()> {
        fault.end(rig, cells, hosts).await?;
        for cell in &*cells {
            rig.wait_until_reachable(&cell.database).await?;
        }
        // Let late writes of the first calls finish.
        sleep(Duration::from_millis(500)).await;
        for cell in &mut *cells {
            cell.writes_before = cell.writes().await.len();
            cell.call(&self.openapi, cell.second())?;
        }
        for cell in cells {
            cell.answered().await?;
        }
        sleep(Duration::from_secs(1)).await;
        Ok(())
    }
}

/// Occupies all of the pooler's server connections.
async fn fill_pools(rig: &Rig, cells: &mut [Cell]) -> Result<()> {
    for cell in cells {
        for _ in 0..POOL_SIZE {
            let other = rig.client(&cell.database).await?;
            other.batch_execute("begin; set local idle_in_transaction_session_timeout = 0").await?;
            cell.others.push(other);
        }
    }
    Ok(())
}

/// Returns a matrix line for each state.
async fn judge(fault: Fault, cells: &[Cell]) -> Vec<Line> {
    let mut lines = Vec::new();
    for state in STATES {
        if let Some(reason) = fault.not_applicable(state) {
            lines.push(Line { state, cells: Err(reason), problems: Vec::new() });
            continue;
        }
        let (mut texts, mut problems) = (Vec::new(), Vec::new());
        for cell in cells.iter().filter(|cell| cell.state == state) {
            let (text, wrong) = cell.judge().await;
            let cell_name = format!("{}, {}, {}", fault.title(), state.title(), cell.operation.title());
            problems.extend(wrong.into_iter().map(|wrong| format!("{cell_name}: {wrong} ({text})")));
            texts.push(text);
        }
        lines.push(Line { state, cells: Ok(texts), problems });
    }
    lines
}

/// The environment of a cell's function.
fn settings(bench: &Bench, rig: &Rig, hosts: &Path, fault: Fault, mut url: String) -> Result<Vec<(String, String)>> {
    let mut names = Vec::new();
    if fault == Fault::NameUnknown {
        url = url.replace("@127.0.0.1:", &format!("@{HOST}:"));
        let (start, _) = url.split_once("sslrootcert=").context("a certificate in the URL")?;
        url = format!("{start}sslrootcert={}", hosts.with_extension("crt").display());
        names.push(("LD_PRELOAD".to_owned(), bench.nss_wrapper.display().to_string()));
        names.push(("NSS_WRAPPER_HOSTS".to_owned(), hosts.display().to_string()));
    }
    Ok(rig.settings(&url).into_iter().chain(names).collect())
}

/// One process of a function with its own database, for one operation in one state.
struct Cell {
    fault: Fault,
    state: State,
    operation: Operation,
    database: Database,
    token: String,
    task: i64,
    lambda: Option<Lambda>,
    pending: Option<JoinHandle<(Lambda, Answer)>>,
    answers: Vec<Answer>,
    /// Other clients of the cell's database.
    others: Vec<Client>,
    /// Number of writes before the second call.
    writes_before: usize,
}

/// A client's answer.
struct Answer {
    status: u64,
    waited: Duration,
    at: SystemTime,
    /// Whether the body is a problem document and there is a `Retry-After` header.
    is_problem: bool,
    body: Value,
}

impl Cell {
    async fn start(
        bench: &Bench,
        rig: &Rig,
        hosts: &Path,
        fault: Fault,
        state: State,
        operation: Operation,
    ) -> Result<Self> {
        let database = rig.database().await;
        let user = database.sign_up("ada").await;
        let task: i32 = database
            .sql("insert into tasks (user_id, title, completed, created_at, updated_at) values ($1, 'old', false, now(), now()) returning id", &[&user.id])
            .await[0]
            .get(0);
        for statement in [
            "create table audit (operation text not null, at timestamptz not null default clock_timestamp())",
            "create function audit() returns trigger language plpgsql security definer as
                $$ begin insert into public.audit (operation) values (tg_op); return null; end $$",
        ] {
            database.sql(statement, &[]).await;
        }
        let settings = settings(bench, rig, hosts, fault, database.api_url())?;
        let mut cell = Self {
            fault,
            state,
            operation,
            database,
            token: user.token,
            task: task.into(),
            lambda: None,
            pending: None,
            answers: Vec::new(),
            others: Vec::new(),
            writes_before: 0,
        };
        let (function, _) = cell.first().event(&bench.openapi, &cell.token)?;
        cell.lambda = Some(Lambda::start(&bench.binaries.join(function).to_string_lossy(), &settings).await);
        // A warm-up call: a frozen or idle process has answered before.
        let warm = Call { path: cell.first().path.replace(&task.to_string(), "0"), ..cell.first() };
        cell.call(&bench.openapi, Call { idempotency_key: None, ..warm })?;
        cell.answered().await?;
        let answer = cell.answers.pop().context("it has answered")?;
        if !matches!(answer.status, 201 | 404) {
            bail!("the warm-up call returned {}: {}", answer.status, answer.body);
        }
        let trigger =
            "create trigger audit after insert or update or delete on tasks for each row execute function audit()";
        cell.database.sql(trigger, &[]).await;
        Ok(cell)
    }

    /// The call during the fault.
    fn first(&self) -> Call {
        self.operation.call(self.task, "first")
    }

    /// The call after the fault. It repeats the first one, except that an update and a create without a key get another
    /// title.
    fn second(&self) -> Call {
        let title = if self.operation == Operation::CreateOnce { "first" } else { "second" };
        self.operation.call(self.task, title)
    }

    /// Sends a call to the function. [`Cell::answered`] waits for the answer.
    fn call(&mut self, openapi: &OpenApi, call: Call) -> Result<()> {
        let (_, event) = call.event(openapi, &self.token)?;
        let mut lambda = self.lambda.take().context("it is at work")?;
        self.pending = Some(tokio::spawn(async move {
            let began = Instant::now();
            let answer = lambda.invoke(event).await;
            let body = serde_json::from_str(answer["body"].as_str().unwrap_or_default()).unwrap_or_default();
            let header = |name: &str| answer["headers"][name].as_str();
            let answer = Answer {
                status: answer["statusCode"].as_u64().unwrap_or_default(),
                waited: began.elapsed(),
                at: SystemTime::now(),
                is_problem: header("content-type") == Some("application/problem+json")
                    && header("retry-after").is_some(),
                body,
            };
            (lambda, answer)
        }));
        Ok(())
    }

    /// Waits for the answer to the pending call.
    async fn answered(&mut self) -> Result<()> {
        let (lambda, answer) = self.pending.take().context("nothing was asked")?.await?;
        self.lambda = Some(lambda);
        self.answers.push(answer);
        Ok(())
    }

    /// Makes the first call and waits until its statement is blocked by our table lock.
    async fn hold(&mut self, openapi: &OpenApi) -> Result<()> {
        self.database.sql("begin", &[]).await;
        self.database.sql("lock table tasks in access exclusive mode", &[]).await;
        self.call(openapi, self.first())?;
        let waiting = "select count(*) from pg_locks where not granted and database = (select oid from pg_database where datname = current_database())";
        for _ in 0..500 {
            if self.database.number(waiting).await > 0 {
                return Ok(());
            }
            sleep(Duration::from_millis(10)).await;
        }
        bail!("the statement does not wait for the lock")
    }

    fn freeze(&self) {
        if let Some(lambda) = &self.lambda {
            lambda.freeze();
        }
    }

    fn thaw(&self) {
        if let Some(lambda) = &self.lambda {
            lambda.thaw();
        }
    }

    /// Returns the times of all writes to the tasks.
    async fn writes(&self) -> Vec<SystemTime> {
        self.database.sql("select at from audit order by at", &[]).await.iter().map(|row| row.get(0)).collect()
    }

    /// Returns the cell's text and its problems.
    async fn judge(&self) -> (String, Vec<String>) {
        let [first, second] = &*self.answers else {
            return (String::new(), vec!["there are not two answers".to_owned()]);
        };
        let writes = self.writes().await;
        let written = self.writes_before;
        let mut text = format!("{} in {}", first.status, seconds(first.waited));
        let mut wrong = Vec::new();
        let mut require = |holds: bool, what: &str| {
            if !holds {
                wrong.push(what.to_owned());
            }
        };

        let is_success = (200..300).contains(&first.status);
        require(is_success || first.status == 503, "neither a success nor 503");
        require(first.status != 503 || first.is_problem, "a 503 without a problem or Retry-After");
        require(first.waited <= Duration::from_secs(MAX_LATENCY_S), "waited for longer than the bound");
        require(is_success || !self.must_succeed(), "should have succeeded");
        if self.operation != Operation::Read {
            require(written <= 1, "written twice");
            require(!is_success || written == 1, "a success, but nothing was written");
            let is_late = writes.first().is_some_and(|at| written == 1 && *at > first.at);
            require(is_success || !is_late, "written after the client was told that it failed");
            text += &match (is_success, writes.first()) {
                (true, _) => String::new(),
                (false, Some(at)) if written == 1 => match at.duration_since(first.at) {
                    Ok(late) => format!(", written {} later", seconds(late)),
                    Err(_) => ", written".to_owned(),
                },
                (false, _) => ", not written".to_owned(),
            };
        }

        // The first call may have deleted the task without an acknowledgement. The second then returns 404.
        let is_gone = self.operation == Operation::Delete && written == 1 && second.status == 404;
        require(
            (200..300).contains(&second.status) || is_gone,
            &format!("the second call returned {} instead of a success: {}", second.status, second.body),
        );
        let once = matches!(self.operation, Operation::CreateOnce | Operation::Delete);
        let expected = match self.operation {
            Operation::Read => 0,
            _ if once => 1,
            _ => written + 1,
        };
        require(writes.len() == expected, &format!("{} writes in the end, expected {expected}", writes.len()));
        if self.operation == Operation::Toggle {
            // Every write toggles the task once.
            require(
                second.body["completed"] == (written == 0),
                "the task's completion does not match the number of toggles",
            );
        }
        if self.operation == Operation::Update {
            let title: String = self
                .database
                .sql("select title from tasks where id = $1", &[&i32::try_from(self.task).unwrap_or_default()])
                .await[0]
                .get(0);
            require(title == "second", "an earlier write has overwritten a later one");
        }
        (text, wrong)
    }

    /// Whether the first call must succeed: the fault has ended, or does not affect this operation.
    fn must_succeed(&self) -> bool {
        let is_reading = self.fault == Fault::ReadOnly && self.operation == Operation::Read;
        let is_unaffected =
            self.state == State::InFlight && matches!(self.fault, Fault::ReadOnly | Fault::OutOfConnections);
        let has_ended = self.state != State::InFlight && (self.fault.is_momentary() || self.fault == Fault::WakeUp);
        is_reading || is_unaffected || has_ended
    }
}

impl Operation {
    fn title(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Create => "create",
            Self::CreateOnce => "create with key",
            Self::Update => "update",
            Self::Toggle => "toggle",
            Self::Delete => "delete",
        }
    }

    fn call(self, task: i64, title: &str) -> Call {
        let task_path = format!("/api/tasks/{task}");
        let (method, path, body) = match self {
            Self::Read => ("GET", task_path, None),
            Self::Create | Self::CreateOnce => ("POST", "/api/tasks".to_owned(), Some(json!({"title": title}))),
            Self::Update => ("PUT", task_path, Some(json!({"title": title}))),
            Self::Toggle => ("PATCH", format!("{task_path}/complete"), None),
            Self::Delete => ("DELETE", task_path, None),
        };
        let idempotency_key = (self == Self::CreateOnce).then(|| "a-key".to_owned());
        Call { method: method.to_owned(), path, idempotency_key, body, ..Call::default() }
    }
}

impl State {
    fn title(self) -> &'static str {
        match self {
            Self::Frozen => "frozen",
            Self::Idle => "idle",
            Self::InFlight => "in flight",
        }
    }
}

impl Fault {
    fn id(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    fn title(self) -> &'static str {
        match self {
            Self::BackendKilled => "the connection's backend killed, without a pooler",
            Self::AllBackendsKilled => "all backends killed",
            Self::PoolerRestarted => "pooler restarted",
            Self::PoolerStopped => "pooler stopped (SIGSTOP)",
            Self::PacketsLost => "silent packet loss",
            Self::AnswerCut => "connection reset in the middle of an answer",
            Self::DatabaseRestarted => "database restarted",
            Self::ReadOnly => "database read-only",
            Self::OutOfConnections => "database out of connections",
            Self::PoolFull => "all of the pooler's connections taken",
            Self::NameUnknown => "connection closed, and its name unknown to DNS",
            Self::CertificateChanged => "pooler restarted with a certificate that is not trusted",
            Self::WakeUp => "connection closed, and 5 s to wake up",
        }
    }

    /// Returns why the fault cannot be tested in a state, or `None` if it can.
    fn not_applicable(self, state: State) -> Option<&'static str> {
        match (self, state) {
            (Self::NameUnknown, State::InFlight) => Some("a statement under way asks for no name"),
            (Self::PoolFull, State::InFlight) => Some("a statement under way has its connection"),
            (Self::WakeUp, State::InFlight) => Some("a database at work is not put to sleep"),
            (Self::NameUnknown, _) if !cfg!(target_os = "linux") => Some("names can be made unknown on Linux only"),
            _ => None,
        }
    }

    /// Whether the fault only closes connections, so that the next call can succeed on a new one.
    fn is_momentary(self) -> bool {
        matches!(self, Self::BackendKilled | Self::AllBackendsKilled | Self::PoolerRestarted | Self::DatabaseRestarted)
    }

    async fn begin(self, rig: &mut Rig, cells: &mut [Cell], hosts: &Path) -> Result<()> {
        let not_in_flight = || cells.iter().filter(|cell| cell.state != State::InFlight);
        match self {
            Self::BackendKilled => {
                for cell in &*cells {
                    kill_backends(&cell.database).await;
                }
            }
            Self::AllBackendsKilled => {
                let all = "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'tasks_api'";
                cells[0].database.sql(all, &[]).await;
            }
            Self::PoolerRestarted => rig.cluster.pooler.restart().await?,
            Self::PoolerStopped => rig.cluster.pooler.signal(Signal::SIGSTOP),
            Self::PacketsLost => rig.proxy.set(Network::Lossy),
            Self::AnswerCut => rig.proxy.set(Network::CutsAnswers),
            Self::DatabaseRestarted => {
                rig.cluster.postgres.restart().await?;
                for cell in cells {
                    cell.database.reconnect().await;
                    cell.database.sql("begin", &[]).await;
                }
            }
            Self::ReadOnly => {
                for cell in not_in_flight() {
                    let name = &cell.database.name;
                    let statement = format!("alter database {name} set default_transaction_read_only = on");
                    cell.database.sql(&statement, &[]).await;
                    kill_backends(&cell.database).await;
                }
            }
            Self::OutOfConnections => {
                cells[0].database.sql("alter role tasks_api connection limit 0", &[]).await;
                for cell in not_in_flight() {
                    kill_backends(&cell.database).await;
                }
            }
            Self::PoolFull => fill_pools(rig, cells).await?,
            Self::NameUnknown => {
                fs::write(hosts, "127.0.0.1 another.test\n")?;
                rig.proxy.close_all().await;
            }
            Self::CertificateChanged => {
                let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
                rig.cluster
                    .pooler
                    .set_certificate(other.cert.pem().as_bytes(), other.signing_key.serialize_pem().as_bytes())?;
                rig.cluster.pooler.restart().await?;
            }
            Self::WakeUp => {
                rig.proxy.set(Network::Asleep(Duration::from_secs(WAKE_UP_S)));
                rig.proxy.close_all().await;
            }
        }
        Ok(())
    }

    async fn end(self, rig: &mut Rig, cells: &mut [Cell], hosts: &Path) -> Result<()> {
        match self {
            Self::BackendKilled | Self::AllBackendsKilled | Self::PoolerRestarted | Self::DatabaseRestarted => {}
            Self::PoolerStopped => rig.cluster.pooler.signal(Signal::SIGCONT),
            Self::PacketsLost => {
                rig.proxy.set(Network::Whole);
                rig.proxy.close_all().await;
            }
            Self::AnswerCut | Self::WakeUp => rig.proxy.set(Network::Whole),
            Self::ReadOnly => {
                for cell in cells {
                    let name = &cell.database.name;
                    let statement = format!("alter database {name} reset default_transaction_read_only");
                    cell.database.sql(&statement, &[]).await;
                    kill_backends(&cell.database).await;
                }
            }
            Self::OutOfConnections => {
                cells[0].database.sql("alter role tasks_api connection limit -1", &[]).await;
            }
            Self::PoolFull => cells.iter_mut().for_each(|cell| cell.others.clear()),
            Self::NameUnknown => fs::write(hosts, format!("127.0.0.1 {HOST}\n"))?,
            Self::CertificateChanged => {
                rig.cluster.pooler.set_certificate(
                    &fs::read(rig.cluster.postgres.certificate())?,
                    &fs::read(rig.cluster.postgres.key())?,
                )?;
                rig.cluster.pooler.restart().await?;
            }
        }
        Ok(())
    }
}

async fn kill_backends(database: &Database) {
    let own = "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'tasks_api' and datname = current_database()";
    database.sql(own, &[]).await;
}

/// Finds or installs nss_wrapper (from Samba's cwrap). Preloaded into a process, it resolves host names by a file.
async fn nss_wrapper() -> Result<PathBuf> {
    if !cfg!(target_os = "linux") {
        return Ok(PathBuf::new());
    }
    let find = || {
        let folders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"];
        folders.iter().map(|folder| Path::new(folder).join("libnss_wrapper.so")).find(|file| file.exists())
    };
    find_or_install("nss_wrapper", find, "libnss-wrapper").await
}

fn print(tried: &[(Fault, Vec<Line>)]) {
    println!("| fault | the function is | {} |", OPERATIONS.map(Operation::title).join(" | "));
    println!("|---|---|{}", "---|".repeat(OPERATIONS.len()));
    for (fault, lines) in tried {
        for line in lines {
            let texts = match &line.cells {
                Ok(texts) => texts.join(" | "),
                Err(reason) => format!("{reason}{}", " |".repeat(OPERATIONS.len() - 1)),
            };
            println!("| {} | {} | {texts} |", fault.title(), line.state.title());
        }
    }
    println!();
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}
