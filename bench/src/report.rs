//! The results of the trials: tables for people, results.json for programs, and our own limits.
use crate::{
    program::{Program, Route},
    statistics::{Estimate, mean, median, quantile},
    trial::{Plan, Trial},
};
use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};
use serde_json::{Map, Value, json};
use std::{collections::HashMap, fs};

/// Extracts one number from a trial.
type Measure = fn(&Trial) -> Option<f64>;

/// A table column: its heading, and its value for a program.
type Column<'r> = (&'static str, Box<dyn Fn(&Program) -> Option<f64> + 'r>);

/// The program that the others are compared with.
const OURS: &str = "ours";
/// Maximum size of an API function's package, in bytes.
const PACKAGE_LIMIT: f64 = 3_400_000.0;
/// Maximum peak memory of a function, in MB.
const MEMORY_LIMIT_MB: f64 = 10.0;

/// The results of one plan.
pub struct Measured {
    pub plan: Plan,
    /// The trials of each program that did not fail.
    pub trials: HashMap<&'static str, Vec<Trial>>,
    /// The error of each program that failed.
    pub failures: HashMap<&'static str, String>,
}

impl Measured {
    /// Groups the results of [`crate::trial::run`] by program.
    pub fn new(plan: Plan, programs: &[Program], results: Vec<Result<Vec<Trial>>>) -> Self {
        let (mut trials, mut failures) = (HashMap::new(), HashMap::new());
        for (program, result) in programs.iter().zip(results) {
            match result {
                Ok(result) => drop(trials.insert(program.name, result)),
                Err(error) => drop(failures.insert(program.name, format!("{error:#}"))),
            }
        }
        Self { plan, trials, failures }
    }

    fn trials(&self, program: &str) -> &[Trial] {
        self.trials.get(program).map_or(&[], Vec::as_slice)
    }

    /// Returns the median of a measure over the rounds.
    pub fn median(&self, program: &str, measure: impl Fn(&Trial) -> Option<f64>) -> Option<f64> {
        median(self.trials(program).iter().filter_map(measure))
    }

    /// Returns the ratio of our program to another. Each ratio is computed within one round.
    fn ratio(&self, to: &str, measure: impl Fn(&Trial) -> Option<f64>) -> Option<Estimate> {
        let pairs = self.trials(OURS).iter().zip(self.trials(to));
        let ratios: Vec<_> = pairs.filter_map(|(ours, other)| Some(measure(ours)? / measure(other)?)).collect();
        Estimate::from_values(&ratios)
    }
}

pub fn cold_ms(trial: &Trial) -> Option<f64> {
    Some(trial.cold_ms())
}

pub fn p50_ms(route: Route) -> impl Fn(&Trial) -> Option<f64> {
    move |trial| median(trial.routes.get(&route)?.latency_ms.iter().copied())
}

pub fn mean_ms(route: Route) -> impl Fn(&Trial) -> Option<f64> {
    move |trial| mean(&trial.routes.get(&route)?.latency_ms)
}

/// The latency that one call in a hundred exceeds, in ms.
pub fn p99_ms(route: Route) -> impl Fn(&Trial) -> Option<f64> {
    move |trial| quantile(trial.routes.get(&route)?.latency_ms.iter().copied(), 0.99)
}

pub fn cpu_ms(route: Route) -> impl Fn(&Trial) -> Option<f64> {
    move |trial| mean(&trial.routes.get(&route)?.cpu_ms)
}

/// All results.
pub struct Report {
    /// The programs, ours first.
    pub programs: Vec<Program>,
    /// Programs that could not be built, with the reason.
    pub not_built: Vec<(&'static str, String)>,
    /// Direct connections to the database, no CPU limit.
    pub direct: Measured,
    /// With the CPU share of 128 MB.
    pub small: Measured,
    /// Through PgBouncer.
    pub pooled: Measured,
    /// With an added latency per round trip, in ms.
    pub delayed: Vec<(f64, Measured)>,
    /// The machine and its load.
    pub machine: String,
}

/// A limit and the measured value.
struct Limit {
    what: String,
    limit: f64,
    estimate: Estimate,
}

impl Limit {
    fn verdict(&self) -> &'static str {
        if self.estimate.median <= self.limit {
            "holds"
        } else if self.estimate.low <= self.limit {
            "only just"
        } else {
            "DOES NOT HOLD"
        }
    }
}

impl Report {
    /// Returns the mean number of database round trips of a call, as the relay counted them.
    pub fn round_trips(&self, program: &str, route: Route) -> Option<f64> {
        let (_, near) = self.delayed.first()?;
        near.median(program, |trial| mean(&trial.routes.get(&route)?.round_trips))
    }

    fn package_kb(program: &Program) -> Option<f64> {
        Some(fs::metadata(program.packages.first()?).ok()?.len() as f64 / 1000.0)
    }

