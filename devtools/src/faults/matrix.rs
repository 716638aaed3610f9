//! The fault bench: everything that goes wrong between a function and its database, while the function is frozen, idle and
//! at work, for each kind of request; what the client sees, how long it waits, and what the database holds afterwards.
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

/// How long a client waits for an answer at most, in seconds: 19 by the constants of shared/src/database.rs, and one for a
/// busy machine.
const BOUND_S: u64 = 20;
/// How long a process is frozen, in seconds: longer than the idle time after which a connection is tried before it is used.
const FROZEN_S: u64 = 62;
/// How long after the fault a statement under way could go on, in seconds.
const HELD_S: u64 = 2;
/// How long the database takes to wake, in seconds.
const WAKE_UP_S: u64 = 5;
/// How many connections the pooler has to each database.
const POOL_SIZE: u32 = 4;
/// How many faults are tried at a time, each with servers of its own.
const AT_A_TIME: usize = 7;
/// The name of the database's host where names matter.
const HOST: &str = "database.test";

/// What goes wrong.
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

/// What the function is doing meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Frozen,
    Idle,
    InFlight,
}

/// What the client asks for.
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

/// Tries all faults, or those whose name contains `filter`; prints the matrix, and fails where a cell is not as it has to be.
pub async fn faults(filter: Option<&str>) -> Result<()> {
    let folder = target().join("faults");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    let logs = folder.join("logs");
    fs::create_dir_all(&logs)?;
    testing::keep_logs_in(&logs.to_string_lossy());
    let bench = Bench {
        binaries: build_functions().await?,
        names: names().await?,
        openapi: OpenApi::read()?,
        starting: Mutex::new(()),
        folder,
    };

    let chosen: Vec<_> = Fault::value_variants()
        .iter()
        .copied()
        .filter(|fault| filter.is_none_or(|it| fault.id().contains(it)))
        .collect();
    let tried: Vec<(Fault, Vec<Line>)> = stream::iter(chosen)
        .map(|fault| bench.try_fault(fault).map(move |lines| (fault, lines.unwrap_or_else(Line::of_failure))))
        .buffered(AT_A_TIME)
        .collect()
        .await;
    print(&tried);
    logs::check(&logs, &[])?;
    let problems: Vec<_> = tried.iter().flat_map(|(_, rows)| rows).flat_map(|row| &row.problems).collect();
    if !problems.is_empty() {
        bail!(
            "{} cells are not as they have to be:\n{}",
            problems.len(),
            problems.iter().map(|it| format!("  {it}")).collect::<Vec<_>>().join("\n")
        );
    }
    Ok(())
}

/// What all faults share.
struct Bench {
    folder: PathBuf,
    binaries: PathBuf,
    /// The library that makes names known, and unknown.
    names: PathBuf,
    openapi: OpenApi,
    /// Servers look for free ports one after the other.
    starting: Mutex<()>,
}

/// One state's line of the matrix.
struct Line {
    state: State,
    /// A text for each operation, or why there is none.
    cells: Result<Vec<String>, &'static str>,
    problems: Vec<String>,
}

impl Line {
    /// For a fault that could not be tried.
    fn of_failure(error: anyhow::Error) -> Vec<Self> {
        vec![Self { state: State::Idle, cells: Err("was not tried"), problems: vec![format!("{error:#}")] }]
    }
}

