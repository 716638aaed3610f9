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
/// The same with `PREPARED_STATEMENTS=true`.
const PREPARED: &str = "ours_prepared";
/// The delay to Secrets Manager, in ms, at which the deployed cold starts are compared.
const DEPLOYED_DELAY_MS: f64 = 10.0;
/// Maximum size of an API function's package, in MB of 10^6 bytes.
const PACKAGE_LIMIT_MB: f64 = 3.8;
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

    /// Returns the ratio of one program to another. Each ratio is computed within one round.
    fn ratio(&self, of: &str, to: &str, measure: impl Fn(&Trial) -> Option<f64>) -> Option<Estimate> {
        let pairs = self.trials(of).iter().zip(self.trials(to));
        let ratios: Vec<_> = pairs.filter_map(|(of, to)| Some(measure(of)? / measure(to)?)).collect();
        Estimate::from_values(&ratios)
    }

    fn estimate(&self, program: &str, measure: impl Fn(&Trial) -> Option<f64>) -> Option<Estimate> {
        let values: Vec<_> = self.trials(program).iter().filter_map(measure).collect();
        Estimate::from_values(&values)
    }
}

pub fn cold_ms(trial: &Trial) -> Option<f64> {
    Some(trial.cold_ms())
}

/// The cold start without the delays of the network, in ms.
pub fn own_cold_ms(trial: &Trial) -> Option<f64> {
    Some(trial.own_cold_ms())
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
    /// Cold starts as they are deployed, by the delay to Secrets Manager in ms: the settings are in a secret, and the CPU
    /// share is that of the template's memory size.
    pub deployed: Vec<(f64, Measured)>,
    /// Direct connections to the database, no CPU limit.
    pub direct: Measured,
    /// With the CPU share of 128 MB.
    pub small: Measured,
    /// With the CPU share of 128 MB, and calls that come at a fixed rate. Only the programs that can keep up.
    pub load: Measured,
    /// Through PgBouncer.
    pub pooled: Measured,
    /// With an added latency per round trip, in ms.
    pub delayed: Vec<(f64, Measured)>,
    /// The machine and its load.
    pub machine: String,
}

/// A limit and the measured value.
struct Limit {
    /// What is measured, for people. Limits with the same text are one row of the table.
    what: String,
    /// What distinguishes limits with the same text.
    of: String,
    limit: f64,
    estimate: Estimate,
    is_ratio: bool,
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

    fn text(&self, value: f64) -> String {
        if self.is_ratio { ratio(value) } else { number(value) }
    }

    /// A row of the table from limits with the same text.
    fn row(group: &[Self]) -> Option<Vec<String>> {
        let by_median = |a: &&Self, b: &&Self| a.estimate.median.total_cmp(&b.estimate.median);
        let (least, most) = (group.iter().min_by(by_median)?, group.iter().max_by(by_median)?);
        let (median, interval) = if let [only] = group {
            let Estimate { median, low, high } = only.estimate;
            (only.text(median), format!("{} to {}", only.text(low), only.text(high)))
        } else {
            (format!("{} to {}", least.text(least.estimate.median), most.text(most.estimate.median)), String::new())
        };
        let missed: Vec<_> = group.iter().filter(|limit| limit.verdict() == "DOES NOT HOLD").collect();
        let verdict = match missed.as_slice() {
            [] if group.iter().all(|limit| limit.verdict() == "holds") => "met".to_owned(),
            [] => "met, narrowly".to_owned(),
            _ if group.len() == 1 => "**not met**".to_owned(),
            missed => {
                let names: Vec<_> = missed.iter().map(|limit| limit.of.as_str()).collect();
                format!("**not met**: {}", names.join(", "))
            }
        };
        Some(vec![most.what.clone(), most.text(most.limit), median, interval, verdict])
    }
}

/// A table with its title.
struct Section {
    /// The name between the markers in docs/performance.md.
    name: &'static str,
    title: String,
    headers: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Section {
    /// The table as docs/performance.md has it. The texts must not contain `|`.
    fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let rule = format!("|---|{}\n", "---:|".repeat(self.headers.len().saturating_sub(1)));
        let rows: String = self.rows.iter().map(|row| line(row)).collect();
        format!("{}:\n\n{}{rule}{rows}", self.title, line(&self.headers))
    }

