//! Checks that template.yaml is consistent: each function with its log group, role, alarm and rollout. These are rules
//! that linters cannot know. contract.rs checks the routes.
use crate::contract::{OPENAPI, assert_same};
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::LazyLock,
};
use testing::{Secret, logical_id};

/// The file that `assert_same` names in its messages.
const FILE: &str = "template.yaml";

static TEMPLATE: LazyLock<Value> = LazyLock::new(|| {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../template.yaml");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_saphyr::from_str(&text).expect("template.yaml is YAML")
});

/// The alarms of the whole service. In addition, each function has its own alarm.
const SERVICE_ALARMS: [&str; 7] =
    ["DatabaseFailures", "Faults", "Refusals", "ServerErrors", "SessionIndexMissing", "SlowAnswers", "Throttles"];

/// The purpose of a function, which decides its rights and settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Has routes, and reads the API's secret.
    Api,
    /// Has routes, and does not use the database.
    Docs,
    /// Has routes, and reads the database's secret.
    Health,
    /// Runs on a schedule, and reads the database's secret.
    Purge,
    /// Called by CloudFormation; reads the database's secret and the owner's.
    Migrate,
}

impl Kind {
    fn has_route(self) -> bool {
        matches!(self, Self::Api | Self::Docs | Self::Health)
    }

    /// The template parameter that `API_SECRET_ID` refers to.
    fn api_secret_parameter(self) -> Option<&'static str> {
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

fn names_of_type(resource_type: &str) -> BTreeSet<String> {
    resources().iter().filter(|(_, resource)| resource["Type"] == resource_type).map(|(name, _)| name.clone()).collect()
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
    // Loops over an empty list would pass without testing anything.
    assert!(count(Kind::Api) >= 8, "template.yaml has {} API functions", count(Kind::Api));
    for kind in [Kind::Docs, Kind::Health, Kind::Purge, Kind::Migrate] {
        assert!(count(kind) > 0, "no function is {kind:?}");
    }
    functions
}

/// Returns each function's name with a suffix, as its own resources are called.
fn names_with_suffix(suffix: &str) -> BTreeSet<String> {
    functions().iter().map(|function| format!("{}{suffix}", function.name)).collect()
}

/// Whether a value refers to this name anywhere.
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
    // DEPLOYMENT_ID and the hash below go together: Lambda refuses to publish a version of a function that has not
    // changed.
    assert_eq!(globals["Environment"]["Variables"]["DEPLOYMENT_ID"], json!({ "Ref": "DeploymentId" }));
    for function in functions() {
        assert_eq!(function.name, logical_id(function.binary), "{}", function.binary);
        assert_eq!(function.resource["Metadata"]["BuildMethod"], "rust-cargolambda", "{}", function.name);
        let hash = function.property("AutoPublishCodeSha256");
        assert_eq!(
            *hash,
            json!({ "Ref": "DeploymentId" }),
            "{} would not be published if only a parameter changes",
            function.name
        );
        for shared in ["AutoPublishAlias", "Runtime"] {
            assert!(function.property(shared).is_null(), "{} must not override {shared}", function.name);
        }
        let package = function.property("CodeUri").as_str().unwrap_or("functions");
        assert_eq!(package == "migrate", function.kind == Kind::Migrate, "{} is built from {package}", function.name);
    }
}

#[test]
fn every_function_writes_to_its_own_log_group_that_outlives_the_stack_for_its_retention_time() {
    for function in functions() {
        let logs = format!("{}Logs", function.name);
        assert_eq!(*function.property("LoggingConfig"), json!({ "LogGroup": { "Ref": logs } }), "{}", function.name);
    }
    let mut expected = names_with_suffix("Logs");
    expected.insert("AccessLogs".to_owned());
    assert_same(
        FILE,
        &names_of_type("AWS::Logs::LogGroup"),
        &expected,
        "a log group for each function, and the access log",
    );

    let mut names = BTreeSet::new();
    for name in &expected {
        let properties = &resource(name)["Properties"];
        assert_eq!(properties["RetentionInDays"], json!({ "Ref": "LogRetentionDays" }), "{name} has no retention time");
        assert_eq!(resource(name)["DeletionPolicy"], "RetainExceptOnCreate", "{name} vanishes with the stack");
        assert_eq!(resource(name)["UpdateReplacePolicy"], "Retain", "{name} vanishes with its replacement");
        names.insert(properties["LogGroupName"]["Fn::Sub"].as_str().unwrap_or_else(|| panic!("{name} has no name")));
    }
    assert_eq!(names.len(), expected.len(), "two log groups have the same name: {names:?}");
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
fn every_function_has_its_own_role_with_the_rights_that_it_uses_and_no_more() {
    for function in functions() {
        let name = function.name;
        let role = format!("{name}Role");
        assert_eq!(*function.property("Role"), json!({ "Fn::GetAtt": [role, "Arn"] }), "{name}");
        assert!(function.property("Policies").is_null(), "{name} has policies in addition to its role's");

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
            "{name} may write only to its own log group"
        );
    }
    let mut expected = names_with_suffix("Role");
    expected.insert("RolloutRole".to_owned());
    assert_same(FILE, &names_of_type("AWS::IAM::Role"), &expected, "a role for each function, and CodeDeploy's");
    let boundary =
        json!({ "Fn::If": ["HasPermissionsBoundary", { "Ref": "PermissionsBoundaryArn" }, { "Ref": "AWS::NoValue" }] });
    for role in &expected {
        assert_eq!(resource(role)["Properties"]["PermissionsBoundary"], boundary, "{role}");
    }
    let managed = BTreeSet::from(["ReadApiSecret", "ReadDatabaseSecret", "Trace"].map(str::to_owned));
    assert_same(FILE, &names_of_type("AWS::IAM::ManagedPolicy"), &managed, "the policies that roles share");
}

