//! One trial of a program: start, calls, end.
use crate::{
    backends::Backends,
    cpus::Cpus,
    event::Call,
    function::{Function, Invocation, Start},
    program::{Extent, Program, Route},
    quota::Quota,
    relay::Relay,
};
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

/// Idle time before each trial, because the database is still closing the connections of the previous one.
const PAUSE: Duration = Duration::from_millis(150);
/// The number of tasks that every program must list.
const LIST_SIZE: usize = 50;

/// The settings of a series of trials.
#[derive(Clone)]
pub struct Plan {
    /// What this plan varies, for people and in results.json.
    pub name: &'static str,
    /// Number of rounds. Every program has one trial per round.
    pub rounds: usize,
    /// Number of list calls after the first, each by another user.
    pub lists: usize,
    /// Number of measured calls of every other route. One more per route comes first and is not counted. 0: none.
    pub others: usize,
    /// The memory size whose CPU share the program gets, in MB. `None`: no limit.
    pub memory_mb: Option<u32>,
    /// The CPUs. `None`: any.
    pub cpus: Option<Cpus>,
    /// The route to the database: replaces the first address in the programs' environment with the second, each
    /// `127.0.0.1:port`.
    pub database: Option<(String, String)>,
    /// The relay on this route, if there is one. It counts the round trips.
    pub relay: Option<Arc<Relay>>,
    /// The relay on the route to Secrets Manager, if the programs use one.
    pub secrets_relay: Option<Arc<Relay>>,
    /// The database's server processes, if their CPU time is measured.
    pub backends: Option<Backends>,
    /// The time from one list call to the next. A call that is late because the one before it took long counts from when
    /// it was due. `None`: one call after the other.
    pub interval: Option<Duration>,
    /// The users' session tokens.
    pub tokens: Vec<String>,
    /// The folder for the programs' output.
    pub logs: PathBuf,
}

/// The measurements of one route.
#[derive(Default, Clone)]
pub struct Samples {
    pub latency_ms: Vec<f64>,
    pub cpu_ms: Vec<f64>,
    /// Round trips to the database, if a relay counted them.
    pub round_trips: Vec<f64>,
}

/// The measurements of one trial.
#[derive(Default, Clone)]
pub struct Trial {
    /// Time from the start to the first request for an event, in ms.
    pub init_ms: f64,
    /// CPU time of Init, in ms.
    pub init_cpu_ms: f64,
    pub first_ms: f64,
    pub first_cpu_ms: f64,
    /// Round trips to Secrets Manager in Init and the first call, if a relay counted them.
    pub secret_round_trips: Option<f64>,
    /// Round trips to the database in Init, if a relay counted them.
    pub init_round_trips: Option<f64>,
    /// Round trips to the database in the first call, if a relay counted them.
    pub first_round_trips: Option<f64>,
    /// What the relays delayed Init and the first call by, in ms.
    pub delayed_ms: f64,
    /// CPU time of the database for one list, in ms, if it was measured.
    pub database_cpu_ms: Option<f64>,
    /// The calls after the first.
    pub routes: BTreeMap<Route, Samples>,
    /// The highest peak memory of a process, in MB.
    pub peak_memory_mb: f64,
}

impl Trial {
    /// Init plus the first call, in ms.
    pub fn cold_ms(&self) -> f64 {
        self.init_ms + self.first_ms
    }

    /// Init plus the first call without the relays' delays, in ms.
    pub fn own_cold_ms(&self) -> f64 {
        self.cold_ms() - self.delayed_ms
    }
}

/// Runs the trials of all programs in rounds. Each program has one turn per round, and the program that begins changes
/// from round to round. A program that fails is not tried again; its result is the error.
pub fn run(programs: &[Program], plan: &Plan) -> Vec<Result<Vec<Trial>>> {
    let mut results: Vec<Result<Vec<Trial>>> = programs.iter().map(|_| Ok(Vec::new())).collect();
    for round in 0..plan.rounds {
        for turn in 0..programs.len() {
            let index = (round + turn) % programs.len();
            let (program, result) = (&programs[index], &mut results[index]);
            if let Ok(trials) = result {
                sleep(PAUSE);
                match trial(program, plan, round) {
                    Ok(trial) => trials.push(trial),
                    Err(error) => *result = Err(error),
                }
            }
        }
        eprint!("\r    {}: round {} of {}", plan.name, round + 1, plan.rounds);
    }
    eprintln!();
    results
}

