//! What calls cost in one way and in another, measured in turn.
use anyhow::{Context as _, Result, ensure};
use bench::{
    backends::Backends,
    function::Invocation,
    report::{number, table},
    statistics::{Estimate, median},
};
use serde_json::{Value, json};
use std::fs;
use xtask::place::target;

/// What some calls took together, in milliseconds.
#[derive(Clone, Copy, Default)]
pub struct Cost {
    time_ms: f64,
    function_ms: f64,
    database_ms: f64,
}

impl Cost {
    /// Runs calls, and fails if one of them fails, or refuses an operation of a batch.
    pub fn measure(backends: &Backends, run: impl FnOnce() -> Result<Vec<Invocation>>) -> Result<Self> {
        let before = backends.cpu_ms()?;
        let invocations = run()?;
        let mut cost = Self { database_ms: backends.cpu_ms()? - before, ..Self::default() };
        for invocation in invocations {
            let answer: Value = serde_json::from_slice(&invocation.answer)?;
            let status = answer["statusCode"].as_u64().unwrap_or_default();
            // A deletion answers without a body.
            let body = match answer["body"].as_str().unwrap_or_default() {
                "" if status == 204 => Value::Null,
                body => serde_json::from_str(body)?,
            };
            ensure!(
                (200..300).contains(&status) && body["refused"].as_u64().unwrap_or_default() == 0,
                "answered with {status}, {} refused",
                body["refused"]
            );
            cost.time_ms += invocation.latency_ms;
            cost.function_ms += invocation.cpu_ms;
        }
        Ok(cost)
    }
}

/// One of the figures of a cost.
type Part = fn(&Cost) -> f64;

/// The figures, with their titles and their names in the file.
const PARTS: [(&str, &str, Part); 3] = [
    ("time", "time_ms", |cost| cost.time_ms),
    ("function's CPU", "function_cpu_ms", |cost| cost.function_ms),
    ("database's CPU", "database_cpu_ms", |cost| cost.database_ms),
];

/// The costs of two ways, a pair for each round.
pub struct Comparison {
    pub what: String,
    pub rounds: Vec<[Cost; 2]>,
}

/// Prints the medians, and the ratios of the second way to the first within rounds, with their 95 % intervals. Writes them
/// to target/bench/FILE.
pub fn report(file: &str, ways: [&str; 2], comparisons: &[Comparison]) -> Result<()> {
    let mut lines = Vec::new();
    let mut results = serde_json::Map::new();
    for Comparison { what, rounds } in comparisons {
        let mut fields = serde_json::Map::new();
        for (title, name, part) in PARTS {
            let of = |way: usize| median(rounds.iter().filter_map(|both| both.get(way)).map(part)).context("rounds");
            let (first, second) = (of(0)?, of(1)?);
            let ratios: Vec<_> = rounds.iter().map(|[first, second]| part(second) / part(first)).collect();
            let ratio = Estimate::from_values(&ratios).context("rounds")?;
            let interval = format!("{} ({} to {})", number(ratio.median), number(ratio.low), number(ratio.high));
            lines.push(vec![what.clone(), title.to_owned(), number(first), number(second), interval]);
            fields.insert(name.to_owned(), json!({ways[0]: first, ways[1]: second, "ratio": ratio}));
        }
        results.insert(what.clone(), fields.into());
    }
    let [first, second] = ways.map(|way| format!("{way}, ms"));
    println!("{}", table(&["100 operations", "what", &first, &second, "ratio"], &lines));
    let file = target().join("bench").join(file);
    fs::write(&file, serde_json::to_vec_pretty(&results)?)?;
    println!("\nWritten: {}", file.display());
    Ok(())
}