#[test]
fn a_function_reads_the_secret_that_it_needs_and_no_other() {
    let assert_reads = |policy: &Value, what: &Value, who: &str| {
        let statements = policy["Statement"].as_array().unwrap_or_else(|| panic!("{who} has no statements"));
        assert_eq!(statements.len(), 2, "{who}: one statement for the secret, one for its KMS key");
        let read = json!({ "Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": what });
        assert_eq!(statements[0], read, "{who}");
        assert_eq!(statements[1]["Fn::If"][0], "HasSecretsKmsKeyArn", "{who}");
        assert_eq!(statements[1]["Fn::If"][1]["Action"], "kms:Decrypt", "{who}");
        assert_eq!(statements[1]["Fn::If"][1]["Resource"], json!({ "Ref": "SecretsKmsKeyArn" }), "{who}");
    };
    let both = json!([{ "Ref": "DatabaseSecretArn" }, { "Ref": "OwnerSecretArn" }]);
    for (policy, secret) in [("ReadApiSecret", "ApiSecretArn"), ("ReadDatabaseSecret", "DatabaseSecretArn")] {
        assert_reads(&resource(policy)["Properties"]["PolicyDocument"], &json!({ "Ref": secret }), policy);
    }
    let migrate_policies = resource("MigrateRole")["Properties"]["Policies"].as_array().expect("policies");
    assert_eq!(
        migrate_policies[1]["PolicyDocument"]["Statement"],
        json!([{ "Effect": "Allow", "Action": "cloudformation:DescribeStacks", "Resource": { "Ref": "AWS::StackId" } }]),
        "migrate may describe only its own stack"
    );
    assert_reads(&migrate_policies[2]["PolicyDocument"], &both, "migrate");

    let owner_secret_users: BTreeSet<_> = resources()
        .iter()
        .filter(|(_, resource)| mentions(resource, "OwnerSecretArn"))
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(
        owner_secret_users,
        BTreeSet::from(["Migrate", "MigrateRole"]),
        "only migrate may use the owner's secret"
    );

    for function in functions() {
        let name = function.name;
        let environment = function.environment();
        let api_secret = function.kind.api_secret_parameter().map(|parameter| json!({ "Ref": parameter }));
        assert_eq!(environment.get("API_SECRET_ID"), api_secret.as_ref(), "{name}");
        let owner_secret = (function.kind == Kind::Migrate).then(|| json!({ "Ref": "OwnerSecretArn" }));
        assert_eq!(environment.get("OWNER_SECRET_ID"), owner_secret.as_ref(), "{name}");
        assert!(function.property("Layers").is_null(), "{name} must not have a layer");
    }
}

