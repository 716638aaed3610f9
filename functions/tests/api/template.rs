//! Holds together what belongs together in template.yaml: each function with its log, role, alarm and rollout. What the
//! linters cannot know is here; the routes are in contract.rs.
use crate::contract::{OPENAPI, assert_same};
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::LazyLock,
};
use testing::{Secret, logical_id};

/// Whose resources these tests are about.
const FILE: &str = "template.yaml";

static TEMPLATE: LazyLock<Value> = LazyLock::new(|| {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../template.yaml");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_saphyr::from_str(&text).expect("template.yaml is YAML")
});

/// The alarms of the whole service. Every function has one of its own beside them.
const SERVICE_ALARMS: [&str; 5] = ["DatabaseFailures", "Faults", "ServerErrors", "SlowAnswers", "Throttles"];

/// What a function is for decides what it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Behind a route, with the API's secret.
    Api,
    /// Behind a route, without the database.
    Docs,
    /// Behind a route, with the database's secret.
    Health,
    /// Scheduled, with the database's secret.
    Purge,
    /// Called by CloudFormation, with the database's secret and the owner's.
    Migrate,
}

impl Kind {
    fn is_behind_a_route(self) -> bool {
        matches!(self, Self::Api | Self::Docs | Self::Health)
    }

    /// The parameter with the secret that it knows as `API_SECRET_ID`.
    fn api_secret(self) -> Option<&'static str> {
        match self {
            Self::Api => Some("ApiSecretArn"),
            Self::Health | Self::Purge | Self::Migrate => Some("DatabaseSecretArn"),
            Self::Docs => None,
        }
    }
}

struct Function {
    name: &'static str,
    binary: &'static str,
    kind: Kind,
    resource: &'static Value,
}

impl Function {
    fn property(&self, name: &str) -> &'static Value {
        &self.resource["Properties"][name]
    }

    fn environment(&self) -> Map<String, Value> {
        self.property("Environment")["Variables"].as_object().cloned().unwrap_or_default()
    }
}

fn resources() -> &'static Map<String, Value> {
    TEMPLATE["Resources"].as_object().expect("Resources")
}

fn resource(name: &str) -> &'static Value {
    resources().get(name).unwrap_or_else(|| panic!("template.yaml has no {name}"))
}

fn names_of(kind: &str) -> BTreeSet<String> {
    resources().iter().filter(|(_, resource)| resource["Type"] == kind).map(|(name, _)| name.clone()).collect()
}

fn functions() -> Vec<Function> {
    let functions: Vec<_> = resources()
        .iter()
        .filter(|(_, resource)| resource["Type"] == "AWS::Serverless::Function")
        .map(|(name, resource)| {
            let binary = resource["Metadata"]["BuildProperties"]["Binary"].as_str();
            let binary = binary.unwrap_or_else(|| panic!("{name} names no binary"));
            let kind = match binary {
                "migrate" => Kind::Migrate,
                "purge" => Kind::Purge,
                _ => match OPENAPI
                    .functions()
                    .iter()
                    .find(|(name, _)| *name == binary)
                    .map(|(_, routes)| routes[0].secret)
                {
                    Some(Secret::None) => Kind::Docs,
                    Some(Secret::Database) => Kind::Health,
                    _ => Kind::Api,
                },
            };
            Function { name, binary, kind, resource }
        })
        .collect();
    let count = |kind: Kind| functions.iter().filter(|function| function.kind == kind).count();
    // A loop over nothing would prove nothing.
    assert!(count(Kind::Api) >= 8, "template.yaml has {} API functions", count(Kind::Api));
    for kind in [Kind::Docs, Kind::Health, Kind::Purge, Kind::Migrate] {
        assert!(count(kind) > 0, "no function is {kind:?}");
    }
    functions
}

/// The names that each function's own resources have.
fn own(suffix: &str) -> BTreeSet<String> {
    functions().iter().map(|function| format!("{}{suffix}", function.name)).collect()
}

/// Whether a resource says this name in any place.
fn mentions(value: &Value, name: &str) -> bool {
    match value {
        Value::String(text) => text == name || text.contains(&format!("${{{name}}}")),
        Value::Array(items) => items.iter().any(|item| mentions(item, name)),
        Value::Object(fields) => fields.values().any(|field| mentions(field, name)),
        _ => false,
    }
}