    fn limits(&self) -> Vec<Limit> {
        let mut limits = Vec::new();
        let mut add = |what: String, limit: f64, estimate: Option<Estimate>| {
            limits.extend(estimate.map(|estimate| Limit { what, limit, estimate }));
        };
        for (to, limit) in [("floor", 1.15), ("python", 1.0 / 20.0), ("node", 1.0 / 5.0), ("rust_monolith", 1.0 / 4.0)]
        {
            add(format!("cold start, of {to}'s"), limit, self.direct.ratio(to, cold_ms));
        }
        add("list p50, of floor's".to_owned(), 1.10, self.direct.ratio("floor", p50_ms(Route::List)));
        add("list CPU, of floor's".to_owned(), 1.5, self.direct.ratio("floor", cpu_ms(Route::List)));
        for (to, limit) in [("floor", 1.5), ("rust_monolith", 1.0 / 8.0)] {
            add(format!("list p50 at 128 MB, of {to}'s"), limit, self.small.ratio(to, p50_ms(Route::List)));
        }
        for to in ["python", "node", "rust_monolith"] {
            for route in Route::SHARED {
                add(format!("{} p50, of {to}'s", route.name()), 1.0, self.direct.ratio(to, p50_ms(route)));
            }
        }
        let memory: Vec<_> = self.direct.trials(OURS).iter().map(|trial| trial.peak_memory_mb).collect();
        add("peak memory in MB".to_owned(), MEMORY_LIMIT_MB, Estimate::from_values(&memory));
        let packages = self.programs.iter().filter(|program| program.name == OURS).flat_map(|ours| &ours.packages);
        let largest =
            packages.filter_map(|package| Some(fs::metadata(package).ok()?.len() as f64)).max_by(f64::total_cmp);
        add(
            "largest API function's package in bytes".to_owned(),
            PACKAGE_LIMIT,
            Estimate::from_values(largest.as_slice()),
        );
        limits
    }

    pub fn print(&self) {
        println!("\n{}", self.machine);
        for (name, why) in &self.not_built {
            println!("NOT BUILT: {name}: {why}");
        }
        for measured in self.all() {
            for (name, why) in &measured.failures {
                println!("FAILED: {name}, {}: {why}", measured.plan.name);
            }
        }
        let direct = &self.direct;
        let columns: [Column<'_>; 11] = [
            ("Init ms", Box::new(|it| direct.median(it.name, |trial| Some(trial.init_ms)))),
            ("first call ms", Box::new(|it| direct.median(it.name, |trial| Some(trial.first_ms)))),
            ("cold total ms", Box::new(|it| direct.median(it.name, cold_ms))),
            ("list p50 ms", Box::new(|it| direct.median(it.name, p50_ms(Route::List)))),
            ("list p99 ms", Box::new(|it| direct.median(it.name, p99_ms(Route::List)))),
            ("CPU ms a call", Box::new(|it| direct.median(it.name, cpu_ms(Route::List)))),
            ("peak MB", Box::new(|it| direct.median(it.name, |trial| Some(trial.peak_memory_mb)))),
            ("package kB", Box::new(Self::package_kb)),
            ("round trips", Box::new(|it| self.round_trips(it.name, Route::List))),
            ("list p50 ms at 128 MB", Box::new(|it| self.small.median(it.name, p50_ms(Route::List)))),
            ("mean", Box::new(|it| self.small.median(it.name, mean_ms(Route::List)))),
        ];
        self.print_table("Cold start and list of 50", &columns);

        let by_route = |value: fn(&Self, &Program, Route) -> Option<f64>| -> Vec<Column<'_>> {
            let routes = Route::SHARED.into_iter().chain(Route::OURS);
            routes
                .map(|route| -> Column<'_> { (route.name(), Box::new(move |it: &Program| value(self, it, route))) })
                .collect()
        };
        let p50 = by_route(|report, it, route| report.direct.median(it.name, p50_ms(route)));
        self.print_table("p50 by route, ms", &p50);
        let p99 = by_route(|report, it, route| report.direct.median(it.name, p99_ms(route)));
        self.print_table("p99 by route, ms", &p99);
        let cpu = by_route(|report, it, route| report.direct.median(it.name, cpu_ms(route)));
        self.print_table("CPU by route, ms", &cpu);
        let trips = by_route(|report, it, route| report.round_trips(it.name, route));
        self.print_table("Round trips by route", &trips);
        let mut ways: Vec<Column<'_>> =
            vec![("direct", Box::new(|it| self.direct.median(it.name, p50_ms(Route::List))))];
        ways.push(("PgBouncer", Box::new(|it| self.pooled.median(it.name, p50_ms(Route::List)))));
        for (_, measured) in &self.delayed {
            ways.push((measured.plan.name, Box::new(|it| measured.median(it.name, p50_ms(Route::List)))));
        }
        self.print_table("List p50 by the way to the database, ms", &ways);
        self.print_limits();
    }