#[test]
fn no_parameter_and_no_environment_variable_carries_a_secret() {
    let parameters = TEMPLATE["Parameters"].as_object().expect("Parameters");
    assert!(parameters.contains_key("ApiSecretArn") && parameters.contains_key("OwnerSecretArn"));
    for (name, parameter) in parameters {
        assert!(parameter["NoEcho"].is_null(), "{name} has NoEcho, which suggests that it carries a secret");
        assert!(
            parameter["AllowedPattern"].is_string()
                || parameter["AllowedValues"].is_array()
                || parameter["MinValue"].is_number(),
            "{name} accepts any value"
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
        "ACCEPT_JWT",
        "API_SECRET_ID",
        "BETTER_AUTH_COOKIE_PREFIX",
        "BETTER_AUTH_URL",
        "DEPLOYMENT_ID",
        "EDGE_KEY_SHA256",
        "JWT_AUDIENCE",
        "JWT_ISSUER",
        "JWT_NEEDS_SESSION",
        "METRICS_NAMESPACE",
        "AUTH_SCHEMA",
        "AUTH_TABLES",
        "MAX_TASKS_PER_USER",
        "OWNER_SECRET_ID",
        "PREPARED_STATEMENTS",
        "REQUIRE_SIGNED_TOKENS",
        "SERVE_DOCS",
        "SERVICE_NAME",
        "TRUSTED_ORIGINS",
    ];
    let known = BTreeSet::from(known.map(str::to_owned));
    let rule =
        "the functions' variables are the settings that this test knows. If a new one is not a secret, add it there";
    assert_same(FILE, &names, &known, rule);
    // A dynamic reference would put the secret's value where people can read it.
    assert!(!TEMPLATE.to_string().contains("{{resolve:"), "a secret must be read at run time, not at deployment");
}

#[test]
fn every_function_has_an_error_alarm_that_stops_a_rollout() {
    let mut expected = names_with_suffix("Errors");
    expected.extend(SERVICE_ALARMS.map(str::to_owned));
    let rule = "an alarm for each function, and those of the service";
    assert_same(FILE, &names_of_type("AWS::CloudWatch::Alarm"), &expected, rule);

    let topic = json!([{ "Fn::If": ["HasAlarmTopicArn", { "Ref": "AlarmTopicArn" }, { "Ref": "AlarmTopic" }] }]);
    for name in &expected {
        assert_eq!(resource(name)["Properties"]["AlarmActions"], topic, "{name} notifies nobody");
    }
    let rollout = json!({
        "Type": { "Ref": "DeploymentStrategy" },
        "Enabled": { "Ref": "GradualDeployment" },
        // A role that SAM creates would have no permissions boundary.
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
            "{name}'s alarm must watch {name}'s alias"
        );
        let description = alarm["AlarmDescription"].as_str().unwrap_or_default();
        assert!(
            description.starts_with(&format!("{} ", function.binary)),
            "the description of {name}'s alarm names another function"
        );

        let rollout = function.property("DeploymentPreference");
        let expected = match function.kind {
            // Not ServerErrors, which refers to the API: CloudFormation would find a circular dependency.
            Kind::Api | Kind::Docs | Kind::Health => {
                let watched = json!([{ "Ref": format!("{name}Errors") }, { "Ref": "Faults" }]);
                json!({ "Alarms": { "Fn::If": ["HasAlarms", watched, []] } })
            }
            Kind::Purge | Kind::Migrate => json!({ "Enabled": false }),
        };
        assert_eq!(*rollout, expected, "{name}");
    }
}

#[test]
fn the_alarms_of_the_service_watch_this_service() {
    for name in ["Faults", "DatabaseFailures", "Refusals", "SessionIndexMissing"] {
        let alarm = &resource(name)["Properties"];
        assert_eq!(alarm["Namespace"], json!({ "Ref": "MetricsNamespace" }), "{name}");
        assert_eq!(alarm["MetricName"], name);
        let service = json!([{ "Name": "Service", "Value": { "Ref": "AWS::StackName" } }]);
        assert_eq!(alarm["Dimensions"], service, "{name}");
    }
    let service = &TEMPLATE["Globals"]["Function"]["Environment"]["Variables"];
    assert_eq!(service["SERVICE_NAME"], json!({ "Ref": "AWS::StackName" }), "the alarms filter by this name");
    assert_eq!(service["METRICS_NAMESPACE"], json!({ "Ref": "MetricsNamespace" }), "the alarms read this namespace");

    let stage = json!([{ "Name": "ApiId", "Value": { "Ref": "Api" } }, { "Name": "Stage", "Value": "$default" }]);
    assert_eq!(resource("SlowAnswers")["Properties"]["Dimensions"], stage);
    let metrics = resource("ServerErrors")["Properties"]["Metrics"].as_array().expect("Metrics");
    let measured: BTreeMap<_, _> = metrics
        .iter()
        .filter(|metric| metric["MetricStat"].is_object())
        .map(|metric| (metric["Id"].as_str().expect("Id"), &metric["MetricStat"]["Metric"]))
        .collect();
    assert_eq!(measured.len(), 2, "the 5xx, and all requests");
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
    assert_same(FILE, &shown, &names_of_type("AWS::CloudWatch::Alarm"), "the dashboard shows every alarm");
    for metric in
        ["Requests", "Latency", "DatabaseTime", "ConnectTime", "ColdStart", "Retries", "Faults", "ClientErrors"]
    {
        let quoted = format!("{metric:?}");
        assert!(widgets.iter().any(|widget| widget.to_string().contains(&quoted)), "the dashboard has no {metric}");
    }
}

#[test]
fn migrations_run_before_any_function_is_updated_and_never_block_a_stack() {
    for function in functions() {
        let depends_on = if function.kind == Kind::Migrate { Value::Null } else { json!("Migrations") };
        assert_eq!(function.resource["DependsOn"], depends_on, "{}", function.name);
    }
    let migrations = resource("Migrations");
    assert_eq!(migrations["Type"], "Custom::Migrations");
    // SAM puts the alias's settings into a separate resource, which must exist before the first call.
    assert_eq!(migrations["DependsOn"], "MigrateEventInvokeConfig");
    let properties = &migrations["Properties"];
    assert_eq!(properties["ServiceToken"], json!({ "Ref": "Migrate.Alias" }), "the custom resource calls this alias");
    assert_eq!(
        properties["MigrateVersion"],
        json!({ "Ref": "Migrate.Version" }),
        "new migrations must trigger an update"
    );
    assert_eq!(properties["DeploymentId"], json!({ "Ref": "DeploymentId" }), "each deployment must trigger an update");

    let migrate = resource("Migrate");
    let seconds = |value: &Value| value.as_u64().expect("seconds");
    assert!(
        seconds(&properties["ServiceTimeout"]) > seconds(&migrate["Properties"]["Timeout"]),
        "CloudFormation must wait longer than migrate may take"
    );
    // A retried call could migrate after the stack was rolled back.
    assert_eq!(migrate["Properties"]["EventInvokeConfig"]["MaximumRetryAttempts"], 0);
}

#[test]
fn a_function_times_out_before_the_gateway_does() {
    let timeout = TEMPLATE["Globals"]["Function"]["Timeout"].as_u64().expect("Timeout");
    assert!(
        (21..30).contains(&timeout),
        "it must exceed the 19 s that a function waits for its database, and stay below API Gateway's 30 s: {timeout}"
    );
    for function in functions() {
        let timeout = function.property("Timeout");
        assert_eq!(timeout.is_null(), function.kind.has_route(), "{}: {timeout}", function.name);
    }
}

#[test]
fn every_write_has_a_stricter_limit_than_the_stage() {
    let mut writes = BTreeSet::new();
    for function in functions().iter().filter(|function| function.kind.has_route()) {
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
            let stage_limit = TEMPLATE["Parameters"][parameter]["Default"].as_u64().expect("a default");
            let route_limit = limits[limit].as_u64().unwrap_or_else(|| panic!("{route} has no number for {limit}"));
            assert!(
                route_limit < stage_limit,
                "{route}: {limit} {route_limit} must be below the stage's {stage_limit}"
            );
        }
    }
}

