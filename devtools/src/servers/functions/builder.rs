//! Rebuilds the functions after a change: first the one that is called, then the others.
use super::sources::Sources;
use crate::system::build::workspace_cargo;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader},
    process::Command,
    sync::{mpsc, oneshot},
    time::{MissedTickBehavior, interval},
};
use xtask::durations::Short;

/// Interval between scans of the sources, in milliseconds. A call scans them too.
const SCAN_EVERY_MS: u64 = 250;

/// A number that increases with every change of the sources.
pub type Generation = u64;

/// The result of a function's build: the generation of its sources, or the compiler's messages.
pub type Built = Result<Generation, String>;

/// Prints a line for the developer.
pub type Print = std::sync::Arc<dyn Fn(&str) + Send + Sync>;

/// A handle to the builder's task, which ends when the last handle is dropped.
#[derive(Clone)]
pub struct Builder(mpsc::Sender<Wanted>);

struct Wanted {
    function: String,
    answer: oneshot::Sender<Built>,
}

impl Builder {
    /// Starts the task. The programs must have just been built from `sources`.
    pub fn start(sources: Sources, functions: Vec<String>, print: Print) -> Self {
        let (sender, wanted) = mpsc::channel(64);
        let built = functions.into_iter().map(|function| (function, (0, Ok(())))).collect();
        let work =
            Work { sources, generation: 0, built, waiting: Vec::new(), last: None, printed: HashSet::new(), print };
        tokio::spawn(work.run(wanted));
        Self(sender)
    }

    /// Waits until a function is built from the current sources.
    pub async fn up_to_date(&self, function: &str) -> Built {
        let (answer, built) = oneshot::channel();
        let _ = self.0.send(Wanted { function: function.to_owned(), answer }).await;
        built.await.unwrap_or_else(|_| Err("the builder has ended".to_owned()))
    }
}

struct Work {
    sources: Sources,
    generation: Generation,
    /// The last result of each function, with its generation.
    built: BTreeMap<String, (Generation, Result<(), String>)>,
    waiting: Vec<Wanted>,
    /// The function of the last call, which is likely to be called next.
    last: Option<String>,
    /// Messages that have been printed: cargo repeats them with each build.
    printed: HashSet<String>,
    print: Print,
}

/// Why a build was interrupted.
enum Interrupted {
    SourcesChanged,
    Wanted(Wanted),
    Closed,
}