    fn print_table(&self, title: &str, columns: &[Column<'_>]) {
        let headers: Vec<_> = std::iter::once("").chain(columns.iter().map(|(name, _)| *name)).collect();
        let row = |program: &Program| {
            let cells = columns.iter().map(|(_, value)| value(program).map_or_else(|| "–".to_owned(), number));
            std::iter::once(program.title.to_owned()).chain(cells).collect()
        };
        let table = table(&headers, &self.programs.iter().map(row).collect::<Vec<_>>());
        println!("\n{title}\n\n{table}");
    }

    fn print_limits(&self) {
        let row = |limit: &Limit| {
            let Estimate { median, low, high } = limit.estimate;
            let interval = format!("{} to {}", number(low), number(high));
            vec![limit.what.clone(), number(limit.limit), number(median), interval, limit.verdict().to_owned()]
        };
        let rows: Vec<_> = self.limits().iter().map(row).collect();
        let table = table(&["what", "at most", "median", "95 % interval", ""], &rows);
        println!("\nOurs against the limits: ratios within each of {} rounds\n\n{table}", self.direct.plan.rounds);
    }

    fn all(&self) -> impl Iterator<Item = &Measured> {
        [&self.direct, &self.small, &self.pooled].into_iter().chain(self.delayed.iter().map(|(_, measured)| measured))
    }

    /// The contents of results.json.
    pub fn json(&self) -> Value {
        let programs: Map<_, _> =
            self.programs.iter().map(|program| (program.name.to_owned(), self.program_json(program))).collect();
        let limits: Vec<_> = self
            .limits()
            .iter()
            .map(|it| json!({"what": it.what, "limit": it.limit, "measured": it.estimate, "verdict": it.verdict()}))
            .collect();
        let not_built: Map<_, _> = self.not_built.iter().map(|(name, why)| ((*name).to_owned(), json!(why))).collect();
        json!({"machine": self.machine, "programs": programs, "limits": limits, "not_built": not_built})
    }

    fn program_json(&self, program: &Program) -> Value {
        let name = program.name;
        let direct = |measure: Measure| self.direct.median(name, measure);
        let ratios: Map<_, _> = self
            .programs
            .iter()
            .filter(|other| name == OURS && other.name != OURS)
            .map(|other| {
                let ratios = json!({
                    "cold_total": self.direct.ratio(other.name, cold_ms),
                    "warm_list_p50": self.direct.ratio(other.name, p50_ms(Route::List)),
                    "cpu_per_call": self.direct.ratio(other.name, cpu_ms(Route::List)),
                    "warm_list_p50_128mb": self.small.ratio(other.name, p50_ms(Route::List)),
                });
                (other.name.to_owned(), ratios)
            })
            .collect();
        let routes: Map<_, _> = Route::SHARED
            .into_iter()
            .chain(Route::OURS)
            .filter_map(|route| {
                let p50_ms = self.direct.median(name, p50_ms(route))?;
                let values = json!({
                    "p50_ms": p50_ms,
                    "p99_ms": self.direct.median(name, p99_ms(route)),
                    "cpu_ms": self.direct.median(name, cpu_ms(route)),
                    "round_trips": self.round_trips(name, route),
                });
                Some((route.name().to_owned(), values))
            })
            .collect();
        let delayed: Map<_, _> = self
            .delayed
            .iter()
            .map(|(_, it)| (it.plan.name.to_owned(), json!(it.median(name, p50_ms(Route::List)))))
            .collect();
        let failures: Map<_, _> =
            self.all().filter_map(|it| Some((it.plan.name.to_owned(), json!(it.failures.get(name)?)))).collect();
        json!({
            "init_ms": direct(|trial| Some(trial.init_ms)),
            "init_cpu_ms": direct(|trial| Some(trial.init_cpu_ms)),
            "cold_invoke_ms": direct(|trial| Some(trial.first_ms)),
            "cold_invoke_cpu_ms": direct(|trial| Some(trial.first_cpu_ms)),
            "cold_total_ms": direct(cold_ms),
            "warm_list_p50_ms": self.direct.median(name, p50_ms(Route::List)),
            "warm_list_p99_ms": self.direct.median(name, p99_ms(Route::List)),
            "cpu_ms_per_call": self.direct.median(name, cpu_ms(Route::List)),
            "rss_mb": direct(|trial| Some(trial.peak_memory_mb)),
            "zip_kb": Self::package_kb(program),
            "round_trips": self.round_trips(name, Route::List),
            "warm_list_p50_ms_128mb": self.small.median(name, p50_ms(Route::List)),
            "warm_list_mean_ms_128mb": self.small.median(name, mean_ms(Route::List)),
            "cold_total_ms_128mb": self.small.median(name, cold_ms),
            "warm_list_p50_ms_pgbouncer": self.pooled.median(name, p50_ms(Route::List)),
            "cold_total_ms_pgbouncer": self.pooled.median(name, cold_ms),
            "warm_list_p50_ms_delayed": delayed,
            "routes": routes,
            "ratios_to": ratios,
            "failures": failures,
        })
    }
}

/// Builds a Markdown table. All columns but the first contain numbers.
pub fn table(headers: &[&str], rows: &[Vec<String>]) -> Table {
    let mut table = Table::new();
    table.load_preset(ASCII_MARKDOWN).set_header(headers).add_rows(rows);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Formats a number with about three significant digits.
pub fn number(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0..100.0 => format!("{value:.1}"),
        0.1..10.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
