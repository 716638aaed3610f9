//! One trial of a program: started, called, ended.
use crate::{
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
    time::Duration,
};

/// How long the machine is left alone before each trial: the database is still closing what the last one had opened.
const PAUSE: Duration = Duration::from_millis(150);
/// How many tasks every program lists.
const LISTED: usize = 50;

/// What a trial is made of.
#[derive(Clone)]
pub struct Plan {
    /// What differs from the usual, for people and in the results.
    pub name: &'static str,
    /// How often all programs take their turn.
    pub rounds: usize,
    /// How many lists follow the first, each by another user.
    pub lists: usize,
    /// How many calls of every other route are counted; one more of each comes first.
    pub others: usize,
    /// The size of memory whose share of a CPU the program gets, in MB.
    pub memory_mb: Option<u32>,
    /// Where the program runs; anywhere without it.
    pub cpus: Option<Cpus>,
    /// Where the database is: `from` in the programs' settings becomes `to`, each `127.0.0.1:port`.
    pub database: Option<(String, String)>,
    /// The relay that this leads to, if it is one: it counts the round trips.
    pub relay: Option<Arc<Relay>>,
    /// The users' tokens.
    pub tokens: Vec<String>,
    /// Where the programs' output goes.
    pub logs: PathBuf,
}

/// What was measured of one kind of call.
#[derive(Default, Clone)]
pub struct Samples {
    /// The latencies, in ms.
    pub latency_ms: Vec<f64>,
    /// The CPU times, in ms.
    pub cpu_ms: Vec<f64>,
    /// The round trips to the database, where a relay counted them.
    pub round_trips: Vec<f64>,
}

/// What was measured of one trial.
#[derive(Default, Clone)]
pub struct Trial {
    /// From the start to the first request for an event, in ms.
    pub init_ms: f64,
    /// The CPU time of that, in ms.
    pub init_cpu_ms: f64,
    /// The first call's latency, in ms.
    pub first_ms: f64,
    /// The first call's CPU time, in ms.
    pub first_cpu_ms: f64,
    /// The calls after it.
    pub routes: BTreeMap<Route, Samples>,
    /// The most memory that a process had, in MB.
    pub peak_memory_mb: f64,
}

impl Trial {
    /// From the start to the first answer, in ms.
    pub fn cold_ms(&self) -> f64 {
        self.init_ms + self.first_ms
    }
}

/// All programs' trials, round by round: in each round all take their turn, and the next round begins with the next of them.
/// A program that fails is not tried again, and the error says why.
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

/// One trial; in each round all programs are asked by the same users.
fn trial(program: &Program, plan: &Plan, round: usize) -> Result<Trial> {
    let token = |call: usize| plan.tokens[((round + 1) * 104_729 + call * 7_919) % plan.tokens.len()].as_str();
    let mut deployment = Deployment::new(program, plan)?;
    let mut trial = Trial::default();

    let function = deployment.function(Route::List)?;
    (trial.init_ms, trial.init_cpu_ms) = (function.init_ms, function.init_cpu_ms);
    let (first, _) = deployment.call(Route::List, &list(token(0), "limit=50"))?;
    (trial.first_ms, trial.first_cpu_ms) = (first.latency_ms, first.cpu_ms);
    for call in 0..plan.lists {
        deployment.measure(&mut trial, Route::List, &list(token(call + 1), "limit=50"))?;
    }
    if matches!(program.extent, Extent::Ours | Extent::Shared) {
        others(&mut deployment, &mut trial, plan, token(0))?;
    }
    // Without what the process, not the route, does at its first call.
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

/// Every route but the list, on tasks that this trial makes and removes.
fn others<'t>(deployment: &mut Deployment, trial: &mut Trial, plan: &Plan, token: &'t str) -> Result<()> {
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
    // One kind after the other: a process that others have kept from the CPU's caches is slower.
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
        each(Route::Health, &|_| Call { path: "/health".to_owned(), ..list(token, "") })?;
        // Of a user who has none: the others' tasks are for every round.
        each(Route::Clear, &|_| Call { method: "DELETE", ..list("bench-nobody", "status=completed") })?;
    }
    each(Route::Delete, &|task| on_task("DELETE", task, "", None))
}

fn list<'c>(token: &'c str, query: &'c str) -> Call<'c> {
    Call { method: "GET", path: "/api/tasks".to_owned(), query, task: None, token, body: None }
}

/// The status that a route answers with.
fn status(route: Route) -> u64 {
    match route {
        Route::Create => 201,
        Route::Delete => 204,
        Route::Refused => 401,
        _ => 200,
    }
}

/// A program's processes, each started when it is first called.
pub struct Deployment<'p> {
    program: &'p Program,
    logs: PathBuf,
    memory_mb: Option<u32>,
    cpus: Option<Cpus>,
    relay: Option<Arc<Relay>>,
    environment: Vec<(&'static str, String)>,
    functions: HashMap<&'p [String], Function>,
    // Dropped after the functions, which are in it.
    quota: Option<Quota>,
}

impl<'p> Deployment<'p> {
    /// With nothing started yet.
    ///
    /// # Errors
    /// Where a share of a CPU is asked for and this machine can give none.
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
        let command = self.program.command_of(route);
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

    /// Calls a route, and gives what was answered if it is right.
    ///
    /// # Errors
    /// When it is not.
    pub fn call(&mut self, route: Route, call: &Call) -> Result<(Invocation, Value)> {
        let invocation = self.function(route)?.invoke(&call.event()).with_context(|| route.name())?;
        let answer: Value = serde_json::from_slice(&invocation.answer)?;
        let body = answer["body"].as_str().unwrap_or_default();
        if answer["statusCode"] != status(route) {
            bail!("{} was answered with {}: {body}", route.name(), answer["statusCode"]);
        }
        let body = if body.is_empty() { Value::Null } else { serde_json::from_str(body)? };
        let listed = if route == Route::List { body.as_array().map_or(0, Vec::len) } else { LISTED };
        ensure!(listed == LISTED, "the list has {listed} tasks and not {LISTED}");
        Ok((invocation, body))
    }

    fn round_trips(&self) -> Option<u64> {
        self.relay.as_ref().map(|relay| relay.round_trips())
    }

    fn measure(&mut self, trial: &mut Trial, route: Route, call: &Call) -> Result<Value> {
        // Started before, so that its connecting is not counted.
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