#[test]
fn every_function_is_named_after_its_binary_and_published_by_each_deployment() {
    let globals = &TEMPLATE["Globals"]["Function"];
    assert_eq!(globals["AutoPublishAlias"], "live");
    assert_eq!(
        globals["CodeUri"], "functions",
        "one package for all functions but migrate, so that they share a build"
    );
    // Both or neither: Lambda refuses to publish a function in which nothing has changed.
    assert_eq!(globals["Environment"]["Variables"]["DEPLOYMENT_ID"], json!({ "Ref": "DeploymentId" }));
    for function in functions() {
        assert_eq!(function.name, logical_id(function.binary), "{}", function.binary);
        assert_eq!(function.resource["Metadata"]["BuildMethod"], "rust-cargolambda", "{}", function.name);
        let hash = function.property("AutoPublishCodeSha256");
        assert_eq!(*hash, json!({ "Ref": "DeploymentId" }), "{} misses parameters that change", function.name);
        for shared in ["AutoPublishAlias", "Runtime"] {
            assert!(function.property(shared).is_null(), "{} has a {shared} of its own", function.name);
        }
        let package = function.property("CodeUri").as_str().unwrap_or("functions");
        assert_eq!(package == "migrate", function.kind == Kind::Migrate, "{} is built from {package}", function.name);
    }
}

#[test]
fn every_function_writes_to_a_log_group_of_its_own_that_forgets() {
    for function in functions() {
        let logs = format!("{}Logs", function.name);
        assert_eq!(*function.property("LoggingConfig"), json!({ "LogGroup": { "Ref": logs } }), "{}", function.name);
    }
    let mut expected = own("Logs");
    expected.insert("AccessLogs".to_owned());
    assert_same(FILE, &names_of("AWS::Logs::LogGroup"), &expected, "a log group for each function, and the access log");

    let mut names = BTreeSet::new();
    for name in &expected {
        let properties = &resource(name)["Properties"];
        assert_eq!(properties["RetentionInDays"], json!({ "Ref": "LogRetentionDays" }), "{name} never forgets");
        names.insert(properties["LogGroupName"]["Fn::Sub"].as_str().unwrap_or_else(|| panic!("{name} has no name")));
    }
    assert_eq!(names.len(), expected.len(), "two log groups have one name: {names:?}");
    for function in functions() {
        let name = format!("/aws/lambda/${{AWS::StackName}}-{}", function.binary);
        assert!(names.contains(name.as_str()), "{} has no log group {name}", function.name);
    }
    let access_log = &resource("Api")["Properties"]["AccessLogSettings"];
    assert_eq!(access_log["DestinationArn"], json!({ "Fn::GetAtt": ["AccessLogs", "Arn"] }));
    let format: Value = serde_json::from_str(access_log["Format"].as_str().expect("Format")).expect("a line is JSON");
    for field in ["request_id", "route", "status", "latency_ms", "integration_error"] {
        assert!(format[field].is_string(), "the access log has no {field}");
    }
}

