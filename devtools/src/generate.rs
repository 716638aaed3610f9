//! `cargo xtask generate`: generates parts of template.yaml and Cargo.toml from the routes of openapi.yaml. Markers
//! enclose them.
use anyhow::{Context as _, Result, bail, ensure};
use similar::{ChangeTag, TextDiff};
use std::{collections::BTreeSet, fs, ops::Range};
use testing::{OpenApi, Route, Secret, logical_id};
use xtask::{cli::Generate, place::root, step};

/// Template of a function with its log, role and alarm, for template.yaml.
const FUNCTION: &str = include_str!("generate/function.yaml");
const COMMAND: &str = "cargo xtask generate";
/// Maximum number of printed lines per difference.
const MAX_DIFF_LINES: usize = 12;

/// A generated part of a file, between the markers `# BEGIN GENERATED name:` and `# END GENERATED name`.
struct Block {
    name: &'static str,
    text: String,
}

impl Block {
    /// Finds the range between the markers in a file's text.
    fn place(&self, text: &str) -> Result<Range<usize>> {
        let (begin, end) = (format!("# BEGIN GENERATED {}:", self.name), format!("# END GENERATED {}\n", self.name));
        let (Some(begins), Some(ends)) = (text.find(&begin), text.find(&end)) else {
            bail!("the lines '{begin} ...' and '{}' are missing", end.trim_end());
        };
        let begins = begins + text[begins..].find('\n').map_or(0, |length| length + 1);
        let ends = text[..ends].rfind('\n').map_or(0, |before| before + 1);
        ensure!(begins <= ends, "'{}' comes before '{begin} ...'", end.trim_end());
        Ok(begins..ends)
    }
}

/// Writes the files; with `--check`, fails with the differences instead.
pub fn generate(options: &Generate) -> Result<()> {
    let openapi = OpenApi::read()?;
    check(&openapi)?;
    let template = [
        Block { name: "throttles", text: throttles(&openapi) },
        Block { name: "functions", text: functions(&openapi)? },
        Block { name: "alarms", text: alarms(&openapi) },
    ];
    let manifest = [Block { name: "router", text: router(&openapi) }];
    let mut differences = Vec::new();
    for (file, blocks) in [("template.yaml", &template[..]), ("Cargo.toml", &manifest[..])] {
        let path = root().join(file);
        let is = fs::read_to_string(&path).with_context(|| format!("{file} cannot be read"))?;
        let mut should_be = is.clone();
        for block in blocks {
            let place = block.place(&is).with_context(|| file.to_owned())?;
            if let Some((line, lines)) = difference(&is[place.clone()], &block.text) {
                let line = is[..place.start].lines().count() + line;
                differences.push(format!("{file}:{line} differs from openapi.yaml (- actual, + expected):\n{lines}"));
            }
            should_be.replace_range(block.place(&should_be)?, &block.text);
        }
        if !options.check && is != should_be {
            fs::write(&path, should_be).with_context(|| format!("{file} cannot be written"))?;
            step(format!("Wrote {file}"));
        }
    }
    ensure!(
        !options.check || differences.is_empty(),
        "{}\nThese lines are generated: run '{COMMAND}', and change openapi.yaml where they are not what you want",
        differences.join("\n")
    );
    if options.check {
        println!("template.yaml and Cargo.toml have the {} routes of openapi.yaml.", openapi.routes.len());
    }
    Ok(())
}

/// Fails if the routes are inconsistent.
fn check(openapi: &OpenApi) -> Result<()> {
    let mut problems = missing_twins(openapi);
    for (function, routes) in openapi.functions() {
        let file = format!("functions/src/bin/{function}.rs");
        if !root().join(&file).is_file() {
            problems.push(format!("{file} is missing: {} names it as its x-function", routes[0]));
        }
        if let Some(route) = routes.iter().find(|route| route.secret != routes[0].secret) {
            problems.push(format!("{} and {route} are one function, and need different secrets", routes[0]));
        }
        let mut events = BTreeSet::new();
        let is_taken = |route: &&&Route| !route.gateway_paths().iter().all(|path| events.insert(event_name(path)));
        if let Some(route) = routes.iter().find(is_taken) {
            problems
                .push(format!("{route}: its function answers this path already; one more method is one more function"));
        }
    }
    ensure!(problems.is_empty(), "openapi.yaml: {}", problems.join("\nopenapi.yaml: "));
    Ok(())
}

