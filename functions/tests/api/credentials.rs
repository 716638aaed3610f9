//! Thousands of mutated credentials: the API must accept exactly those that Better Auth itself accepts.
use crate::api::{Api, SECRET, get, session_cookie, signed};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::{Index, select},
    strategy::ValueTree as _,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use serde_json::json;
use std::{io::Write as _, path::PathBuf, process::Stdio};
use testing::User;

/// Credentials to try under each configuration, unless `PROPTEST_CASES` is set.
const CASES: usize = 4000;

/// The credential headers of a request.
#[derive(Debug, Clone)]
struct Headers {
    cookie: Option<String>,
    authorization: Option<String>,
}

/// One change to a text.
#[derive(Debug, Clone)]
enum Mutation {
    Replace(Index, char),
    Insert(Index, char),
    Remove(Index),
    SwapCase(Index),
    Truncate(Index),
    Repeat(Index),
    Append(&'static str),
    Prepend(&'static str),
    EncodeOne(Index),
    EncodeAll,
    EncodeInLowerCase,
    Decode,
    UrlSafe,
    WithoutPadding,
    Duplicate,
}

impl Mutation {
    fn apply(&self, text: &str) -> String {
        let encoded = || utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let mut chars: Vec<char> = text.chars().collect();
        let length = chars.len();
        let place = |index: &Index| index.index(length.max(1));
        match self {
            Self::Append(end) => return format!("{text}{end}"),
            Self::Prepend(start) => return format!("{start}{text}"),
            Self::EncodeAll => return encoded(),
            Self::EncodeInLowerCase => {
                return encoded().replace("%2B", "%2b").replace("%2F", "%2f").replace("%3D", "%3d");
            }
            Self::Decode => return percent_decode_str(text).decode_utf8_lossy().into_owned(),
            Self::UrlSafe => return text.replace('+', "-").replace('/', "_"),
            Self::WithoutPadding => return text.trim_end_matches('=').to_owned(),
            Self::Duplicate => return format!("{text}.{text}"),
            _ if chars.is_empty() => {}
            Self::Replace(index, character) => chars[place(index)] = *character,
            Self::Insert(index, character) => chars.insert(place(index), *character),
            Self::Remove(index) => drop(chars.remove(place(index))),
            Self::SwapCase(index) => {
                let it = &mut chars[place(index)];
                *it = if it.is_uppercase() { it.to_ascii_lowercase() } else { it.to_ascii_uppercase() };
            }
            Self::Truncate(index) => chars.truncate(place(index)),
            Self::Repeat(index) => chars.extend_from_within(place(index)..),
            Self::EncodeOne(index) => {
                let place = place(index);
                let code = format!("%{:02X}", u32::from(chars[place]));
                chars.splice(place..=place, code.chars());
            }
        }
        chars.into_iter().collect()
    }
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let character = || {
        prop_oneof![
            select(&['.', '=', '%', '"', ';', ',', ' ', '\t', '+', '/', '\\', 'A'][..]),
            prop::char::range(' ', '~')
        ]
    };
    let index = any::<Index>;
    prop_oneof![
        (index(), character()).prop_map(|(index, character)| Mutation::Replace(index, character)),
        (index(), character()).prop_map(|(index, character)| Mutation::Insert(index, character)),
        index().prop_map(Mutation::Remove),
        index().prop_map(Mutation::SwapCase),
        index().prop_map(Mutation::Truncate),
        index().prop_map(Mutation::Repeat),
        select(
            &[
                "", " ", "\t", "\"", ".", "=", "==", "%", "%3D", "%00", ";", "; a=b", ", x", ".x", "%zz", "%ff",
                "%C2%A0"
            ][..]
        )
        .prop_map(Mutation::Append),
        select(&["", " ", "\t", "\"", ".", "=", "%20", "%22", "x.", "\\"][..]).prop_map(Mutation::Prepend),
        index().prop_map(Mutation::EncodeOne),
        Just(Mutation::EncodeAll),
        Just(Mutation::EncodeInLowerCase),
        Just(Mutation::Decode),
        Just(Mutation::UrlSafe),
        Just(Mutation::WithoutPadding),
        Just(Mutation::Duplicate),
    ]
}

/// Generates one of `bases` with up to three mutations, often with none.
fn mutated(bases: Vec<String>) -> impl Strategy<Value = String> {
    (select(bases), prop_oneof![2 => vec(mutation(), 0..1), 3 => vec(mutation(), 1..2), 2 => vec(mutation(), 2..4)])
        .prop_map(|(base, mutations)| mutations.iter().fold(base, |text, mutation| mutation.apply(&text)))
}

fn headers(users: &[User], cookie_name: &str, secret: &str) -> impl Strategy<Value = Headers> {
    let other_secret = "another-secret-of-the-tests-0123456789";
    let mut values = vec![String::new(), signed("", secret), signed("unknown", secret), signed("a.b", secret)];
    for User { token, .. } in users {
        let good = signed(token, secret);
        // The last character before the padding has two unused bits, which some decoders check and others ignore.
        let (start, last) = good.trim_end_matches('=').split_at(good.len() - 2);
        let other_bits = char::from(last.as_bytes()[0] + 1);
        values.extend([
            token.clone(),
            good.clone(),
            session_cookie(token, secret).split_once('=').expect("a value").1.to_owned(),
            good.replace('+', "-").replace('/', "_"),
            format!("{start}{other_bits}="),
            format!("\"{good}\""),
            signed(&good, secret),
            signed(token, other_secret),
        ]);
    }
    let names = [
        cookie_name,
        "better-auth.session_token",
        "__Secure-better-auth.session_token",
        "better-auth.session_data",
        "a",
    ];
    let mut weighted_names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    weighted_names.extend(vec![cookie_name.to_owned(); 12]);
    weighted_names.extend([
        cookie_name.to_uppercase(),
        format!("{cookie_name} "),
        format!("\t{cookie_name}"),
        String::new(),
        format!("x;{cookie_name}"),
    ]);
    let pair = (select(weighted_names), mutated(values.clone())).prop_map(|(name, value)| format!("{name}={value}"));
    let cookie = (vec(pair, 1..3), select(&["; ", ";", " ; ", ";;", ", "][..]))
        .prop_map(|(pairs, separator)| pairs.join(separator));
    let schemes = ["Bearer ", "bearer ", "BEARER ", "Bearer  ", "Bearer\t", "Bearer", "Basic ", "", "Bearer Bearer "];
    let mut weighted_schemes: Vec<&str> = schemes.to_vec();
    weighted_schemes.extend(["Bearer "; 12]);
    let authorization =
        (select(weighted_schemes), mutated(values)).prop_map(|(scheme, value)| format!("{scheme}{value}"));
    // HTTP header values as they arrive: ASCII, without surrounding white space.
    let as_sent = |value: Option<String>| {
        let value = value?.replace(|it: char| !matches!(it, ' '..='~' | '\t'), "x");
        Some(value.trim_matches([' ', '\t']).to_owned())
    };
    (option::weighted(0.7, cookie), option::weighted(0.6, authorization)).prop_map(move |(cookie, authorization)| {
        Headers { cookie: as_sent(cookie), authorization: as_sent(authorization) }
    })
}

/// Asks Better Auth about each credential: returns the user's id, or `None` if it is rejected.
fn ask_better_auth(
    base_url: &str,
    prefix: &str,
    require_signature: bool,
    secret: &str,
    users: &[User],
    cases: &[Headers],
) -> Vec<Option<String>> {
    let requests: Vec<Vec<(&str, &String)>> = cases
        .iter()
        .map(|it| {
            it.cookie
                .iter()
                .map(|it| ("cookie", it))
                .chain(it.authorization.iter().map(|it| ("authorization", it)))
                .collect()
        })
        .collect();
    let sessions: Vec<_> = users.iter().map(|user| json!({"token": user.token, "userId": user.id})).collect();
    let options =
        json!({"baseURL": base_url, "prefix": prefix, "requireSignature": require_signature, "secret": secret});
    let folder: PathBuf =
        std::env::var_os("BETTER_AUTH").expect("'cargo xtask test better-auth' names its folder").into();
    let mut better_auth = std::process::Command::new("node")
        .arg("judge.mjs")
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Node.js");
    let input = json!({"options": options, "sessions": sessions, "requests": requests}).to_string();
    better_auth.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("judge.mjs reads its input");
    let output = better_auth.wait_with_output().expect("judge.mjs exits");
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).expect("verdicts")
}

#[tokio::test]
#[ignore = "needs Better Auth, which 'cargo xtask test better-auth' installs"]
async fn better_auth_agrees_on_every_credential() {
    let number = |name: &str| std::env::var(name).ok().and_then(|number| number.parse().ok());
    let cases = number("PROPTEST_CASES").unwrap_or(CASES);
    for (base_url, prefix, require_signature) in
        [("http://localhost:3000", "better-auth", false), ("https://app.example.com", "acme", true)]
    {
        let secret = SECRET;
        let mut api = Api::with_settings(&[
            ("BETTER_AUTH_URL", base_url),
            ("BETTER_AUTH_COOKIE_PREFIX", prefix),
            ("REQUIRE_SIGNED_TOKENS", &require_signature.to_string()),
        ])
        .await;
        let users = [api.database.sign_up("ada").await, api.database.sign_up("bob").await];
        let cookie_name =
            format!("{}{prefix}.session_token", if base_url.starts_with("https") { "__Secure-" } else { "" });
        let strategy = headers(&users, &cookie_name, secret);
        // Tokens differ in each run, so a seed alone would not reproduce a case: disagreements are printed in full.
        let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
        let cases: Vec<Headers> =
            (0..cases).map(|_| strategy.new_tree(&mut runner).expect("a case").current()).collect();
        let verdicts = ask_better_auth(base_url, prefix, require_signature, secret, &users, &cases);

        let (mut accepted, mut disagreements) = (0, Vec::new());
        for (number, (case, expected)) in cases.iter().zip(&verdicts).enumerate() {
            let mut request = get("/api/session");
            if let Some(cookie) = &case.cookie {
                // In turn: a list of cookies like API Gateway's, one single cookie, and the Cookie header of emulators.
                request = match number % 3 {
                    0 => cookie
                        .split(';')
                        .fold(request, |request, cookie| request.raw_cookie(cookie.trim_matches([' ', '\t']))),
                    1 => request.raw_cookie(cookie),
                    _ => request.header("cookie", cookie),
                };
            }
            if let Some(authorization) = &case.authorization {
                request = request.header("authorization", authorization);
            }
            let answer = api.call(request).await;
            let user = match answer.status {
                200 => answer.body["user_id"].as_str().map(str::to_owned),
                401 => None,
                _ => panic!("{case:?}: {answer:?}"),
            };
            accepted += usize::from(user.is_some());
            if user != *expected {
                disagreements.push(format!("{case:?}\n    Better Auth: {expected:?}, this API: {user:?}"));
            }
        }
        println!("{base_url}: {} credentials, {accepted} accepted, {} disagreements", cases.len(), disagreements.len());
        assert!(
            accepted * 10 > cases.len(),
            "less than a tenth was accepted, too few for a meaningful test: {accepted}"
        );
        disagreements.truncate(20);
        assert!(disagreements.is_empty(), "{}", disagreements.join("\n"));
    }
}
