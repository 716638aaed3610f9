//! Checks that openapi.yaml, the local gateway's routes, template.yaml and the functions agree, and that responses
//! match openapi.yaml.
use crate::api::Answer;
use jsonschema::Validator;
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    path::Path,
    sync::{Arc, LazyLock, Mutex},
};
use testing::{OpenApi, Route};

/// The project's openapi.yaml.
pub static OPENAPI: LazyLock<OpenApi> = LazyLock::new(|| OpenApi::read().unwrap_or_else(|error| panic!("{error}")));

/// Every route of openapi.yaml.
pub static ROUTES: LazyLock<&[Route]> = LazyLock::new(|| &OPENAPI.routes);

/// Fails if two sets differ. The message names the file, the rule, what is missing and what is too much, and the
/// command that runs this test alone.
pub fn assert_same(file: &str, actual: &BTreeSet<String>, expected: &BTreeSet<String>, rule: &str) {
    let list = |title: &str, names: Vec<&String>| -> String {
        names.iter().map(|name| format!("\n  {title} {name}")).collect()
    };
    let missing = list("missing: ", expected.difference(actual).collect());
    let too_much = list("too much:", actual.difference(expected).collect());
    if !(missing.is_empty() && too_much.is_empty()) {
        let thread = std::thread::current();
        let test = thread.name().unwrap_or_default();
        panic!("{file}: {rule}{missing}{too_much}\nTo run only this test: 'cargo xtask test api --filter {test}'");
    }
}

/// Fails if a response does not match openapi.yaml: its status, headers, media type, and body by JSON Schema.
pub fn check_answer(route: &Route, answer: &Answer) {
    let operation = &OPENAPI.document["paths"][&route.path][&route.method.to_lowercase()];
    let response = OPENAPI.resolve(&operation["responses"][&answer.status.to_string()]);
    let place = format!("the {} of {} {}", answer.status, route.method, route.path);
    assert!(response.is_object(), "openapi.yaml does not have {place}");
    let declared = response["headers"].as_object().expect("headers");
    for name in answer.headers.keys().filter(|name| *name != "content-type") {
        let header = declared.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        let (_, header) = header.unwrap_or_else(|| panic!("openapi.yaml has no header {name} for {place}"));
        check_value(&answer.headers[name], &OPENAPI.resolve(header)["schema"], &format!("{name} in {place}"));
    }
    for (name, header) in declared.iter().filter(|(_, header)| OPENAPI.resolve(header)["required"] == true) {
        assert!(answer.header(&name.to_lowercase()).is_some(), "{place} has no {name}: {header}");
    }
    let content = response["content"].as_object();
    let media_type = content.and_then(|content| {
        let is_sent_type = |known: &&String| answer.header("content-type").is_some_and(|it| it.starts_with(&***known));
        content.keys().find(is_sent_type).or(content.keys().next())
    });
    let sent = answer.header("content-type").map(|it| it.split(';').next().unwrap_or(it));
    assert_eq!(sent, media_type.map(String::as_str), "{place}");
    if let (Some(content), Some("application/json" | "application/problem+json")) = (content, sent) {
        check_value(&answer.body, &content[sent.expect("a type")]["schema"], &place);
    }
}

/// Checks a value against a schema of openapi.yaml (JSON Schema 2020-12).
fn check_value(value: &Value, schema: &Value, place: &str) {
    static VALIDATORS: LazyLock<Mutex<HashMap<String, Arc<Validator>>>> = LazyLock::new(Mutex::default);
    let text = schema.to_string();
    let known = VALIDATORS.lock().expect("no panic").get(&text).cloned();
    let validator = known.unwrap_or_else(|| {
        let whole = json!({"components": OPENAPI.document["components"], "allOf": [schema]});
        let options = jsonschema::draft202012::options().should_validate_formats(true);
        let validator =
            Arc::new(options.build(&whole).unwrap_or_else(|error| panic!("the schema of {place}: {error}")));
        VALIDATORS.lock().expect("no panic").insert(text, validator.clone());
        validator
    });
    if let Err(error) = validator.validate(value) {
        panic!("{place} does not match openapi.yaml: {error} at {}: {value}", error.instance_path());
    }
}

/// Returns the routes as text, for comparison, with those that `x-trailing-slash` adds: the path with this ending.
fn route_names(slash: &str) -> BTreeSet<String> {
    let names = |route: &Route| {
        let endings: &[&str] = if route.accepts_slash { &["", slash] } else { &[""] };
        endings.iter().map(|ending| format!("{route}{ending} ({})", route.function)).collect::<Vec<_>>()
    };
    ROUTES.iter().flat_map(names).collect()
}

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_local_gateway_has_the_routes_of_openapi_yaml() {
    let manifest: toml::Table = read("Cargo.toml").parse().expect("Cargo.toml is TOML");
    let router = &manifest["workspace"]["metadata"]["lambda"]["watch"]["router"];
    let mut routes = BTreeSet::new();
    for (path, targets) in router.as_table().expect("a table") {
        for target in targets.as_array().expect("a list") {
            let text = |name: &str| target[name].as_str().expect("text").to_owned();
            routes.insert(format!("{} {path} ({})", text("method"), text("function")));
        }
    }
    assert_same(
        "Cargo.toml",
        &routes,
        &route_names("/"),
        "the router has the routes of openapi.yaml ('cargo xtask generate')",
    );
}

#[test]
fn the_template_has_the_routes_of_openapi_yaml() {
    let template: Value = serde_saphyr::from_str(&read("template.yaml")).expect("template.yaml is YAML");
    let mut routes = BTreeSet::new();
    for resource in template["Resources"].as_object().expect("resources").values() {
        if resource["Type"] != "AWS::Serverless::Function" {
            continue;
        }
        let function = resource["Metadata"]["BuildProperties"]["Binary"].as_str().expect("Binary").to_owned();
        let events = resource["Properties"]["Events"].as_object().into_iter().flat_map(Map::values);
        for event in events.filter(|event| event["Type"] == "HttpApi") {
            let text = |name: &str| event["Properties"][name].as_str().expect("text").to_owned();
            routes.insert(format!("{} {} ({function})", text("Method"), text("Path")));
        }
    }
    let rule = "its functions have the routes of openapi.yaml ('cargo xtask generate')";
    assert_same("template.yaml", &routes, &route_names("/{proxy+}"), rule);
}

#[test]
fn every_function_has_a_route_and_names_it_in_its_first_line() {
    let mut routes_of: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for route in ROUTES.iter() {
        routes_of.entry(&route.function).or_default().push(format!("//! `{route}`:"));
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bin");
    let mut functions = BTreeSet::new();
    for entry in fs::read_dir(folder).expect("functions") {
        let file = entry.expect("a file").path();
        let name = file.file_stem().expect("a name").to_string_lossy().into_owned();
        let text = fs::read_to_string(&file).expect("text");
        let first_line = text.lines().next().expect("a line");
        if first_line.starts_with("//! On a schedule:") {
            continue;
        }
        let routes = routes_of.get(&*name).unwrap_or_else(|| panic!("{name} has no route in openapi.yaml"));
        assert!(
            routes.iter().any(|route| first_line.starts_with(route)),
            "{name}: the first line is {first_line}; it must start with one of {routes:?}"
        );
        functions.insert(name);
    }
    let named = routes_of.keys().map(|name| (*name).to_owned()).collect();
    assert_same(
        "functions/src/bin",
        &functions,
        &named,
        "it has the functions that openapi.yaml names, and jobs on a schedule",
    );
}