#[test]
fn only_pages_of_trusted_origins_may_call_with_credentials() {
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

/// Whether a condition is that a parameter is not empty.
fn is_not_empty(condition: &str, parameter: &str) -> bool {
    TEMPLATE["Conditions"][condition] == json!({ "Fn::Not": [{ "Fn::Equals": [{ "Ref": parameter }, ""] }] })
}

#[test]
fn a_domain_of_ones_own_is_the_only_address_of_the_api() {
    assert!(is_not_empty("HasDomain", "DomainName"));
    let api = &resource("Api")["Properties"];
    let on_domain = |value: Value| json!({ "Fn::If": ["HasDomain", value, { "Ref": "AWS::NoValue" }] });
    assert_eq!(
        api["DisableExecuteApiEndpoint"],
        on_domain(json!(true)),
        "the other address must not bypass the domain"
    );
    for name in ["Domain", "DomainMapping"] {
        assert_eq!(resource(name)["Condition"], "HasDomain", "{name}");
    }
    let mapping = &resource("DomainMapping")["Properties"];
    assert_eq!(mapping["ApiMappingKey"], Value::Null, "paths must be the same as without a domain");
    assert_eq!(mapping["Stage"], json!({ "Ref": "Api.Stage" }));
    let configuration = &resource("Domain")["Properties"]["DomainNameConfigurations"][0];
    assert_eq!(configuration["SecurityPolicy"], "TLS_1_2");
    for (output, path) in [("Url", ""), ("DocsUrl", "/docs")] {
        let value = &TEMPLATE["Outputs"][output]["Value"]["Fn::If"];
        assert_eq!(value[0], "HasEdge", "{output}");
        assert_eq!(value[1], json!({ "Fn::Sub": format!("https://${{EdgeDomainName}}{path}") }), "{output}");
        let value = &value[2]["Fn::If"];
        assert_eq!(value[0], "HasDomain", "{output}");
        assert_eq!(value[1], json!({ "Fn::Sub": format!("https://${{DomainName}}{path}") }), "{output}");
    }
}

#[test]
fn a_domain_without_certificate_is_refused_before_anything_is_made() {
    let rule = &TEMPLATE["Rules"]["DomainHasCertificate"];
    let is_set = |parameter: &str| json!({ "Fn::Not": [{ "Fn::Equals": [{ "Ref": parameter }, ""] }] });
    assert_eq!(rule["RuleCondition"], is_set("DomainName"));
    let assertion = &rule["Assertions"][0]["Assert"]["Fn::Or"];
    assert_eq!(*assertion, json!([is_set("HostedZoneId"), is_set("CertificateArn")]));
    assert_eq!(resource("Certificate")["Condition"], "MakesCertificate");
    assert_eq!(resource("DomainRecord")["Condition"], "HasDomainRecords");
}

#[test]
fn a_preview_has_no_alarms_and_no_gradual_rollout() {
    assert_eq!(TEMPLATE["Conditions"]["HasAlarms"], json!({ "Fn::Equals": [{ "Ref": "Alarms" }, "true"] }));
    for name in names_of_type("AWS::CloudWatch::Alarm").into_iter().chain(["Dashboard".to_owned()]) {
        assert_eq!(resource(&name)["Condition"], "HasAlarms", "{name} costs money in each preview");
    }
    assert!(mentions(&TEMPLATE["Conditions"]["HasOwnAlarmTopic"], "HasAlarms"));
    let rule = &TEMPLATE["Rules"]["RolloutHasAlarms"];
    assert_eq!(rule["RuleCondition"], json!({ "Fn::Equals": [{ "Ref": "GradualDeployment" }, "true"] }));
    assert_eq!(rule["Assertions"][0]["Assert"], json!({ "Fn::Equals": [{ "Ref": "Alarms" }, "true"] }));
}

#[test]
fn a_budget_has_somebody_to_write_to() {
    assert!(mentions(&TEMPLATE["Rules"]["BudgetHasAddress"]["Assertions"], "AlarmEmail"));
    let messages = resource("Budget")["Properties"]["NotificationsWithSubscribers"].as_array().expect("messages");
    assert_eq!(messages.len(), 2);
    for message in messages {
        assert_eq!(
            message["Subscribers"],
            json!([{ "SubscriptionType": "EMAIL", "Address": { "Ref": "AlarmEmail" } }])
        );
    }
}

#[test]
fn the_key_of_the_edge_needs_an_address_where_the_api_still_answers() {
    assert!(is_not_empty("HasEdge", "EdgeDomainName"));
    let rule = &TEMPLATE["Rules"]["EdgeHasAddress"];
    assert!(mentions(&rule["RuleCondition"], "EdgeKeyHashes") && mentions(&rule["Assertions"], "EdgeDomainName"));
}

#[test]
fn the_edge_stores_nothing_but_the_reference_and_sends_its_key() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../edge.yaml");
    let edge: Value = serde_saphyr::from_str(&fs::read_to_string(path).expect("edge.yaml")).expect("YAML");
    let distribution = &edge["Resources"]["Distribution"]["Properties"]["DistributionConfig"];
    // AWS's managed policy CachingDisabled.
    assert_eq!(distribution["DefaultCacheBehavior"]["CachePolicyId"], "4135ea2d-6df8-44a3-9df3-4b5a84be39ad");
    let cached: Vec<_> = distribution["CacheBehaviors"].as_array().expect("behaviours").iter().collect();
    assert_eq!(cached.iter().map(|it| &it["PathPattern"]).collect::<Vec<_>>(), ["/docs*"]);
    assert!(cached[0]["OriginRequestPolicyId"].is_null(), "a stored answer must not depend on who asked");
    let header = &distribution["Origins"][0]["OriginCustomHeaders"][0];
    assert_eq!(header["HeaderName"], "x-edge-key", "shared/src/edge.rs checks this header");
    let rules = edge["Resources"]["Firewall"]["Properties"]["Rules"].as_array().expect("rules");
    let limits = rules.iter().filter(|rule| rule["Statement"]["RateBasedStatement"].is_object()).count();
    assert_eq!(limits, 3, "by address, by bearer and by cookie");
    assert!(
        rules.iter().all(|rule| rule["VisibilityConfig"]["SampledRequestsEnabled"] == false),
        "samples would show tokens"
    );
}
