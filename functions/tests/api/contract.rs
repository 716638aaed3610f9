//! Holds openapi.yaml, the local gateway's routes, template.yaml and the functions together, and answers against them.
use crate::api::Answer;
use serde_json::{Map, Value};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::LazyLock,
};

/// A method and path, and the function behind them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    pub method: String,
    pub path: String,
    pub function: String,
}

static OPENAPI: LazyLock<Value> =
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

/// Fails when an answer is not one that openapi.yaml gives for its route: status, media type, headers, required fields.
pub fn check_answer(route: &Route, answer: &Answer) {
    let operation = &OPENAPI["paths"][&route.path][&route.method.to_lowercase()];
    let response = resolved(&operation["responses"][&answer.status.to_string()]);
    assert!(response.is_object(), "openapi.yaml has no {} for {} {}", answer.status, route.method, route.path);
    let declared = response["headers"].as_object().expect("headers");
    for name in answer.headers.keys().filter(|name| *name != "content-type") {
        let is_declared = declared.keys().any(|known| known.eq_ignore_ascii_case(name));
        assert!(
            is_declared,
            "openapi.yaml has no header {name} for the {} of {} {}",
            answer.status, route.method, route.path
        );
    }
    let content = response["content"].as_object();
    let media_type = content.and_then(|content| content.keys().next());
    assert_eq!(answer.header("content-type"), media_type.map(String::as_str), "{route:?}");
    if let (Some(content), Some(media_type)) = (content, media_type) {
        check_value(&answer.body, &content[media_type]["schema"], &format!("{} {}", route.method, route.path));
    }
}

/// Checks the types, required fields and constants of a schema: what our answers can get wrong.
fn check_value(value: &Value, schema: &Value, place: &str) {
    let schema = resolved(schema);
    let name = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let is_typed = match &schema["type"] {
        Value::String(one) => one == name,
        Value::Array(several) => several.iter().any(|one| one == name),
        _ => panic!("{place} has no type in openapi.yaml"),
    };
    assert!(is_typed, "{place} is {name}, against openapi.yaml: {value}");
    if !schema["const"].is_null() {
        assert_eq!(value, &schema["const"], "{place}");
    }
    for item in value.as_array().into_iter().flatten() {
        check_value(item, &schema["items"], place);
    }
    if let Some(fields) = value.as_object() {
        for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            assert!(fields.contains_key(required), "{place} has no {required}: {value}");
        }
        for (field, value) in fields {
            let declared = &schema["properties"][field];
            assert!(declared.is_object(), "{place} has {field}, which openapi.yaml does not");
            check_value(value, declared, &format!("{place} {field}"));
        }
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
        for event in resource["Properties"]["Events"].as_object().expect("events").values() {
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