#[test]
fn every_function_has_a_role_of_its_own_with_what_it_uses_and_no_more() {
    for function in functions() {
        let name = function.name;
        let role = format!("{name}Role");
        assert_eq!(*function.property("Role"), json!({ "Fn::GetAtt": [role, "Arn"] }), "{name}");
        assert!(function.property("Policies").is_null(), "{name} has policies beside its role's");

        let properties = &resource(&role)["Properties"];
        let managed = match function.kind {
            Kind::Api => json!([{ "Ref": "Trace" }, { "Ref": "ReadApiSecret" }]),
            Kind::Health | Kind::Purge => json!([{ "Ref": "Trace" }, { "Ref": "ReadDatabaseSecret" }]),
            Kind::Docs | Kind::Migrate => json!([{ "Ref": "Trace" }]),
        };
        assert_eq!(properties["ManagedPolicyArns"], managed, "{name}");
        let trusted = &properties["AssumeRolePolicyDocument"]["Statement"];
        assert_eq!(
            *trusted,
            json!([{ "Effect": "Allow", "Principal": { "Service": "lambda.amazonaws.com" }, "Action": "sts:AssumeRole" }]),
            "{name}"
        );

        let policies = properties["Policies"].as_array().unwrap_or_else(|| panic!("{role} has no policies"));
        assert_eq!(policies.len(), if function.kind == Kind::Migrate { 3 } else { 1 }, "{name}'s own policies");
        assert_eq!(
            policies[0]["PolicyDocument"]["Statement"],
            json!([{
                "Effect": "Allow",
                "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
                "Resource": { "Fn::GetAtt": [format!("{name}Logs"), "Arn"] },
            }]),
            "{name} has to write to its own log, and to no other"
        );
    }
    let mut expected = own("Role");
    expected.insert("RolloutRole".to_owned());
    assert_same(FILE, &names_of("AWS::IAM::Role"), &expected, "a role for each function, and CodeDeploy's");
    let boundary =
        json!({ "Fn::If": ["HasPermissionsBoundary", { "Ref": "PermissionsBoundaryArn" }, { "Ref": "AWS::NoValue" }] });
    for role in &expected {
        assert_eq!(resource(role)["Properties"]["PermissionsBoundary"], boundary, "{role}");
    }
    let managed = BTreeSet::from(["ReadApiSecret", "ReadDatabaseSecret", "Trace"].map(str::to_owned));
    assert_same(FILE, &names_of("AWS::IAM::ManagedPolicy"), &managed, "the policies that roles share");
}

#[test]
fn a_function_reads_the_secret_that_it_needs_and_no_other() {
    let reads = |policy: &Value, what: &Value, who: &str| {
        let statements = policy["Statement"].as_array().unwrap_or_else(|| panic!("{who} has no statements"));
        assert_eq!(statements.len(), 2, "{who}: the secret, and its key where it has one");
        let read = json!({ "Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": what });
        assert_eq!(statements[0], read, "{who}");
        assert_eq!(statements[1]["Fn::If"][0], "HasSecretsKmsKeyArn", "{who}");
        assert_eq!(statements[1]["Fn::If"][1]["Action"], "kms:Decrypt", "{who}");
        assert_eq!(statements[1]["Fn::If"][1]["Resource"], json!({ "Ref": "SecretsKmsKeyArn" }), "{who}");
    };
    let both = json!([{ "Ref": "DatabaseSecretArn" }, { "Ref": "OwnerSecretArn" }]);
    for (policy, secret) in [("ReadApiSecret", "ApiSecretArn"), ("ReadDatabaseSecret", "DatabaseSecretArn")] {
        reads(&resource(policy)["Properties"]["PolicyDocument"], &json!({ "Ref": secret }), policy);
    }
    let migrates = resource("MigrateRole")["Properties"]["Policies"].as_array().expect("policies");
    assert_eq!(
        migrates[1]["PolicyDocument"]["Statement"],
        json!([{ "Effect": "Allow", "Action": "cloudformation:DescribeStacks", "Resource": { "Ref": "AWS::StackId" } }]),
        "migrate asks about its own stack, and no other"
    );
    reads(&migrates[2]["PolicyDocument"], &both, "migrate");

    let owners: BTreeSet<_> = resources()
        .iter()
        .filter(|(_, resource)| mentions(resource, "OwnerSecretArn"))
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(owners, BTreeSet::from(["Migrate", "MigrateRole"]), "only migrate has to do with the owner's secret");

    for function in functions() {
        let name = function.name;
        let environment = function.environment();
        let api_secret = function.kind.api_secret().map(|parameter| json!({ "Ref": parameter }));
        assert_eq!(environment.get("API_SECRET_ID"), api_secret.as_ref(), "{name}");
        let owner_secret = (function.kind == Kind::Migrate).then(|| json!({ "Ref": "OwnerSecretArn" }));
        assert_eq!(environment.get("OWNER_SECRET_ID"), owner_secret.as_ref(), "{name}");
        assert!(function.property("Layers").is_null(), "{name} has a layer: what for?");
    }
}