    /// Replaces what is between this table's markers in a page. A page without them stays as it is.
    fn publish(&self, page: &str) -> String {
        let (begin, end) = (format!("<!-- BEGIN {} -->\n", self.name), format!("<!-- END {} -->", self.name));
        let parts = page.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
        match parts {
            Some((before, after)) => format!("{before}{begin}{}{end}{after}", self.markdown()),
            None => page.to_owned(),
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

    /// The deployed cold starts at a delay to Secrets Manager.
    fn deployed_at(&self, delay_ms: f64) -> Option<&Measured> {
        self.deployed.iter().find(|(delay, _)| *delay == delay_ms).map(|(_, measured)| measured)
    }

    /// Returns the median at the delay at which the deployed cold starts are compared.
    pub fn deployed_median(&self, program: &str, measure: impl Fn(&Trial) -> Option<f64>) -> Option<f64> {
        self.deployed_at(DEPLOYED_DELAY_MS)?.median(program, measure)
    }

    fn limits(&self) -> Vec<Limit> {
        let mut limits = Vec::new();
        let mut add = |what: &str, of: &str, limit: f64, is_ratio: bool, estimate: Option<Estimate>| {
            let (what, of) = (what.to_owned(), of.to_owned());
            limits.extend(estimate.map(|estimate| Limit { what, of, limit, estimate, is_ratio }));
        };
        let (direct, small, load) = (&self.direct, &self.small, &self.load);
        let list = Route::List;
        for (to, name, limit) in [
            ("floor", "the floor's", 1.25),
            ("python", "FastAPI's", 1.0 / 10.0),
            ("node", "Hono's", 1.0 / 3.0),
            ("rust_monolith", "axum's", 1.0 / 2.0),
        ] {
            let what = format!("deployed cold start without the network's delays / {name}");
            let deployed = self.deployed_at(DEPLOYED_DELAY_MS);
            add(&what, to, limit, true, deployed.and_then(|it| it.ratio(OURS, to, own_cold_ms)));
        }
        for (of, name) in [(OURS, "first call, round trips"), (PREPARED, "first call, prepared, round trips")] {
            let deployed = self.deployed_at(DEPLOYED_DELAY_MS);
            add(name, of, 1.0, false, deployed.and_then(|it| it.estimate(of, |trial| trial.first_round_trips)));
        }
        for (to, name, limit) in [
            ("floor", "the floor's", 1.15),
            ("python", "FastAPI's", 1.0 / 20.0),
            ("node", "Hono's", 1.0 / 5.0),
            ("rust_monolith", "axum's", 1.0 / 4.0),
        ] {
            add(&format!("cold start / {name}"), to, limit, true, direct.ratio(OURS, to, cold_ms));
        }
        add("list p50 / the floor's", "floor", 1.10, true, direct.ratio(OURS, "floor", p50_ms(list)));
        add("list CPU / the floor's", "floor", 1.5, true, direct.ratio(OURS, "floor", cpu_ms(list)));
        let prepared = |to, measure: &dyn Fn(&Trial) -> Option<f64>| direct.ratio(PREPARED, to, measure);
        add("list p50, prepared / the floor's", "floor", 0.75, true, prepared("floor", &p50_ms(list)));
        let to = "floor_prepared";
        add("list p50, prepared / the prepared floor's", to, 1.15, true, prepared(to, &p50_ms(list)));
        for route in Route::SHARED.into_iter().chain(Route::OURS) {
            let what = "every route's p50, prepared / unprepared";
            add(what, route.name(), 0.8, true, prepared(OURS, &p50_ms(route)));
        }
        let what = "the database's CPU for a list, prepared / unprepared";
        add(what, OURS, 0.6, true, prepared(OURS, &|trial| trial.database_cpu_ms));
        let what = "list p50 at 128 MB / the floor's";
        add(what, "floor", 1.5, true, small.ratio(OURS, "floor", p50_ms(list)));
        let axum = "rust_monolith";
        for (what, estimate) in [
            ("list mean at 128 MB, one call after the other / axum's", small.ratio(OURS, axum, mean_ms(list))),
            ("list mean at 128 MB, 200 calls a second / axum's", load.ratio(OURS, axum, mean_ms(list))),
            ("list p99 at 128 MB, 200 calls a second / axum's", load.ratio(OURS, axum, p99_ms(list))),
        ] {
            add(what, axum, 1.0 / 4.0, true, estimate);
        }
        for to in ["python", "node", axum] {
            for route in Route::SHARED {
                let of = format!("{} of {to}", route.name());
                let what = "every route's p50 / each of the others'";
                add(what, &of, 1.0, true, direct.ratio(OURS, to, p50_ms(route)));
            }
        }
        for of in [OURS, PREPARED] {
            let memory = direct.estimate(of, |trial| Some(trial.peak_memory_mb));
            add("peak memory, MB", of, MEMORY_LIMIT_MB, false, memory);
        }
        let packages = self.programs.iter().filter(|program| program.name == OURS).flat_map(|ours| &ours.packages);
        let sizes = packages.filter_map(|package| Some(fs::metadata(package).ok()?.len() as f64 / 1_000_000.0));
        let largest = Estimate::from_values(sizes.max_by(f64::total_cmp).as_slice());
        add("the largest API function's package, MB", OURS, PACKAGE_LIMIT_MB, false, largest);
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
        for section in self.sections() {
            let headers: Vec<_> = section.headers.iter().map(String::as_str).collect();
            println!("\n{}\n\n{}", section.title, table(&headers, &section.rows));
        }
    }

    /// The tables in the form of docs/performance.md.
    pub fn markdown(&self) -> String {
        let sections: Vec<_> = self.sections().iter().map(Section::markdown).collect();
        format!("{}\n\n{}", self.machine, sections.join("\n"))
    }

    /// Writes the tables into docs/performance.md, between their markers.
    pub fn publish(&self, page: &str) -> String {
        self.sections().iter().fold(page.to_owned(), |page, section| section.publish(&page))
    }

    fn sections(&self) -> Vec<Section> {
        let mut sections = Vec::new();
        let mut add = |name, title: String, columns: &[Column<'_>]| sections.extend(self.section(name, title, columns));
        let deployed = |measure: Measure| move |it: &Program| self.deployed_median(it.name, measure);
        let mut columns: Vec<Column<'_>> = Vec::new();
        for (_, measured) in &self.deployed {
            columns.push((measured.plan.name, Box::new(|it| measured.median(it.name, cold_ms))));
        }
        columns.push(("10 ms, without the network", Box::new(deployed(own_cold_ms))));
        columns.push(("Init ms", Box::new(deployed(|trial| Some(trial.init_ms)))));
        columns.push(("first call ms", Box::new(deployed(|trial| Some(trial.first_ms)))));
        columns.push(("round trips to the secret", Box::new(deployed(|trial| trial.secret_round_trips))));
        columns.push(("to the database, Init", Box::new(deployed(|trial| trial.init_round_trips))));
        columns.push(("first call", Box::new(deployed(|trial| trial.first_round_trips))));
        let rounds = self.deployed_at(DEPLOYED_DELAY_MS).map_or(0, |measured| measured.plan.rounds);
        add("deployed", format!("Deployed cold start in ms, medians of {rounds} rounds"), &columns);
        sections.push(self.limits_section());

        let mut add = |name, title: String, columns: &[Column<'_>]| sections.extend(self.section(name, title, columns));
        let direct = &self.direct;
        let columns: [Column<'_>; 13] = [
            ("Init ms", Box::new(|it| direct.median(it.name, |trial| Some(trial.init_ms)))),
            ("first call ms", Box::new(|it| direct.median(it.name, |trial| Some(trial.first_ms)))),
            ("cold total ms", Box::new(|it| direct.median(it.name, cold_ms))),
            ("list p50 ms", Box::new(|it| direct.median(it.name, p50_ms(Route::List)))),
            ("list p99 ms", Box::new(|it| direct.median(it.name, p99_ms(Route::List)))),
            ("CPU ms a call", Box::new(|it| direct.median(it.name, cpu_ms(Route::List)))),
            ("database CPU ms", Box::new(|it| direct.median(it.name, |trial| trial.database_cpu_ms))),
            ("peak MB", Box::new(|it| direct.median(it.name, |trial| Some(trial.peak_memory_mb)))),
            ("package kB", Box::new(Self::package_kb)),
            ("round trips", Box::new(|it| self.round_trips(it.name, Route::List))),
            ("list p50 ms at 128 MB", Box::new(|it| self.small.median(it.name, p50_ms(Route::List)))),
            ("mean", Box::new(|it| self.small.median(it.name, mean_ms(Route::List)))),
            ("p99, 200 calls a second", Box::new(|it| self.load.median(it.name, p99_ms(Route::List)))),
        ];
        let title = "Settings in the environment, and a list of 50. Medians of";
        add("direct", format!("{title} {} rounds", direct.plan.rounds), &columns);

        let by_route = |value: fn(&Self, &Program, Route) -> Option<f64>| -> Vec<Column<'_>> {
            let routes = Route::SHARED.into_iter().chain(Route::OURS);
            routes
                .map(|route| -> Column<'_> { (route.name(), Box::new(move |it: &Program| value(self, it, route))) })
                .collect()
        };
        let p50 = by_route(|report, it, route| report.direct.median(it.name, p50_ms(route)));
        add("p50", "p50 by route, ms".to_owned(), &p50);
        let p99 = by_route(|report, it, route| report.direct.median(it.name, p99_ms(route)));
        add("p99", "p99 by route, ms".to_owned(), &p99);
        let cpu = by_route(|report, it, route| report.direct.median(it.name, cpu_ms(route)));
        add("cpu", "CPU by route, ms".to_owned(), &cpu);
        let trips = by_route(|report, it, route| report.round_trips(it.name, route));
        add("round-trips", "Round trips by route".to_owned(), &trips);
        let mut ways: Vec<Column<'_>> =
            vec![("direct", Box::new(|it| self.direct.median(it.name, p50_ms(Route::List))))];
        ways.push(("PgBouncer", Box::new(|it| self.pooled.median(it.name, p50_ms(Route::List)))));
        for (_, measured) in &self.delayed {
            ways.push((measured.plan.name, Box::new(|it| measured.median(it.name, p50_ms(Route::List)))));
        }
        add("ways", "List p50 by the way to the database, ms".to_owned(), &ways);
        sections
    }

    /// A table with a row for each program that has a value. `None` if no program has one.
    fn section(&self, name: &'static str, title: String, columns: &[Column<'_>]) -> Option<Section> {
        let headers = std::iter::once("").chain(columns.iter().map(|(name, _)| *name)).map(str::to_owned).collect();
        let row = |program: &Program| {
            let values: Vec<_> = columns.iter().map(|(_, value)| value(program)).collect();
            values.iter().any(Option::is_some).then(|| {
                let name = if program.name == OURS { "**ours**".to_owned() } else { program.title.to_owned() };
                let cells = values.into_iter().map(|value| value.map_or_else(|| "–".to_owned(), number));
                std::iter::once(name).chain(cells).collect()
            })
        };
        let rows: Vec<_> = self.programs.iter().filter_map(row).collect();
        (!rows.is_empty()).then_some(Section { name, title, headers, rows })
    }

    fn limits_section(&self) -> Section {
        let limits = self.limits();
        let rows = limits.chunk_by(|a, b| a.what == b.what).filter_map(Limit::row).collect();
        let headers = ["measure", "at most", "median", "95 % interval", ""].map(str::to_owned).into();
        Section {
            name: "limits",
            title: "Our limits: medians of the ratios within each round".to_owned(),
            headers,
            rows,
        }
    }

    fn all(&self) -> impl Iterator<Item = &Measured> {
        let plans = [&self.direct, &self.small, &self.load, &self.pooled];
        let by_delay = self.deployed.iter().chain(&self.delayed).map(|(_, measured)| measured);
        plans.into_iter().chain(by_delay)
    }

    /// The contents of results.json.
    pub fn json(&self) -> Value {
        let programs: Map<_, _> =
            self.programs.iter().map(|program| (program.name.to_owned(), self.program_json(program))).collect();
        let limits: Vec<_> = self
            .limits()
            .iter()
            .map(|it| json!({"what": it.what, "of": it.of, "limit": it.limit, "measured": it.estimate, "verdict": it.verdict()}))
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
                    "cold_total": self.direct.ratio(OURS, other.name, cold_ms),
                    "warm_list_p50": self.direct.ratio(OURS, other.name, p50_ms(Route::List)),
                    "cpu_per_call": self.direct.ratio(OURS, other.name, cpu_ms(Route::List)),
                    "deployed_cold": self.deployed_at(DEPLOYED_DELAY_MS).and_then(|it| it.ratio(OURS, other.name, own_cold_ms)),
                    "warm_list_p50_128mb": self.small.ratio(OURS, other.name, p50_ms(Route::List)),
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
        let by_delay = self.deployed.iter();
        let deployed: Map<_, _> = by_delay
            .map(|(_, it)| {
                let values = json!({
                    "cold_ms": it.median(name, cold_ms),
                    "cold_ms_without_network": it.median(name, own_cold_ms),
                    "init_ms": it.median(name, |trial| Some(trial.init_ms)),
                    "first_call_ms": it.median(name, |trial| Some(trial.first_ms)),
                    "secret_round_trips": it.median(name, |trial| trial.secret_round_trips),
                    "init_round_trips": it.median(name, |trial| trial.init_round_trips),
                    "first_call_round_trips": it.median(name, |trial| trial.first_round_trips),
                });
                (it.plan.name.to_owned(), values)
            })
            .collect();
        json!({
            "deployed_cold_ms": self.deployed_median(name, cold_ms),
            "deployed_cold_ms_without_network": self.deployed_median(name, own_cold_ms),
            "first_call_round_trips": self.deployed_median(name, |trial| trial.first_round_trips),
            "deployed": deployed,
            "database_cpu_ms_per_call": direct(|trial| trial.database_cpu_ms),
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
            "warm_list_mean_ms_128mb_load": self.load.median(name, mean_ms(Route::List)),
            "warm_list_p99_ms_128mb_load": self.load.median(name, p99_ms(Route::List)),
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

/// Formats a ratio: small ones as `1/20`.
fn ratio(value: f64) -> String {
    match 1.0 / value {
        inverse @ 2.0..10.0 => format!("1/{}", format!("{inverse:.1}").trim_end_matches(".0")),
        inverse @ 10.0.. => format!("1/{inverse:.0}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(of: &str, limit: f64, median: f64, low: f64) -> Limit {
        let estimate = Estimate { median, low, high: median * 2.0 };
        Limit { what: "cold start".to_owned(), of: of.to_owned(), limit, estimate, is_ratio: true }
    }

    #[test]
    fn a_limit_is_a_row_with_its_interval_and_verdict() {
        let row = |it: Limit| Limit::row(&[it]).expect("a row").join(" | ");
        assert_eq!(row(limit("a", 0.05, 0.03, 0.02)), "cold start | 1/20 | 1/33 | 1/50 to 1/17 | met");
        assert_eq!(row(limit("a", 1.25, 1.5, 1.2)), "cold start | 1.25 | 1.50 | 1.20 to 3.00 | met, narrowly");
        assert_eq!(row(limit("a", 0.8, 0.9, 0.85)), "cold start | 0.80 | 0.90 | 0.85 to 1.80 | **not met**");
    }

    #[test]
    fn limits_of_one_kind_are_a_row_that_names_those_that_are_not_met() {
        let group = [limit("get", 0.8, 0.3, 0.2), limit("list", 0.8, 0.9, 0.85), limit("create", 0.8, 0.7, 0.6)];
        let row = Limit::row(&group).expect("a row").join(" | ");
        assert_eq!(row, "cold start | 0.80 | 1/3.3 to 0.90 |  | **not met**: list");
        assert!(Limit::row(&[]).is_none());
    }

    #[test]
    fn a_table_is_pasted_as_it_is() {
        let text = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
        let rows = vec![text(&["**ours**", "1"]), text(&["floor", "2"])];
        let section = Section { name: "a", title: "A title".to_owned(), headers: text(&["", "ms"]), rows };
        assert_eq!(section.markdown(), "A title:\n\n|  | ms |\n|---|---:|\n| **ours** | 1 |\n| floor | 2 |\n");

        let page = "before\n<!-- BEGIN a -->\nold\n<!-- END a -->\nafter <!-- BEGIN b -->";
        let published = section.publish(page);
        assert_eq!(published, page.replace("old\n", &section.markdown()));
        assert_eq!(section.publish(&published), published);
        assert_eq!(section.publish("no markers"), "no markers");
    }
}
