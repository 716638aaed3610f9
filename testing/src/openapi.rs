//! Reads the routes of openapi.yaml, in the order of the file, and their extensions (`x-...`).
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::Value;
use std::{
    fmt, fs,
    io::{self, Error},
    marker::PhantomData,
    path::{Path, PathBuf},
};

/// The variable of API Gateway's greedy routes, such as `/api/tasks/{proxy+}`. SAM knows no other name.
pub(crate) const GREEDY: &str = "proxy";

/// The parsed openapi.yaml.
pub struct OpenApi {
    /// The whole file. Keys of objects are sorted, unlike in the file.
    pub document: Value,
    /// All routes, in the order of the file.
    pub routes: Vec<Route>,
}

/// An operation: its method and path, its function, and an example request that succeeds.
#[derive(Clone, PartialEq)]
pub struct Route {
    /// Upper case.
    pub method: String,
    /// With parameter names in braces, such as `/api/tasks/{id}`.
    pub path: String,
    /// The name of the function's binary, such as `get-task`.
    pub function: String,
    /// The secret that the function reads from Secrets Manager.
    pub secret: Secret,
    /// The limit in API Gateway; `None` if the stage's limit applies.
    pub throttle: Option<Throttle>,
    /// The status of a successful response.
    pub status: u16,
    /// The required query parameters with example values, such as `status=completed`.
    pub query: String,
    /// The media type and first example of the body, if a body is required.
    pub body: Option<(String, Value)>,
    /// Whether the path may also end with a slash.
    pub accepts_slash: bool,
    path_examples: Vec<(String, String)>,
}

/// The secret that a function reads from Secrets Manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secret {
    /// The API's secret, which is needed to check sessions.
    Api,
    /// The secret that holds only `DATABASE_URL`.
    Database,
    /// No secret: the function does not use the database.
    None,
}

/// A rate limit in API Gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Throttle {
    /// Requests per second.
    pub rate: u32,
    /// Requests at once, API Gateway's burst limit.
    pub burst: u32,
}

impl OpenApi {
    /// The path of openapi.yaml.
    pub fn file() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../openapi.yaml")
    }

    /// Reads the project's openapi.yaml.
    ///
    /// # Errors
    /// If the file is not valid YAML, or an operation lacks what this module needs. The message names the operation.
    pub fn read() -> io::Result<Self> {
        Self::parse(&fs::read_to_string(Self::file())?)
    }

    /// Parses the text of an openapi.yaml.
    ///
    /// # Errors
    /// See [`OpenApi::read`].
    pub fn parse(text: &str) -> io::Result<Self> {
        let document: Value = serde_saphyr::from_str(text).map_err(contract_error)?;
        let ordered: Document = serde_saphyr::from_str(text).map_err(contract_error)?;
        let write_throttle: Throttle = serde_json::from_value(document["x-write-throttle"].clone())
            .map_err(|error| contract_error(format!("x-write-throttle: {error}")))?;
        let mut routes = Vec::new();
        for (path, item) in &ordered.paths.0 {
            let of_all = |name: &str| item.0.iter().find(|(known, _)| known == name).map_or(&Value::Null, |(_, it)| it);
            let (shared, slash) = (of_all("parameters"), of_all("x-trailing-slash"));
            for (method, operation) in item.0.iter().filter(|(name, _)| name != "parameters" && !name.starts_with("x-"))
            {
                let method = method.to_uppercase();
                let route = Route::new(&document, &method, path, shared, operation, write_throttle);
                let route = route.and_then(|route| route.with_slash(slash));
                routes.push(route.map_err(|error| contract_error(format!("{method} {path}: {error}")))?);
            }
        }
        Ok(Self { document, routes })
    }

    /// Returns the functions with their routes, in the order of their first route.
    pub fn functions(&self) -> Vec<(&str, Vec<&Route>)> {
        let mut functions: Vec<(&str, Vec<&Route>)> = Vec::new();
        for route in &self.routes {
            match functions.iter_mut().find(|(name, _)| *name == route.function) {
                Some((_, routes)) => routes.push(route),
                None => functions.push((&route.function, vec![route])),
            }
        }
        functions
    }

    /// Returns the target of a `$ref`; any other value is returned unchanged.
    pub fn resolve<'d>(&'d self, value: &'d Value) -> &'d Value {
        resolve(&self.document, value)
    }
}