#[test]
fn no_parameter_and_no_environment_variable_carries_a_secret() {
    let parameters = TEMPLATE["Parameters"].as_object().expect("Parameters");
    assert!(parameters.contains_key("ApiSecretArn") && parameters.contains_key("OwnerSecretArn"));
    for (name, parameter) in parameters {
        assert!(parameter["NoEcho"].is_null(), "{name} is hidden, so somebody takes it for a secret");
        assert!(
            parameter["AllowedPattern"].is_string()
                || parameter["AllowedValues"].is_array()
                || parameter["MinValue"].is_number(),
            "{name} takes anything"
        );
        let looks_secret =
            ["secret", "password", "token", "databaseurl"].iter().any(|word| name.to_lowercase().contains(word));
        let is_known =
            ["ApiSecretArn", "DatabaseSecretArn", "OwnerSecretArn", "SecretsKmsKeyArn", "RequireSignedTokens"]
                .contains(&name.as_str());
        assert!(!looks_secret || is_known, "{name} looks like a secret");
    }

    let shared = TEMPLATE["Globals"]["Function"]["Environment"]["Variables"].as_object().expect("Variables");
    let mut variables: BTreeMap<String, Value> = shared.clone().into_iter().collect();
    for function in functions() {
        variables.extend(function.environment());
    }
    let names: BTreeSet<_> = variables.keys().cloned().collect();
    let known = [
        "API_SECRET_ID",
        "BETTER_AUTH_COOKIE_PREFIX",
        "BETTER_AUTH_URL",
        "DEPLOYMENT_ID",
        "METRICS_NAMESPACE",
        "OWNER_SECRET_ID",
        "PREPARED_STATEMENTS",
        "REQUIRE_SIGNED_TOKENS",
        "SERVICE_NAME",
        "TRUSTED_ORIGINS",
    ];
    let known = BTreeSet::from(known.map(str::to_owned));
    let rule =
        "the functions' variables are the settings that this test knows: is a new one no secret? Then add it there";
    assert_same(FILE, &names, &known, rule);
    // A dynamic reference would put the secret's value where people can read it.
    assert!(!TEMPLATE.to_string().contains("{{resolve:"), "a secret is read while running, not while deploying");
}

#[test]
fn every_function_has_an_alarm_on_its_errors_which_stops_a_rollout() {
    let mut expected = own("Errors");
    expected.extend(SERVICE_ALARMS.map(str::to_owned));
    let rule = "an alarm for each function, and those of the service";
    assert_same(FILE, &names_of("AWS::CloudWatch::Alarm"), &expected, rule);

    let topic = json!([{ "Fn::If": ["HasAlarmTopicArn", { "Ref": "AlarmTopicArn" }, { "Ref": "AlarmTopic" }] }]);
    for name in &expected {
        assert_eq!(resource(name)["Properties"]["AlarmActions"], topic, "nobody hears {name}");
    }
    let rollout = json!({
        "Type": { "Ref": "DeploymentStrategy" },
        "Enabled": { "Ref": "GradualDeployment" },
        // One of SAM's own would have no permissions boundary.
        "Role": { "Fn::GetAtt": ["RolloutRole", "Arn"] },
    });
    assert_eq!(TEMPLATE["Globals"]["Function"]["DeploymentPreference"], rollout);

    for function in functions() {
        let name = function.name;
        let alarm = &resource(&format!("{name}Errors"))["Properties"];
        assert_eq!([&alarm["Namespace"], &alarm["MetricName"]], ["AWS/Lambda", "Errors"], "{name}");
        assert_eq!(
            alarm["Dimensions"],
            json!([
                { "Name": "FunctionName", "Value": { "Ref": name } },
                { "Name": "Resource", "Value": { "Fn::Sub": format!("${{{name}}}:live") } },
            ]),
            "{name}'s alarm has to look at {name}'s alias"
        );
        let description = alarm["AlarmDescription"].as_str().unwrap_or_default();
        assert!(description.starts_with(&format!("{} ", function.binary)), "{name}'s alarm tells of another function");

        let rollout = function.property("DeploymentPreference");
        let expected = match function.kind {
            // Not ServerErrors, which refers to the API: CloudFormation would find a circular dependency.
            Kind::Api | Kind::Docs | Kind::Health => {
                json!({ "Alarms": [{ "Ref": format!("{name}Errors") }, { "Ref": "Faults" }] })
            }
            Kind::Purge | Kind::Migrate => json!({ "Enabled": false }),
        };
        assert_eq!(*rollout, expected, "{name}");
    }
}