/// Runs one trial. In each round, all programs get the same users.
fn trial(program: &Program, plan: &Plan, round: usize) -> Result<Trial> {
    let token = |call: usize| plan.tokens[((round + 1) * 104_729 + call * 7_919) % plan.tokens.len()].as_str();
    let mut deployment = Deployment::new(program, plan)?;
    let mut trial = Trial::default();

    let began = Instant::now();
    let function = deployment.function(Route::List)?;
    (trial.init_ms, trial.init_cpu_ms) = (function.init_ms, function.init_cpu_ms);
    let ready = Instant::now();
    let (first, _) = deployment.call(Route::List, &list(token(0), "limit=50"))?;
    (trial.first_ms, trial.first_cpu_ms) = (first.latency_ms, first.cpu_ms);
    // Counted only now: what the program sent in Init may be answered during the first call.
    let answered = Instant::now();
    let count = |relay: &Option<Arc<Relay>>, time| Some(relay.as_ref()?.round_trips_in(time) as f64);
    trial.secret_round_trips = count(&plan.secrets_relay, began..answered);
    trial.init_round_trips = count(&plan.relay, began..ready);
    trial.first_round_trips = count(&plan.relay, ready..answered);
    let delayed = |relay: &Option<Arc<Relay>>| {
        let relay = relay.as_ref()?;
        Some(relay.round_trips_in(began..answered) as f64 * relay.round_trip_ms())
    };
    trial.delayed_ms = [&plan.relay, &plan.secrets_relay].into_iter().filter_map(delayed).sum();

    let database_cpu_ms = || plan.backends.map(|backends| backends.cpu_ms()).transpose();
    let before = database_cpu_ms()?;
    let began = Instant::now();
    for call in 0..plan.lists {
        let due = plan.interval.map(|interval| began + interval * u32::try_from(call).unwrap_or(u32::MAX));
        sleep(due.map_or(Duration::ZERO, |due| due.saturating_duration_since(Instant::now())));
        let late_ms = due.map_or(0.0, |due| due.elapsed().as_secs_f64() * 1000.0);
        deployment.measure(&mut trial, Route::List, &list(token(call + 1), "limit=50"))?;
        if let Some(latency_ms) = trial.routes.get_mut(&Route::List).and_then(|list| list.latency_ms.last_mut()) {
            *latency_ms += late_ms;
        }
    }
    trial.database_cpu_ms = database_cpu_ms()?.zip(before).map(|(after, before)| (after - before) / plan.lists as f64);
    if plan.others > 0 && matches!(program.extent, Extent::Ours | Extent::Shared) {
        other_routes(&mut deployment, &mut trial, plan, token(0))?;
    }
    // Drop each route's first call: it includes work that the process does only once.
    for samples in trial.routes.iter_mut().filter(|(route, _)| **route != Route::List).map(|(_, samples)| samples) {
        samples.latency_ms.remove(0);
        samples.cpu_ms.remove(0);
        samples.round_trips.drain(..1.min(samples.round_trips.len()));
    }
    for function in deployment.functions.values() {
        trial.peak_memory_mb = trial.peak_memory_mb.max(function.peak_memory_mb()?);
    }
    Ok(trial)
}

/// Calls every route but the plain list, on tasks that this trial creates and deletes.
fn other_routes<'t>(deployment: &mut Deployment, trial: &mut Trial, plan: &Plan, token: &'t str) -> Result<()> {
    let is_ours = deployment.program.extent == Extent::Ours;
    let on_task = |method, task: i64, rest: &str, body| Call {
        method,
        path: format!("/api/tasks/{task}{rest}"),
        query: "",
        task: Some(task),
        token,
        body,
    };
    let mut tasks = Vec::new();
    for number in 0..=plan.others {
        let body = json!({"title": format!("Task {number} of the benchmark"), "description": "Made by the benchmark"});
        let call = Call { method: "POST", body: Some(body), ..list(token, "") };
        let made = deployment.measure(trial, Route::Create, &call)?;
        tasks.push(made["id"].as_i64().context("create: a task has an id")?);
    }
    // One kind at a time: calls of other processes evict this one from the CPU caches and make it slower.
    let mut each = |route: Route, call: &dyn Fn(i64) -> Call<'t>| -> Result<()> {
        tasks.iter().try_for_each(|task| deployment.measure(trial, route, &call(*task)).map(drop))
    };
    let update = json!({"title": "Updated by the benchmark", "description": null});
    each(Route::Get, &|task| on_task("GET", task, "", None))?;
    each(Route::Update, &|task| on_task("PUT", task, "", Some(update.clone())))?;
    each(Route::Toggle, &|task| on_task("PATCH", task, "/complete", None))?;
    each(Route::Pending, &|_| list(token, "status=pending&limit=50"))?;
    each(Route::Refused, &|_| list("no-such-token", "limit=50"))?;
    if is_ours {
        each(Route::Patch, &|task| on_task("PATCH", task, "", Some(json!({"title": "Patched by the benchmark"}))))?;
        each(Route::Session, &|_| Call { path: "/api/session".to_owned(), ..list(token, "") })?;
        each(Route::Health, &|_| Call { path: "/health?deep=true".to_owned(), ..list(token, "") })?;
        // As a user without tasks, because the other users' tasks must stay for the next rounds.
        each(Route::Clear, &|_| Call { method: "DELETE", ..list("bench-nobody", "status=completed") })?;
    }
    each(Route::Delete, &|task| on_task("DELETE", task, "", None))
}