/// Returns a problem for each task route whose twin (with or without `{user_id}`) is missing or has another function.
fn missing_twins(openapi: &OpenApi) -> Vec<String> {
    let twin_of = |route: &Route| {
        let twin = match route.path.strip_prefix("/api/{user_id}/") {
            Some(rest) => format!("/api/{rest}"),
            None => format!("/api/{{user_id}}/{}", route.path.strip_prefix("/api/")?),
        };
        let is_of_tasks = route.path.split('/').any(|segment| segment == "tasks");
        is_of_tasks.then_some(twin)
    };
    let mut missing = Vec::new();
    for route in &openapi.routes {
        let Some(twin) = twin_of(route) else { continue };
        let is_twin = |other: &&Route| other.path == twin && other.method == route.method;
        match openapi.routes.iter().find(is_twin) {
            None => {
                missing.push(format!("{route} has no twin {} {twin} (x-function: {})", route.method, route.function))
            }
            Some(other) if other.function != route.function => {
                missing.push(format!("{route} and its twin {other} have different functions"));
            }
            Some(other) if other.accepts_slash != route.accepts_slash => {
                missing.push(format!("{route} and its twin {other} need the same x-trailing-slash"));
            }
            Some(_) => {}
        }
    }
    missing
}

fn throttles(openapi: &OpenApi) -> String {
    let mut text = String::new();
    for route in openapi.functions().iter().flat_map(|(_, routes)| routes) {
        let Some(limit) = route.throttle else { continue };
        for path in route.gateway_paths() {
            text += &format!(
                "        \"{} {path}\": {{ ThrottlingRateLimit: {}, ThrottlingBurstLimit: {} }}\n",
                route.method, limit.rate, limit.burst
            );
        }
    }
    text
}

fn functions(openapi: &OpenApi) -> Result<String> {
    let mut text = "\n".to_owned();
    for (program, routes) in openapi.functions() {
        let (secret, note) = match routes[0].secret {
            Secret::Api => (Some("Api"), ""),
            Secret::Database => (Some("Database"), ""),
            Secret::None => (None, ": public, without a session and without the database, so it gets no secret."),
        };
        let events: Vec<_> = routes.iter().flat_map(|route| events(route)).collect();
        let mut function = FUNCTION
            .replace("<Name>", &logical_id(program))
            .replace("<program>", program)
            .replace("<events>", &events.join("\n"));
        match secret {
            Some(secret) => function = function.replace("<Secret>", secret),
            None => {
                let kept = function.replace(", { Ref: Read<Secret>Secret }", "");
                function =
                    kept.lines().filter(|line| !line.contains("<Secret>")).map(|line| format!("{line}\n")).collect();
            }
        }
        ensure!(!function.contains("<Secret>"), "devtools/src/generate/function.yaml has a place that is not filled");
        text += &format!("  # {program}{note}\n{function}\n");
    }
    Ok(text)
}

fn events(route: &Route) -> Vec<String> {
    let event = |path: String| {
        let name = event_name(&path);
        let quoted = if path.contains('{') { format!("\"{path}\"") } else { path };
        let method = &route.method;
        format!(
            "        {name}: {{ Type: HttpApi, Properties: {{ ApiId: {{ Ref: Api }}, Method: {method}, Path: {quoted} }} }}"
        )
    };
    route.gateway_paths().into_iter().map(event).collect()
}