impl Work {
    async fn run(mut self, mut wanted: mpsc::Receiver<Wanted>) {
        let mut ticks = interval(Duration::from_millis(SCAN_EVERY_MS));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.answer_waiting();
            let Some(functions) = self.next_to_build() else {
                tokio::select! {
                    asked = wanted.recv() => match asked {
                        Some(asked) => self.take(asked),
                        None => return,
                    },
                    _ = ticks.tick() => self.scan(),
                }
                continue;
            };
            let is_background = functions.len() > 1;
            let began = Instant::now();
            let build = build(&functions);
            tokio::pin!(build);
            let interrupted = loop {
                let interrupted = tokio::select! {
                    outcome = &mut build => {
                        self.finish(&functions, outcome, began.elapsed());
                        break None;
                    }
                    asked = wanted.recv() => asked.map_or(Interrupted::Closed, Interrupted::Wanted),
                    _ = ticks.tick() => {
                        if Sources::scan() == self.sources {
                            continue;
                        }
                        Interrupted::SourcesChanged
                    }
                };
                match interrupted {
                    Interrupted::Wanted(asked) if !is_background && Sources::scan() == self.sources => {
                        self.last = Some(asked.function.clone());
                        self.waiting.push(asked);
                    }
                    interrupted => break Some(interrupted),
                }
            };
            // An unfinished build is dropped here, which kills cargo.
            match interrupted {
                Some(Interrupted::Wanted(asked)) => self.take(asked),
                Some(Interrupted::SourcesChanged) => self.scan(),
                Some(Interrupted::Closed) => return,
                None => {}
            }
        }
    }

    fn take(&mut self, asked: Wanted) {
        self.last = Some(asked.function.clone());
        self.waiting.push(asked);
        self.scan();
    }

    /// Scans the sources, and starts a new generation if they have changed.
    fn scan(&mut self) {
        let now = Sources::scan();
        if now != self.sources {
            self.sources = now;
            self.generation += 1;
            if let Ok(functions) = xtask::build::functions() {
                self.built.retain(|function, _| functions.contains(function));
            }
        }
    }

    fn is_stale(&self, function: &str) -> bool {
        self.built.get(function).is_none_or(|(generation, _)| *generation != self.generation)
    }

    fn answer_waiting(&mut self) {
        let (stale, fresh): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|wanted| self.is_stale(&wanted.function));
        self.waiting = stale;
        for Wanted { function, answer } in fresh {
            let (generation, result) = &self.built[&function];
            let _ = answer.send(result.clone().map(|()| *generation));
        }
    }

    /// Returns the function that a call waits for, else the one of the last call, else all stale ones. `None` if
    /// nothing is stale.
    fn next_to_build(&self) -> Option<Vec<String>> {
        if let Some(wanted) = self.waiting.first() {
            return Some(vec![wanted.function.clone()]);
        }
        if let Some(last) = self.last.as_ref().filter(|last| self.is_stale(last)) {
            return Some(vec![last.clone()]);
        }
        let stale: Vec<_> = self.built.keys().filter(|function| self.is_stale(function)).cloned().collect();
        (!stale.is_empty()).then_some(stale)
    }

    fn finish(&mut self, functions: &[String], outcome: Outcome, took: Duration) {
        // Errors hide warnings, which the next build repeats.
        let warnings = if outcome.errors.is_empty() { &*outcome.warnings } else { &[] };
        for message in warnings {
            if self.printed.insert(message.clone()) {
                (self.print)(message.trim_end());
            }
        }
        let failed: Vec<_> = functions.iter().filter(|function| !outcome.made.contains(*function)).collect();
        let errors = outcome.errors.join("\n");
        for function in functions {
            let result = if outcome.made.contains(function) {
                Ok(())
            } else {
                Err(anstream::adapter::strip_str(&errors).to_string())
            };
            self.built.insert(function.clone(), (self.generation, result));
        }
        if failed.is_empty() {
            if let [function] = functions {
                (self.print)(&format!("built {function} in {}", Short(took)));
            }
        } else if self.printed.insert(format!("{} {errors}", self.generation)) {
            (self.print)(errors.trim_end());
        }
    }
}

/// Cargo's artifacts and messages.
#[derive(Default)]
struct Outcome {
    made: BTreeSet<String>,
    errors: Vec<String>,
    warnings: Vec<String>,
}

/// Builds some functions. Dropping the future kills cargo.
async fn build(functions: &[String]) -> Outcome {
    let mut command = workspace_cargo("build");
    // Coloured messages as in a terminal. One function's errors do not stop the others' builds.
    command.args(["--message-format=json-diagnostic-rendered-ansi", "--keep-going", "--quiet"]);
    for function in functions {
        command.args(["--bin", function]);
    }
    match run(&mut command).await {
        Ok(outcome) => outcome,
        Err(error) => Outcome { errors: vec![format!("cargo cannot be started: {error}")], ..Outcome::default() },
    }
}

async fn run(command: &mut Command) -> std::io::Result<Outcome> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
    let mut cargo = command.spawn()?;
    let (messages, errors) = (cargo.stdout.take(), cargo.stderr.take());
    let (mut outcome, stderr) = tokio::join!(read_messages(messages), read_all(errors));
    let status = cargo.wait().await?;
    if !status.success() && outcome.errors.is_empty() {
        // The error is cargo's own, such as an invalid manifest or an outdated lock file.
        outcome.errors.push(stderr);
    }
    Ok(outcome)
}

async fn read_messages(pipe: Option<impl AsyncRead + Unpin>) -> Outcome {
    let mut outcome = Outcome::default();
    let Some(pipe) = pipe else { return outcome };
    let mut lines = BufReader::new(pipe).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let message: Value = serde_json::from_str(&line).unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        match message["reason"].as_str() {
            Some("compiler-artifact") if message["target"]["kind"][0] == "bin" => {
                outcome.made.insert(text(&message["target"]["name"]));
            }
            Some("compiler-message") => {
                let message = &message["message"];
                let rendered = text(&message["rendered"]);
                match message["level"].as_str() {
                    Some("warning") if !message["spans"].as_array().is_none_or(Vec::is_empty) => {
                        outcome.warnings.push(rendered);
                    }
                    Some("error") if !rendered.is_empty() => outcome.errors.push(rendered),
                    _ => {}
                }
            }
            _ => {}
        }
    }
    outcome
}

async fn read_all(pipe: Option<impl AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        let _ = pipe.read_to_end(&mut bytes).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
