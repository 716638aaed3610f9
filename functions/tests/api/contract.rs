//! Holds openapi.yaml, the local gateway's routes, template.yaml and the functions together, and answers against them.
use crate::api::Answer;
use jsonschema::Validator;
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    path::Path,
    sync::{Arc, LazyLock, Mutex},
};

/// A method and path, and the function behind them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    pub method: String,
    pub path: String,
    pub function: String,
}

/// The contract.
pub static OPENAPI: LazyLock<Value> =
    LazyLock::new(|| serde_saphyr::from_str(&read("openapi.yaml")).expect("openapi.yaml is YAML"));

/// Every route of openapi.yaml.
pub static ROUTES: LazyLock<BTreeSet<Route>> = LazyLock::new(|| {
    let mut routes = BTreeSet::new();
    for (path, operations) in OPENAPI["paths"].as_object().expect("paths") {
        for (method, operation) in
            operations.as_object().expect("operations").iter().filter(|(name, _)| *name != "parameters")
        {
            let function = operation["x-function"].as_str().expect("x-function").to_owned();
            routes.insert(Route { method: method.to_uppercase(), path: path.clone(), function });
        }
    }
    routes
});

/// The route that a request takes, as API Gateway chooses it: the one with the fewest parameters.
pub fn route(method: &str, path: &str) -> Option<(Route, Map<String, Value>)> {
    let segments: Vec<_> = path.split('/').collect();
    let matching = ROUTES.iter().filter(|route| route.method == method).filter_map(|route| {
        let pattern: Vec<_> = route.path.split('/').collect();
        let mut parameters = Map::new();
        for (part, segment) in pattern.iter().zip(&segments) {
            match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
                Some(name) => drop(parameters.insert(name.to_owned(), Value::from(*segment))),
                None if part == segment => {}
                None => return None,
            }
        }
        (pattern.len() == segments.len()).then(|| (route.clone(), parameters))
    });
    matching.min_by_key(|(_, parameters)| parameters.len())
}

/// Fails when an answer is not one that openapi.yaml gives for its route: status, headers, media type, and the body by its
/// JSON Schema.
pub fn check_answer(route: &Route, answer: &Answer) {
    let operation = &OPENAPI["paths"][&route.path][&route.method.to_lowercase()];
    let response = resolved(&operation["responses"][&answer.status.to_string()]);
    let place = format!("the {} of {} {}", answer.status, route.method, route.path);
    assert!(response.is_object(), "openapi.yaml does not have {place}");
    let declared = response["headers"].as_object().expect("headers");
    for name in answer.headers.keys().filter(|name| *name != "content-type") {
        let header = declared.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        let (_, header) = header.unwrap_or_else(|| panic!("openapi.yaml has no header {name} for {place}"));
        check_value(&answer.headers[name], &resolved(header)["schema"], &format!("{name} in {place}"));
    }
    for (name, header) in declared.iter().filter(|(_, header)| resolved(header)["required"] == true) {
        assert!(answer.header(&name.to_lowercase()).is_some(), "{place} has no {name}: {header}");
    }
    let content = response["content"].as_object();
    let media_type = content.and_then(|content| {
        let is_the_answers =
            |known: &&String| answer.header("content-type").is_some_and(|it| it.starts_with(&***known));
        content.keys().find(is_the_answers).or(content.keys().next())
    });
    let sent = answer.header("content-type").map(|it| it.split(';').next().unwrap_or(it));
    assert_eq!(sent, media_type.map(String::as_str), "{place}");
    if let (Some(content), Some("application/json" | "application/problem+json")) = (content, sent) {
        check_value(&answer.body, &content[sent.expect("a type")]["schema"], &place);
    }
}

/// Checks a value by a schema of openapi.yaml (JSON Schema 2020-12).
fn check_value(value: &Value, schema: &Value, place: &str) {
    static VALIDATORS: LazyLock<Mutex<HashMap<String, Arc<Validator>>>> = LazyLock::new(Mutex::default);
    let text = schema.to_string();
    let known = VALIDATORS.lock().expect("no panic").get(&text).cloned();
    let validator = known.unwrap_or_else(|| {
        let whole = json!({"components": OPENAPI["components"], "allOf": [schema]});
        let options = jsonschema::draft202012::options().should_validate_formats(true);
        let validator =
            Arc::new(options.build(&whole).unwrap_or_else(|error| panic!("the schema of {place}: {error}")));
        VALIDATORS.lock().expect("no panic").insert(text, validator.clone());
        validator
    });
    if let Err(error) = validator.validate(value) {
        panic!("{place} is not what openapi.yaml says: {error} at {}: {value}", error.instance_path());
    }
}

/// The value behind a `$ref`.
fn resolved(value: &Value) -> &Value {
    match value["$ref"].as_str() {
        Some(reference) => OPENAPI.pointer(reference.trim_start_matches('#')).unwrap_or_else(|| panic!("{reference}")),
        None => value,
    }
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
            routes.insert(Route { method: text("method"), path: path.clone(), function: text("function") });
        }
    }
    assert_eq!(routes, *ROUTES);
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
            routes.insert(Route { method: text("Method"), path: text("Path"), function: function.clone() });
        }
    }
    assert_eq!(routes, *ROUTES);
}

#[test]
fn every_function_is_behind_a_route_and_names_it_in_its_first_line() {
    let mut routes_of: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for route in ROUTES.iter() {
        routes_of.entry(&route.function).or_default().push(format!("//! `{} {}`:", route.method, route.path));
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
        assert!(routes.iter().any(|route| first_line.starts_with(route)), "{name}: {first_line} is none of {routes:?}");
        functions.insert(name);
    }
    assert_eq!(functions, routes_of.keys().map(|name| (*name).to_owned()).collect());
}