/// Returns the name of a route's event: `UserTaskComplete` for `/api/{user_id}/tasks/{id}/complete`.
fn event_name(path: &str) -> String {
    let mut name = String::new();
    for segment in path.split('/').filter(|segment| !segment.is_empty() && *segment != "api") {
        match segment.strip_prefix('{').and_then(|it| it.strip_suffix('}')) {
            Some("user_id") => name.push_str("User"),
            Some(parameter) if parameter.ends_with('+') => name.push_str("Slash"),
            // One item of the collection: `tasks/{id}` is `Task`.
            Some("id") if name.ends_with('s') => drop(name.pop()),
            Some(parameter) => name.push_str(&logical_id(parameter)),
            None => name.push_str(&logical_id(segment)),
        }
    }
    name
}

fn alarms(openapi: &OpenApi) -> String {
    let line = |(program, _): &(&str, _)| {
        format!("                - {{ \"Fn::GetAtt\": [{}Errors, Arn] }}\n", logical_id(program))
    };
    openapi.functions().iter().map(line).collect()
}

fn router(openapi: &OpenApi) -> String {
    let mut text = String::new();
    for routes in openapi.routes.chunk_by(|one, next| one.path == next.path) {
        let target = |route: &Route| format!("{{ method = \"{}\", function = \"{}\" }}", route.method, route.function);
        let targets = match routes {
            [route] => format!("[{}]", target(route)),
            routes => {
                format!("[\n{}]", routes.iter().map(|route| format!("  {},\n", target(route))).collect::<String>())
            }
        };
        // Unlike API Gateway's, the router of `cargo lambda watch` has routes that end with a slash.
        let endings: &[&str] = if routes[0].accepts_slash { &["", "/"] } else { &[""] };
        for ending in endings {
            text += &format!("\"{}{ending}\" = {targets}\n", routes[0].path);
        }
    }
    text
}