fn list<'c>(token: &'c str, query: &'c str) -> Call<'c> {
    Call { method: "GET", path: "/api/tasks".to_owned(), query, task: None, token, body: None }
}

/// The expected status code.
fn status(route: Route) -> u64 {
    match route {
        Route::Create => 201,
        Route::Delete => 204,
        Route::Refused => 401,
        _ => 200,
    }
}

/// A program's processes. Each starts at its first call.
pub struct Deployment<'p> {
    program: &'p Program,
    logs: PathBuf,
    memory_mb: Option<u32>,
    cpus: Option<Cpus>,
    relay: Option<Arc<Relay>>,
    environment: Vec<(&'static str, String)>,
    functions: HashMap<&'p [String], Function>,
    // Last, so that it is dropped after the functions, whose processes are in the group.
    quota: Option<Quota>,
}

impl<'p> Deployment<'p> {
    /// Starts no process yet.
    ///
    /// # Errors
    /// If a CPU share is requested and this machine cannot limit it.
    pub fn new(program: &'p Program, plan: &Plan) -> Result<Self> {
        let mut environment = program.environment.clone();
        if let Some((from, to)) = &plan.database {
            for (_, value) in &mut environment {
                *value = value.replace(from, to);
            }
        }
        let quota = plan.memory_mb.map(|_| Quota::new()).transpose()?;
        Ok(Self {
            program,
            logs: plan.logs.clone(),
            memory_mb: plan.memory_mb,
            cpus: plan.cpus,
            relay: plan.relay.clone(),
            environment,
            functions: HashMap::new(),
            quota,
        })
    }

    fn function(&mut self, route: Route) -> Result<&mut Function> {
        let command = self.program.command_for(route);
        if !self.functions.contains_key(command) {
            let log = self.logs.join(format!("{}.log", self.program.name));
            let start = Start {
                command,
                folder: &self.program.folder,
                handler: self.program.handler,
                environment: &self.environment,
                log: &log,
                share: self.quota.as_ref().zip(self.memory_mb),
                cpus: self.cpus,
            };
            let started = Function::start(&start).with_context(|| format!("see {}", log.display()))?;
            self.functions.insert(command, started);
        }
        self.functions.get_mut(command).context("it was started")
    }

    /// Calls a route, checks the response, and returns the invocation and the body.
    ///
    /// # Errors
    /// If the response is not the expected one.
    pub fn call(&mut self, route: Route, call: &Call) -> Result<(Invocation, Value)> {
        let invocation = self.function(route)?.invoke(&call.event()).with_context(|| route.name())?;
        let answer: Value = serde_json::from_slice(&invocation.answer)?;
        let body = answer["body"].as_str().unwrap_or_default();
        if answer["statusCode"] != status(route) {
            bail!("{} was answered with {}: {body}", route.name(), answer["statusCode"]);
        }
        let body = if body.is_empty() { Value::Null } else { serde_json::from_str(body)? };
        let listed = if route == Route::List { body.as_array().map_or(0, Vec::len) } else { LIST_SIZE };
        ensure!(listed == LIST_SIZE, "the list has {listed} tasks and not {LIST_SIZE}");
        Ok((invocation, body))
    }

    fn round_trips(&self) -> Option<u64> {
        self.relay.as_ref().map(|relay| relay.round_trips())
    }

    fn measure(&mut self, trial: &mut Trial, route: Route, call: &Call) -> Result<Value> {
        // Start the process first, so that its connection setup is not counted.
        self.function(route)?;
        let before = self.round_trips();
        let (invocation, body) = self.call(route, call)?;
        let samples = trial.routes.entry(route).or_default();
        samples.round_trips.extend(self.round_trips().zip(before).map(|(after, before)| (after - before) as f64));
        samples.latency_ms.push(invocation.latency_ms);
        samples.cpu_ms.push(invocation.cpu_ms);
        Ok(body)
    }
}