impl Bench {
    async fn try_fault(&self, fault: Fault) -> Result<Vec<Line>> {
        let folder = self.folder.join(fault.id());
        let starting = self.starting.lock().await;
        step(format!("Trying: {}", fault.title()));
        let mut rig = Rig::start(&folder, POOL_SIZE, fault != Fault::BackendKilled).await?;
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
        for state in STATES.into_iter().filter(|state| fault.makes_no_sense(*state).is_none()) {
            for operation in OPERATIONS {
                cells.push(Cell::start(self, &rig, &hosts, fault, state, operation).await?);
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

    /// Begins the fault and makes the calls that meet it.
    async fn call_during(&self, fault: Fault, rig: &mut Rig, cells: &mut [Cell], hosts: &Path) -> Result<()> {
        let thaw_at = tokio::time::Instant::now() + Duration::from_secs(FROZEN_S);
        fault.begin(rig, cells, hosts).await?;
        if fault.is_over_at_once() {
            for cell in &*cells {
                rig.wait_until_reachable(&cell.database).await?;
            }
        }
        for cell in cells.iter_mut().filter(|cell| cell.state == State::Idle) {
            cell.call(&self.openapi, cell.first())?;
        }
        sleep(Duration::from_secs(HELD_S)).await;
        for cell in cells.iter_mut().filter(|cell| cell.state == State::InFlight) {
            cell.database.sql("rollback", &[]).await;
        }
        for cell in cells.iter_mut().filter(|cell| cell.state != State::Frozen) {
            cell.answered().await?;
        }
        if cells.iter().any(|cell| cell.state == State::Frozen) {
            sleep_until(thaw_at).await;
            if fault == Fault::WakeUp {
                // The others have woken it.
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

    /// Ends the fault and makes each cell's next call.
    async fn call_after(&self, fault: Fault, rig: &mut Rig, cells: &mut [Cell], hosts: &Path) -> Result<()> {
        fault.end(rig, cells, hosts).await?;
        for cell in &*cells {
            rig.wait_until_reachable(&cell.database).await?;
        }
        // What was under way and could still be written is written by now.
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

/// Takes every server connection of the pooler's, and keeps it.
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

/// A line for each state of the matrix.
async fn judge(fault: Fault, cells: &[Cell]) -> Vec<Line> {
    let mut lines = Vec::new();
    for state in STATES {
        if let Some(reason) = fault.makes_no_sense(state) {
            lines.push(Line { state, cells: Err(reason), problems: Vec::new() });
            continue;
        }
        let (mut texts, mut problems) = (Vec::new(), Vec::new());
        for cell in cells.iter().filter(|cell| cell.state == state) {
            let (text, wrong) = cell.judge().await;
            let of = format!("{}, {}, {}", fault.title(), state.title(), cell.operation.title());
            problems.extend(wrong.into_iter().map(|wrong| format!("{of}: {wrong} ({text})")));
            texts.push(text);
        }
        lines.push(Line { state, cells: Ok(texts), problems });
    }
    lines
}

/// The settings of a cell's function.
fn settings(bench: &Bench, hosts: &Path, fault: Fault, mut url: String) -> Result<Vec<(String, String)>> {
    let mut settings = vec![("BETTER_AUTH_SECRET".to_owned(), testing::SECRET.to_owned())];
    if fault == Fault::NameUnknown {
        url = url.replace("@127.0.0.1:", &format!("@{HOST}:"));
        let (start, _) = url.split_once("sslrootcert=").context("a certificate in the URL")?;
        url = format!("{start}sslrootcert={}", hosts.with_extension("crt").display());
        settings.push(("LD_PRELOAD".to_owned(), bench.names.display().to_string()));
        settings.push(("NSS_WRAPPER_HOSTS".to_owned(), hosts.display().to_string()));
    }
    settings.push(("DATABASE_URL".to_owned(), url));
    Ok(settings)
}

/// One function's process with a database of its own, for one operation in one state.
struct Cell {
    fault: Fault,
    state: State,
    operation: Operation,
    database: Database,
    token: String,
    task: i64,
    lambda: Option<Lambda>,
    under_way: Option<JoinHandle<(Lambda, Answer)>>,
    answers: Vec<Answer>,
    /// Other clients of its database.
    others: Vec<Client>,
    /// How often the database had been written to when the second call was made.
    writes_before: usize,
}

/// What a client got.
struct Answer {
    status: u64,
    waited: Duration,
    at: SystemTime,
    /// Whether it is a problem that says when to try again.
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
        let settings = settings(bench, hosts, fault, database.api_url())?;
        let mut cell = Self {
            fault,
            state,
            operation,
            database,
            token: user.token,
            task: task.into(),
            lambda: None,
            under_way: None,
            answers: Vec::new(),
            others: Vec::new(),
            writes_before: 0,
        };
        let (function, _) = cell.first().event(&bench.openapi, &cell.token)?;
        cell.lambda = Some(Lambda::start(&bench.binaries.join(function).to_string_lossy(), &settings).await);
        // It has answered before, as a process that is frozen or idle has.
        let warm = Call { path: cell.first().path.replace(&task.to_string(), "0"), ..cell.first() };
        cell.call(&bench.openapi, Call { idempotency_key: None, ..warm })?;
        cell.answered().await?;
        let answer = cell.answers.pop().context("it has answered")?;
        if !matches!(answer.status, 201 | 404) {
            bail!("the first call of all is answered {}: {}", answer.status, answer.body);
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

    /// The call after it: a good client repeats what has a key, and what is the same however often it is done.
    fn second(&self) -> Call {
        let title = if self.operation == Operation::CreateOnce { "first" } else { "second" };
        self.operation.call(self.task, title)
    }

    /// Sends a call to the function, the answer to be had by [`Cell::answered`].
    fn call(&mut self, openapi: &OpenApi, call: Call) -> Result<()> {
        let (_, event) = call.event(openapi, &self.token)?;
        let mut lambda = self.lambda.take().context("it is at work")?;
        self.under_way = Some(tokio::spawn(async move {
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

    async fn answered(&mut self) -> Result<()> {
        let (lambda, answer) = self.under_way.take().context("nothing was asked")?.await?;
        self.lambda = Some(lambda);
        self.answers.push(answer);
        Ok(())
    }

    /// Makes the first call, and sees that its statement is under way: it waits for a lock of ours.
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
        bail!("the statement does not begin")
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

    /// When the database was written to.
    async fn writes(&self) -> Vec<SystemTime> {
        self.database.sql("select at from audit order by at", &[]).await.iter().map(|row| row.get(0)).collect()
    }

    /// The cell's text, and what is wrong with it.
    async fn judge(&self) -> (String, Vec<String>) {
        let [first, second] = &*self.answers else {
            return (String::new(), vec!["there are not two answers".to_owned()]);
        };
        let writes = self.writes().await;
        let written = self.writes_before;
        let mut text = format!("{} in {}", first.status, seconds(first.waited));
        let mut wrong = Vec::new();
        let mut require = |is_so: bool, what: &str| {
            if !is_so {
                wrong.push(what.to_owned());
            }
        };

        let is_success = (200..300).contains(&first.status);
        require(is_success || first.status == 503, "neither done nor 503");
        require(first.status != 503 || first.is_problem, "a 503 without a problem or Retry-After");
        require(first.waited <= Duration::from_secs(BOUND_S), "waited for longer than the bound");
        require(is_success || !self.has_to_succeed(), "should have succeeded");
        if self.operation != Operation::Read {
            require(written <= 1, "done twice");
            require(!is_success || written == 1, "a success of what is not there");
            text += &match (is_success, writes.first()) {
                (true, _) => String::new(),
                (false, Some(at)) if written == 1 => match at.duration_since(first.at) {
                    Ok(late) => format!(", written {} later", seconds(late)),
                    Err(_) => ", written".to_owned(),
                },
                (false, _) => ", not written".to_owned(),
            };
        }

        // What was removed by a call that could not tell so is not found by the next.
        let is_gone = self.operation == Operation::Delete && written == 1 && second.status == 404;
        require(
            (200..300).contains(&second.status) || is_gone,
            &format!("then {} where it should succeed: {}", second.status, second.body),
        );
        let once = matches!(self.operation, Operation::CreateOnce | Operation::Delete);
        let expected = match self.operation {
            Operation::Read => 0,
            _ if once => 1,
            _ => written + 1,
        };
        require(writes.len() == expected, &format!("{} writes in the end where {expected} were to be", writes.len()));
        if self.operation == Operation::Toggle {
            // Turned over as often as it was written.
            require(second.body["completed"] == (written == 0), "is not turned over as it should be");
        }
        if self.operation == Operation::Update {
            let title: String = self
                .database
                .sql("select title from tasks where id = $1", &[&i32::try_from(self.task).unwrap_or_default()])
                .await[0]
                .get(0);
            require(title == "second", "an earlier write has come over a later one");
        }
        (text, wrong)
    }

    /// Whether the first call finds the fault over, or it does not touch what is asked.
    fn has_to_succeed(&self) -> bool {
        let is_reading = self.fault == Fault::ReadOnly && self.operation == Operation::Read;
        let is_let_go_on =
            self.state == State::InFlight && matches!(self.fault, Fault::ReadOnly | Fault::OutOfConnections);
        let is_over = self.state != State::InFlight && (self.fault.is_over_at_once() || self.fault == Fault::WakeUp);
        is_reading || is_let_go_on || is_over
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
        let of_task = format!("/api/tasks/{task}");
        let (method, path, body) = match self {
            Self::Read => ("GET", of_task, None),
            Self::Create | Self::CreateOnce => ("POST", "/api/tasks".to_owned(), Some(json!({"title": title}))),
            Self::Update => ("PUT", of_task, Some(json!({"title": title}))),
            Self::Toggle => ("PATCH", format!("{of_task}/complete"), None),
            Self::Delete => ("DELETE", of_task, None),
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

    /// Why there is nothing to try in a state.
    fn makes_no_sense(self, state: State) -> Option<&'static str> {
        match (self, state) {
            (Self::NameUnknown, State::InFlight) => Some("a statement under way asks for no name"),
            (Self::PoolFull, State::InFlight) => Some("a statement under way has its connection"),
            (Self::WakeUp, State::InFlight) => Some("a database at work is not put to sleep"),
            (Self::NameUnknown, _) if !cfg!(target_os = "linux") => Some("names can be made unknown on Linux only"),
            _ => None,
        }
    }

    /// Whether the next call finds everything as it was before, but for its connection.
    fn is_over_at_once(self) -> bool {
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

/// The library by which a process is told what names there are (nss_wrapper, of Samba's cwrap).
async fn names() -> Result<PathBuf> {
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