/// Returns the number of the first differing line, and the differing lines: `-` for actual, `+` for expected ones.
fn difference(is: &str, should_be: &str) -> Option<(usize, String)> {
    let all = TextDiff::from_lines(is, should_be);
    let changes: Vec<_> = all.iter_all_changes().filter(|change| change.tag() != ChangeTag::Equal).collect();
    let first = is.lines().zip(should_be.lines()).take_while(|(one, other)| one == other).count() + 1;
    let mut lines: String = changes
        .iter()
        .take(MAX_DIFF_LINES)
        .map(|change| format!("{} {}\n", change.tag(), change.value().trim_end()))
        .collect();
    if changes.len() > MAX_DIFF_LINES {
        lines += &format!("... and {} lines more\n", changes.len() - MAX_DIFF_LINES);
    }
    (!changes.is_empty()).then_some((first, lines))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn openapi(paths: &str) -> std::io::Result<OpenApi> {
        OpenApi::parse(&format!("x-write-throttle: {{ rate: 50, burst: 100 }}\npaths:\n{paths}"))
    }

    fn path(path: &str, method: &str, function: &str) -> String {
        format!("  {path}:\n    {method}:\n      x-function: {function}\n      responses: {{ \"200\": {{}} }}\n")
    }

    #[test]
    fn an_event_is_named_after_its_path() {
        for (path, name) in [
            ("/api/tasks", "Tasks"),
            ("/api/{user_id}/tasks", "UserTasks"),
            ("/api/tasks/{id}", "Task"),
            ("/api/{user_id}/tasks/{id}/complete", "UserTaskComplete"),
            ("/api/tasks/count", "TasksCount"),
            ("/api/{user_id}/tasks/{proxy+}", "UserTasksSlash"),
            ("/openapi.json", "OpenapiJson"),
            ("/docs/{file}", "DocsFile"),
        ] {
            assert_eq!(event_name(path), name);
        }
    }

    #[test]
    fn a_route_of_tasks_has_a_twin() {
        let one = path("/api/tasks/count", "get", "count-tasks");
        let [missing] = &missing_twins(&openapi(&one).unwrap())[..] else { panic!("one twin is missing") };
        let expected = "GET /api/tasks/count has no twin GET /api/{user_id}/tasks/count (x-function: count-tasks)";
        assert_eq!(missing, expected);
        let other = |function| openapi(&(one.clone() + &path("/api/{user_id}/tasks/count", "get", function))).unwrap();
        assert_eq!(missing_twins(&other("count-tasks")), [""; 0]);
        assert_eq!(missing_twins(&other("list-tasks")).len(), 2);
        let slash =
            one.clone() + "    x-trailing-slash: true\n" + &path("/api/{user_id}/tasks/count", "get", "count-tasks");
        assert!(missing_twins(&openapi(&slash).unwrap())[0].ends_with("need the same x-trailing-slash"));
        let reversed = openapi(&path("/api/{user_id}/tasks/count", "get", "count-tasks")).unwrap();
        assert_eq!(missing_twins(&reversed).len(), 1);
        assert_eq!(missing_twins(&openapi(&path("/api/session", "get", "session")).unwrap()), [""; 0]);
    }

    #[test]
    fn an_operation_that_lacks_something_is_named() {
        let error = |paths: &str| openapi(paths).err().unwrap().to_string();
        let nothing = error("  /x:\n    get:\n      responses: { \"200\": {} }\n");
        assert!(nothing.starts_with("openapi.yaml: GET /x: x-function is missing"), "{nothing}");
        let public = path("/x", "get", "x") + "      security: []\n";
        assert!(error(&public).contains("x-secret has to be `database` or `none`"));
        assert!(error(&(path("/x", "get", "x") + "      x-secret: none\n")).contains("only for operations with"));
        let slash = "    x-trailing-slash: ";
        assert!(error(&(path("/x", "get", "x") + slash + "1\n")).contains("x-trailing-slash has to be `true`"));
        assert!(error(&(public + "      x-secret: none\n" + slash + "true\n")).contains("operations with a session"));
    }

    #[test]
    fn a_write_is_throttled_and_a_read_is_not() {
        let both = openapi(&(path("/a", "get", "a") + &path("/b", "put", "b"))).unwrap();
        assert_eq!(throttles(&both), "        \"PUT /b\": { ThrottlingRateLimit: 50, ThrottlingBurstLimit: 100 }\n");
    }

    #[test]
    fn a_trailing_slash_is_a_greedy_route_of_api_gateway_with_the_same_limit() {
        let slash = openapi(&(path("/api/lists", "post", "x") + "    x-trailing-slash: true\n")).unwrap();
        let limit = "{ ThrottlingRateLimit: 50, ThrottlingBurstLimit: 100 }";
        let expected =
            format!("        \"POST /api/lists\": {limit}\n        \"POST /api/lists/{{proxy+}}\": {limit}\n");
        assert_eq!(throttles(&slash), expected);
        let paths: Vec<_> = events(&slash.routes[0]);
        assert!(paths[0].contains(" Lists: ") && paths[0].contains("Path: /api/lists }"), "{paths:?}");
        assert!(
            paths[1].contains(" ListsSlash: ") && paths[1].contains("Path: \"/api/lists/{proxy+}\" }"),
            "{paths:?}"
        );
        let target = "[{ method = \"POST\", function = \"x\" }]";
        assert_eq!(router(&slash), format!("\"/api/lists\" = {target}\n\"/api/lists/\" = {target}\n"));
    }

    #[test]
    fn the_text_between_the_markers_is_found_and_compared() {
        let text = "a\n  # BEGIN GENERATED x: how\n  old\n  # END GENERATED x\nb\n";
        let block = |name| Block { name, text: String::new() };
        assert_eq!(&text[block("x").place(text).unwrap()], "  old\n");
        let error = block("y").place(text).unwrap_err().to_string();
        assert!(error.contains("# BEGIN GENERATED y:"), "{error}");
        assert_eq!(difference("a\nold\nb\n", "a\nnew\nb\n"), Some((2, "- old\n+ new\n".to_owned())));
        assert_eq!(difference("a\nb\n", "a\nb\nc\n"), Some((3, "+ c\n".to_owned())));
        assert_eq!(difference("a\n", "a\n"), None);
        let moved = difference("a\nb\nc\nd\n", "b\nc\na\nd\n");
        assert_eq!(moved, Some((1, "- a\n+ a\n".to_owned())), "what stays is not shown");
    }
}