#[test]
fn the_alarms_of_the_service_look_at_this_service() {
    for name in ["Faults", "DatabaseFailures"] {
        let alarm = &resource(name)["Properties"];
        assert_eq!(alarm["Namespace"], json!({ "Ref": "MetricsNamespace" }), "{name}");
        assert_eq!(alarm["MetricName"], name);
        let service = json!([{ "Name": "Service", "Value": { "Ref": "AWS::StackName" } }]);
        assert_eq!(alarm["Dimensions"], service, "{name}");
    }
    let service = &TEMPLATE["Globals"]["Function"]["Environment"]["Variables"];
    assert_eq!(service["SERVICE_NAME"], json!({ "Ref": "AWS::StackName" }), "what the alarms look for");
    assert_eq!(service["METRICS_NAMESPACE"], json!({ "Ref": "MetricsNamespace" }), "where the alarms look");

    let stage = json!([{ "Name": "ApiId", "Value": { "Ref": "Api" } }, { "Name": "Stage", "Value": "$default" }]);
    assert_eq!(resource("SlowAnswers")["Properties"]["Dimensions"], stage);
    let metrics = resource("ServerErrors")["Properties"]["Metrics"].as_array().expect("Metrics");
    let measured: BTreeMap<_, _> = metrics
        .iter()
        .filter(|metric| metric["MetricStat"].is_object())
        .map(|metric| (metric["Id"].as_str().expect("Id"), &metric["MetricStat"]["Metric"]))
        .collect();
    assert_eq!(measured.len(), 2, "5xx of all");
    assert_eq!([&measured["errors"]["MetricName"], &measured["requests"]["MetricName"]], ["5xx", "Count"]);
    assert!(measured.values().all(|metric| metric["Dimensions"] == stage), "{measured:?}");
}

#[test]
fn the_dashboard_shows_every_alarm() {
    let substitution = &resource("Dashboard")["Properties"]["DashboardBody"]["Fn::Sub"];
    let joined = substitution[1]["EndpointAlarms"]["Fn::Join"][1].as_array().expect("the endpoints' alarms");
    let joined = joined.iter().map(|alarm| format!("${{{}.Arn}}", alarm["Fn::GetAtt"][0].as_str().expect("an alarm")));
    let joined = joined.collect::<Vec<_>>().join("\", \"");
    let body = substitution[0].as_str().expect("a body").replace("${EndpointAlarms}", &joined);
    let body: Value = serde_json::from_str(&body).expect("the dashboard's body is JSON");
    let widgets = body["widgets"].as_array().expect("widgets");
    let alarms = &widgets.iter().find(|widget| widget["type"] == "alarm").expect("a widget of alarms")["properties"];
    let shown: BTreeSet<_> = alarms["alarms"]
        .as_array()
        .expect("alarms")
        .iter()
        .map(|arn| arn.as_str().unwrap_or_default().trim_start_matches("${").trim_end_matches(".Arn}").to_owned())
        .collect();
    assert_same(FILE, &shown, &names_of("AWS::CloudWatch::Alarm"), "the dashboard shows every alarm");
    for metric in
        ["Requests", "Latency", "DatabaseTime", "ConnectTime", "ColdStart", "Retries", "Faults", "ClientErrors"]
    {
        let quoted = format!("{metric:?}");
        assert!(widgets.iter().any(|widget| widget.to_string().contains(&quoted)), "the dashboard has no {metric}");
    }
}

#[test]
fn migrations_run_before_any_function_is_updated_and_never_hold_a_stack_up() {
    for function in functions() {
        let depends_on = if function.kind == Kind::Migrate { Value::Null } else { json!("Migrations") };
        assert_eq!(function.resource["DependsOn"], depends_on, "{}", function.name);
    }
    let migrations = resource("Migrations");
    assert_eq!(migrations["Type"], "Custom::Migrations");
    // The alias's settings are SAM's resource, which has to stand before the first call.
    assert_eq!(migrations["DependsOn"], "MigrateEventInvokeConfig");
    let properties = &migrations["Properties"];
    assert_eq!(properties["ServiceToken"], json!({ "Ref": "Migrate.Alias" }), "what is called");
    assert_eq!(properties["MigrateVersion"], json!({ "Ref": "Migrate.Version" }), "new migrations are a change");
    assert_eq!(properties["DeploymentId"], json!({ "Ref": "DeploymentId" }), "a deployment is a change");

    let migrate = resource("Migrate");
    let seconds = |value: &Value| value.as_u64().expect("seconds");
    assert!(
        seconds(&properties["ServiceTimeout"]) > seconds(&migrate["Properties"]["Timeout"]),
        "CloudFormation has to wait for migrate's own answer"
    );
    // A repeated call would migrate a stack that has gone back by then.
    assert_eq!(migrate["Properties"]["EventInvokeConfig"]["MaximumRetryAttempts"], 0);
}