impl Route {
    fn new(
        document: &Value,
        method: &str,
        path: &str,
        shared_parameters: &Value,
        operation: &Value,
        write_throttle: Throttle,
    ) -> Result<Self, String> {
        let function =
            operation["x-function"].as_str().ok_or("x-function is missing: NAME of functions/src/bin/NAME.rs")?;
        let is_public = operation["security"].as_array().is_some_and(Vec::is_empty);
        let secret = match (is_public, operation["x-secret"].as_str()) {
            (false, None) => Secret::Api,
            (true, Some("database")) => Secret::Database,
            (true, Some("none")) => Secret::None,
            (true, _) => return Err("with `security: []`, x-secret has to be `database` or `none`".to_owned()),
            (false, Some(_)) => return Err("x-secret is only for operations with `security: []`".to_owned()),
        };
        let throttle = match operation.get("x-throttle") {
            Some(own) => Some(serde_json::from_value(own.clone()).map_err(|error| format!("x-throttle: {error}"))?),
            None => (method != "GET").then_some(write_throttle),
        };
        let statuses = operation["responses"].as_object().into_iter().flat_map(|responses| responses.keys());
        let status = { statuses }.filter_map(|status| status.parse().ok()).find(|status| (200..300).contains(status));
        let mut route = Self {
            method: method.to_owned(),
            path: path.to_owned(),
            function: function.to_owned(),
            secret,
            throttle,
            status: status.ok_or("no response has a status of success")?,
            query: String::new(),
            body: None,
            accepts_slash: false,
            path_examples: Vec::new(),
        };
        let parameters =
            [shared_parameters, &operation["parameters"]].into_iter().filter_map(Value::as_array).flatten();
        for parameter in parameters.map(|parameter| resolve(document, parameter)) {
            route.add_example(parameter);
        }
        route.body = required_body(&operation["requestBody"]);
        Ok(route)
    }

    fn with_slash(self, extension: &Value) -> Result<Self, String> {
        match extension {
            Value::Null => Ok(self),
            // The function refuses the other paths that a greedy route matches, once it knows the session.
            Value::Bool(true) if self.needs_session() => Ok(Self { accepts_slash: true, ..self }),
            Value::Bool(true) => Err("x-trailing-slash is only for operations with a session".to_owned()),
            _ => Err("x-trailing-slash has to be `true`".to_owned()),
        }
    }

    fn add_example(&mut self, parameter: &Value) {
        let allowed = &parameter["schema"]["enum"][0];
        let example = parameter["example"].as_str().or(allowed.as_str());
        let (Some(name), Some(example)) = (parameter["name"].as_str(), example) else { return };
        match (parameter["in"].as_str(), parameter["required"].as_bool()) {
            (Some("path"), _) => self.path_examples.push((name.to_owned(), example.to_owned())),
            (Some("query"), Some(true)) => {
                let separator = if self.query.is_empty() { "" } else { "&" };
                self.query.push_str(&format!("{separator}{name}={example}"));
            }
            _ => {}
        }
    }

    /// Whether the route requires a session.
    pub fn needs_session(&self) -> bool {
        self.secret == Secret::Api
    }

    /// Whether the route changes data: every method except GET.
    pub fn is_write(&self) -> bool {
        self.method != "GET"
    }

    /// Whether the path contains the user's id. Each such route has a twin without it.
    pub fn names_user(&self) -> bool {
        self.path.contains("/{user_id}/")
    }

    /// The paths of this route in API Gateway: its own, and a greedy one if the path may end with a slash. API Gateway has
    /// no route that ends with one. The greedy route also matches every deeper path, and the function answers 404 there.
    pub fn gateway_paths(&self) -> Vec<String> {
        let greedy = self.accepts_slash.then(|| format!("{}/{{{GREEDY}+}}", self.path));
        [Some(self.path.clone()), greedy].into_iter().flatten().collect()
    }

    /// Returns the path and required query, with these ids and with examples for the other parameters.
    pub fn path_and_query(&self, user_id: &str, id: &str) -> String {
        let mut path = self.path.replace("{user_id}", user_id).replace("{id}", id);
        for (name, example) in &self.path_examples {
            path = path.replace(&format!("{{{name}}}"), example);
        }
        if self.query.is_empty() { path } else { format!("{path}?{}", self.query) }
    }
}

/// Formats the route key of API Gateway: `GET /api/tasks/{id}`.
impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// Short, because tests print it: `GET /api/tasks/{id} (get-task)`.
impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} ({})", self.function)
    }
}

/// Converts a binary's name to its logical id in template.yaml: `get-task` becomes `GetTask`.
pub fn logical_id(program: &str) -> String {
    let capitalised = |word: &str| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_uppercase().chain(letters).collect::<String>()).unwrap_or_default()
    };
    program.split(['-', '.', '_']).map(capitalised).collect()
}

fn contract_error(error: impl fmt::Display) -> Error {
    Error::other(format!("openapi.yaml: {error}"))
}

fn resolve<'d>(document: &'d Value, value: &'d Value) -> &'d Value {
    let reference = value["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
    reference.and_then(|pointer| document.pointer(pointer)).unwrap_or(value)
}

fn required_body(body: &Value) -> Option<(String, Value)> {
    if body["required"] != true {
        return None;
    }
    let (media_type, content) = body["content"].as_object()?.iter().next()?;
    let example = content["examples"].as_object()?.values().next()?;
    Some((media_type.clone(), example["value"].clone()))
}

#[derive(Deserialize)]
struct Document {
    paths: Ordered<Ordered<Value>>,
}

/// The entries of an object, in the order of the file.
struct Ordered<T>(Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Ordered<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = Ordered<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Ordered(entries))
            }
        }

        deserializer.deserialize_map(Entries(PhantomData))
    }
}