#[test]
fn a_function_ends_before_the_gateway_gives_up() {
    let timeout = TEMPLATE["Globals"]["Function"]["Timeout"].as_u64().expect("Timeout");
    assert!(
        (21..30).contains(&timeout),
        "over the 19 s that a function waits for its database at most, and under API Gateway's 30 s: {timeout}"
    );
    for function in functions() {
        let timeout = function.property("Timeout");
        assert_eq!(timeout.is_null(), function.kind.is_behind_a_route(), "{}: {timeout}", function.name);
    }
}

#[test]
fn every_write_has_a_stricter_limit_than_the_stage() {
    let mut writes = BTreeSet::new();
    for function in functions().iter().filter(|function| function.kind.is_behind_a_route()) {
        let events =
            function.property("Events").as_object().unwrap_or_else(|| panic!("{} has no route", function.name));
        assert!(!events.is_empty(), "{} has no route", function.name);
        for event in events.values() {
            assert_eq!(event["Properties"]["ApiId"], json!({ "Ref": "Api" }), "{}", function.name);
            let text = |name: &str| event["Properties"][name].as_str().expect("text");
            if text("Method") != "GET" {
                writes.insert(format!("{} {}", text("Method"), text("Path")));
            }
        }
    }
    assert!(writes.len() >= 8, "{writes:?}");

    let settings = resource("Api")["Properties"]["RouteSettings"].as_object().expect("RouteSettings");
    let limited: BTreeSet<_> = settings.keys().filter(|route| !route.starts_with("GET ")).cloned().collect();
    assert_same(
        FILE,
        &limited,
        &writes,
        "RouteSettings of the Api has a limit for each write ('cargo xtask generate')",
    );
    for (route, limits) in settings {
        for (limit, parameter) in [("ThrottlingRateLimit", "ThrottleRate"), ("ThrottlingBurstLimit", "ThrottleBurst")] {
            let of_stage = TEMPLATE["Parameters"][parameter]["Default"].as_u64().expect("a default");
            let of_route = limits[limit].as_u64().unwrap_or_else(|| panic!("{route} has no plain number as {limit}"));
            assert!(of_route < of_stage, "{route}: {limit} {of_route} is no less than the stage's {of_stage}");
        }
    }
}

#[test]
fn pages_of_named_origins_alone_may_call_with_credentials() {
    let cors = &resource("Api")["Properties"]["CorsConfiguration"]["Fn::If"];
    assert_eq!([&cors[0], &cors[2]], [&json!("HasTrustedOrigins"), &json!({ "Ref": "AWS::NoValue" })]);
    assert_eq!(cors[1]["AllowOrigins"], json!({ "Fn::Split": [",", { "Ref": "TrustedOrigins" }] }));
    assert_eq!(cors[1]["AllowCredentials"], true);
    let list = |name: &str| -> BTreeSet<&str> {
        cors[1][name].as_array().unwrap_or_else(|| panic!("no {name}")).iter().filter_map(Value::as_str).collect()
    };
    assert_eq!(list("AllowMethods"), BTreeSet::from(["DELETE", "GET", "PATCH", "POST", "PUT"]));
    for header in ["authorization", "content-type", "idempotency-key", "if-match", "if-none-match"] {
        assert!(list("AllowHeaders").contains(header), "a page may not send {header}");
    }
    for header in ["etag", "link", "location", "retry-after", "x-request-id", "idempotent-replayed"] {
        assert!(list("ExposeHeaders").contains(header), "a page cannot read {header}");
    }
}
