//! Better Auth's JWTs: accepted as a bearer, and ended by whatever ends the user's session.
use crate::{
    api::{Answer, Api, SECRET, get, post, valid_request},
    contract::ROUTES,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use openssl::{
    bn::{BigNum, BigNumContext},
    ec::{EcGroup, EcKey},
    ecdsa::EcdsaSig,
    hash::MessageDigest,
    nid::Nid,
    pkey::{PKey, Private},
    rsa::{Padding, Rsa},
    sign::{RsaPssSaltlen, Signer},
};
use serde_json::{Value, json};
use sha2::Sha256;
use std::time::{SystemTime, UNIX_EPOCH};
use testing::{Database, Proxy, SERVICES, Side, User, remember_secret};

/// `BETTER_AUTH_URL`'s default, which is the issuer and the audience.
const URL: &str = "http://localhost:3000";

/// The algorithms that Better Auth's jwt plugin offers.
const ALGORITHMS: [&str; 5] = ["EdDSA", "ES256", "ES512", "PS256", "RS256"];

/// The table of better-auth 1.7's jwt plugin, owned like the sessions.
pub const TABLE: &str =
    "create table jwks (id text primary key, \"publicKey\" text not null, \"privateKey\" text not null,
        \"createdAt\" timestamptz not null, \"expiresAt\" timestamptz, alg text, crv text);
    alter table jwks owner to tasks_owner";

/// A key of the jwt plugin.
#[derive(Clone)]
struct JwtKey {
    id: String,
    algorithm: &'static str,
    key: PKey<Private>,
}

impl JwtKey {
    fn new(algorithm: &'static str) -> Self {
        let ec = |curve| {
            let group = EcGroup::from_curve_name(curve).expect("a known curve");
            EcKey::generate(&group).and_then(PKey::from_ec_key)
        };
        let key = match algorithm {
            "EdDSA" => PKey::generate_ed25519(),
            "ES256" => ec(Nid::X9_62_PRIME256V1),
            "ES512" => ec(Nid::SECP521R1),
            _ => Rsa::generate(2048).and_then(PKey::from_rsa),
        };
        Self { id: format!("key of {algorithm}"), algorithm, key: key.expect("a key") }
    }

    /// The public half as a JWK.
    fn jwk(&self) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let point = |curve: &str, length: i32| {
            let key = self.key.ec_key().expect("a point");
            let (mut x, mut y) = (BigNum::new().expect("a number"), BigNum::new().expect("a number"));
            let mut context = BigNumContext::new().expect("a context");
            let public = key.public_key();
            public.affine_coordinates(key.group(), &mut x, &mut y, &mut context).expect("coordinates");
            let padded = |number: &BigNum| text(&number.to_vec_padded(length).expect("it fits"));
            json!({"kty": "EC", "crv": curve, "x": padded(&x), "y": padded(&y)})
        };
        match self.algorithm {
            "EdDSA" => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": text(&self.key.raw_public_key().expect("its bytes"))})
            }
            "ES256" => point("P-256", 32),
            "ES512" => point("P-521", 66),
            _ => {
                let rsa = self.key.rsa().expect("an RSA key");
                json!({"kty": "RSA", "n": text(&rsa.n().to_vec()), "e": text(&rsa.e().to_vec())})
            }
        }
    }

    async fn insert_into(&self, database: &Database) {
        let insert = "insert into jwks values ($1, $2, 'encrypted', now(), null, $3)";
        database.sql(insert, &[&self.id, &self.jwk().to_string(), &self.algorithm]).await;
    }

    /// Signs these claims, with the header that Better Auth writes.
    fn sign(&self, claims: &Value) -> String {
        self.sign_with(json!({"alg": self.algorithm, "kid": self.id}), claims)
    }

    fn sign_with(&self, header: Value, claims: &Value) -> String {
        let signed = unsigned(&header, claims);
        let digest = if self.algorithm == "ES512" { MessageDigest::sha512() } else { MessageDigest::sha256() };
        let mut signer = match self.algorithm {
            "EdDSA" => Signer::new_without_digest(&self.key),
            _ => Signer::new(digest, &self.key),
        }
        .expect("a signer");
        if self.algorithm == "PS256" {
            signer.set_rsa_padding(Padding::PKCS1_PSS).expect("a padding");
            signer.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH).expect("a length");
        }
        let mut signature = signer.sign_oneshot_to_vec(signed.as_bytes()).expect("a signature");
        if let Some(length) = match self.algorithm {
            "ES256" => Some(32),
            "ES512" => Some(66),
            _ => None,
        } {
            let numbers = EcdsaSig::from_der(&signature).expect("two numbers");
            let padded = [numbers.r(), numbers.s()].map(|number| number.to_vec_padded(length).expect("it fits"));
            signature = padded.concat();
        }
        complete(&signed, &signature)
    }
}

fn unsigned(header: &Value, claims: &Value) -> String {
    [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".")
}

fn complete(signed: &str, signature: &[u8]) -> String {
    let jwt = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
    remember_secret(&jwt);
    jwt
}

/// A JWT with HS256.
fn hs256(header: Value, claims: &Value, secret: &[u8]) -> String {
    let signed = unsigned(&header, claims);
    let mac = Hmac::<Sha256>::new_from_slice(secret).expect("any key").chain_update(&signed);
    complete(&signed, &mac.finalize().into_bytes())
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as i64
}

/// The claims of Better Auth's JWTs, which end after 15 minutes, with some changes.
fn claims(user_id: &str, changes: Value) -> Value {
    let mut claims = json!({"id": user_id, "email": "ada@example.com", "name": "Ada", "sub": user_id, "iat": now(),
        "exp": now() + 900, "iss": URL, "aud": URL});
    for (name, value) in changes.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    let claims = claims.as_object_mut().expect("an object");
    claims.retain(|_, value| !value.is_null());
    json!(claims)
}

/// An API, a user who is signed in, and a key of the jwt plugin.
struct SignedIn {
    api: Api,
    ada: User,
    key: JwtKey,
}

impl SignedIn {
    async fn start() -> Self {
        Self::with_settings(&[]).await
    }

    async fn with_settings(settings: &[(&str, &str)]) -> Self {
        let api = Api::with_settings(settings).await;
        let key = JwtKey::new("EdDSA");
        api.database.batch(TABLE).await;
        key.insert_into(&api.database).await;
        let ada = api.database.sign_up("ada").await;
        Self { api, ada, key }
    }

    /// Ada's JWT, made now.
    fn jwt(&self) -> String {
        self.jwt_with(json!({}))
    }

    fn jwt_with(&self, changes: Value) -> String {
        self.key.sign(&claims(&self.ada.id, changes))
    }

    async fn session(&mut self, jwt: &str) -> Answer {
        self.api.call(get("/api/session").bearer(jwt)).await
    }

    /// Fails unless a JWT is refused for this reason, which the log names.
    async fn assert_refused(&mut self, jwt: &str, reason: &str) {
        let answer = self.session(jwt).await;
        assert_eq!(answer.status, 401, "{reason}: {answer:?}");
        let challenge = answer.header("www-authenticate").expect("a challenge");
        assert!(challenge.starts_with("Bearer error=\"invalid_token\", error_description=\""), "{challenge}");
        let without = self.api.call(get("/api/session")).await;
        assert_eq!(without.body, answer.body, "the body does not say why");
        assert_eq!(self.logged_failure(&answer).await, reason);
        assert_eq!(self.logged_failure(&without).await, "missing");
    }

    /// The reason in the log line of a request.
    async fn logged_failure(&mut self, answer: &Answer) -> Value {
        let id = answer.header("x-request-id").expect("an id");
        let mut count = 1;
        loop {
            let lines = self.api.function("session").await.log_lines(count).await;
            if let Some(line) = lines.iter().find(|line| line.contains(id)) {
                return serde_json::from_str::<Value>(line).expect("a JSON line")["auth_failure"].take();
            }
            count = lines.len() + 1;
        }
    }

    async fn execute(&self, statements: &str) {
        self.api.database.batch(statements).await;
    }
}

#[tokio::test]
async fn a_jwt_of_each_algorithm_is_served_on_every_route_without_an_origin() {
    let SignedIn { mut api, ada, .. } = SignedIn::start().await;
    // Better Auth 1.4 stores no algorithm: the type of the key shows it, or for RSA the JWT.
    let mut keys = ALGORITHMS.map(JwtKey::new).to_vec();
    keys.extend(ALGORITHMS.map(|algorithm| JwtKey { id: format!("1.4 {algorithm}"), ..JwtKey::new(algorithm) }));
    api.database.batch("delete from jwks").await;
    for key in &keys {
        key.insert_into(&api.database).await;
    }
    api.database.batch("update jwks set alg = null where id like '1.4 %'").await;
    for key in &keys {
        for route in ROUTES.iter().filter(|route| route.needs_session()) {
            let task = api.make_task(&ada, "Ada's").await;
            let jwt = key.sign(&claims(&ada.id, json!({})));
            let answer = api.call(valid_request(route, &ada, task).bearer(&jwt)).await;
            assert!((200..300).contains(&answer.status), "{} on {route:?}: {answer:?}", key.id);
        }
    }
}

#[tokio::test]
async fn a_jwt_makes_one_round_trip_on_every_route_and_none_if_it_is_refused() {
    let SignedIn { mut api, ada, key } = SignedIn::start().await;
    let (network, messages) = Proxy::start_recording(SERVICES.pooler_port).await.expect("a free port");
    api.set("DATABASE_URL", &api.database.plain_api_url(network.port()));
    let bob = api.database.sign_up("bob").await;
    let jwt = key.sign(&claims(&ada.id, json!({})));
    let sent =
        || messages.take().iter().filter(|(side, _)| *side == Side::Client).map(|(_, it)| *it).collect::<String>();
    for route in ROUTES.iter().filter(|route| route.needs_session()) {
        let new_task = format!(
            "with made as (insert into tasks (user_id, title) values ('{}', 'x') returning id) select id::bigint from made",
            ada.id
        );
        let task = api.database.number(&new_task).await;
        api.function(&route.function).await.log_lines(1).await;
        let start = sent();
        // The keys come with the answer to the start's only statement.
        assert!(start.is_empty() || start.matches(['S', 'Q']).count() == 1 && start.ends_with("PBDES"), "{start}");
        for (request, status) in [
            (valid_request(route, &ada, task).bearer(&jwt), 200),
            (valid_request(route, &bob, task).bearer(&jwt), if route.names_user() { 403 } else { 200 }),
            (valid_request(route, &ada, task).bearer(&key.sign(&claims("nobody", json!({})))), 401),
        ] {
            let answer = api.call(request).await;
            assert!(answer.status == status || status == 200 && answer.status != 401, "{route:?}: {answer:?}");
            assert_eq!(sent(), "PBDES", "{route:?}: {answer:?}");
        }
        let expired = key.sign(&claims(&ada.id, json!({"exp": now() - 100})));
        assert_eq!(api.call(valid_request(route, &ada, task).bearer(&expired)).await.status, 401);
        assert_eq!(sent(), "", "{route:?}");
    }
}

#[tokio::test]
async fn a_jwt_that_is_not_quite_right_is_refused_and_the_log_says_why() {
    let mut it = SignedIn::start().await;
    let other = JwtKey { id: it.key.id.clone(), ..JwtKey::new("EdDSA") };
    let rsa = JwtKey::new("RS256");
    rsa.insert_into(&it.api.database).await;
    let of_ada = claims(&it.ada.id, json!({}));
    let with_header = |changes: Value| {
        let mut header = json!({"alg": "EdDSA", "kid": it.key.id});
        for (name, value) in changes.as_object().expect("an object") {
            header[name] = value.clone();
        }
        it.key.sign_with(header, &of_ada)
    };
    let public = rsa.key.public_key_to_pem().expect("a PEM file");
    let confused = |secret: &[u8]| hs256(json!({"alg": "HS256", "kid": rsa.id}), &of_ada, secret);
    let good = it.jwt();
    let (signed, _) = good.rsplit_once('.').expect("a signature");
    let mut cases = vec![
        (it.jwt_with(json!({"exp": now() - 61})), "jwt_expired"),
        (it.jwt_with(json!({"exp": (now() + 900).to_string()})), "jwt_times"),
        (it.jwt_with(json!({"exp": null})), "jwt_times"),
        (it.jwt_with(json!({"iat": now() + 120})), "jwt_not_yet_valid"),
        (it.jwt_with(json!({"nbf": now() + 120})), "jwt_not_yet_valid"),
        (it.jwt_with(json!({"iss": "https://evil.example.com"})), "jwt_issuer"),
        (it.jwt_with(json!({"iss": null})), "jwt_issuer"),
        (it.jwt_with(json!({"aud": "better-auth:session-cache"})), "jwt_audience"),
        (it.jwt_with(json!({"aud": []})), "jwt_audience"),
        (it.jwt_with(json!({"sub": null})), "jwt_subject"),
        (it.jwt_with(json!({"sub": "\0"})), "jwt_subject"),
        (it.jwt_with(json!({"sub": "nobody"})), "jwt_no_session"),
        (it.jwt_with(json!({"scope": "openid", "azp": "a-client"})), "jwt_purpose"),
        (other.sign(&of_ada), "jwt_signature"),
        (format!("{signed}."), "jwt_signature"),
        (with_header(json!({"typ": "better-auth.session-cache+jwt"})), "jwt_type"),
        (with_header(json!({"typ": "at+jwt"})), "jwt_type"),
        (with_header(json!({"crit": ["b64"], "b64": false})), "jwt_malformed"),
        (with_header(json!({"alg": "none"})), "jwt_algorithm"),
        (complete(&unsigned(&json!({"alg": "none"}), &of_ada), b""), "jwt_algorithm"),
        (complete(&unsigned(&json!({"alg": "NoNe", "kid": it.key.id}), &of_ada), b""), "jwt_algorithm"),
        (with_header(json!({"alg": "ES256"})), "jwt_algorithm"),
        (with_header(json!({"alg": "RS256", "kid": it.key.id})), "jwt_algorithm"),
        // A key in the token's own header is not used.
        (other.sign_with(json!({"alg": "EdDSA", "jwk": other.jwk()}), &of_ada), "jwt_unknown_key"),
        (
            other.sign_with(json!({"alg": "EdDSA", "kid": "x", "jku": "https://evil.example.com"}), &of_ada),
            "jwt_unknown_key",
        ),
        (confused(&public), "jwt_algorithm"),
        (confused(rsa.jwk().to_string().as_bytes()), "jwt_algorithm"),
        (confused(SECRET.as_bytes()), "jwt_algorithm"),
    ];
    for kid in ["' or true --", "../../dev/null", "key of EdDS", "key of EdDSA ", "KEY OF EDDSA", "", "\0", "%"] {
        cases.push((with_header(json!({"kid": kid})), "jwt_unknown_key"));
    }
    for kid in [json!(null), json!(1), json!([it.key.id]), json!({})] {
        cases.push((with_header(json!({"kid": kid})), "jwt_unknown_key"));
    }
    assert_eq!(it.session(&good).await.status, 200);
    for (jwt, reason) in cases {
        it.assert_refused(&jwt, reason).await;
    }
    assert_eq!(it.session(&good).await.status, 200);
    assert_eq!(it.session(&it.jwt_with(json!({"aud": ["x", URL], "exp": now() - 50}))).await.status, 200);
}

#[tokio::test]
async fn signing_out_a_ban_and_deletion_end_a_jwt_at_the_next_call() {
    let mut it = SignedIn::start().await;
    it.execute("alter table \"user\" add banned boolean, add \"banExpires\" timestamptz").await;
    it.execute("select migration_tools.install_caller()").await;
    let jwt = it.jwt();
    assert_eq!(it.session(&jwt).await.status, 200);

    it.execute("update \"user\" set banned = true").await;
    it.assert_refused(&jwt, "jwt_no_session").await;
    it.execute("update \"user\" set \"banExpires\" = now() - interval '1 minute'").await;
    assert_eq!(it.session(&jwt).await.status, 200);

    it.execute("delete from session").await;
    it.assert_refused(&jwt, "jwt_no_session").await;
    // A later session does not bring it back.
    it.api.database.sign_in(&it.ada.id, "1 hour").await;
    it.execute("update session set created_at = created_at + interval '10 s'").await;
    it.assert_refused(&jwt, "jwt_no_session").await;
    it.execute("update session set created_at = created_at - interval '10 s'").await;
    let again = it.jwt();
    assert_eq!(it.session(&again).await.status, 200);
    it.execute("update session set expires_at = now() at time zone 'utc' - interval '1 s'").await;
    it.assert_refused(&again, "jwt_no_session").await;
    it.execute("update session set expires_at = now() at time zone 'utc' + interval '1 hour'").await;
    assert_eq!(it.session(&again).await.status, 200);

    it.execute("delete from \"user\"").await;
    it.assert_refused(&again, "jwt_no_session").await;
}

#[tokio::test]
async fn a_new_key_is_found_once_and_made_up_ones_cost_no_query() {
    let mut it = SignedIn::start().await;
    let (network, messages) = Proxy::start_recording(SERVICES.pooler_port).await.expect("a free port");
    let url = it.api.database.plain_api_url(network.port());
    it.api.set("DATABASE_URL", &url);
    let round_trips = || {
        let sent = messages.take();
        sent.iter().filter(|(side, letter)| *side == Side::Client && *letter == 'S').count()
    };
    let old = it.jwt();
    assert_eq!(it.session(&old).await.status, 200);
    let rotated = JwtKey { id: "a new key".to_owned(), ..JwtKey::new("ES256") };
    rotated.insert_into(&it.api.database).await;
    let new = rotated.sign(&claims(&it.ada.id, json!({})));
    round_trips();
    for (jwt, expected) in [(&new, 2), (&new, 1), (&old, 1)] {
        assert_eq!(it.session(jwt).await.status, 200);
        assert_eq!(round_trips(), expected);
    }
    for _ in 0..3 {
        let made_up = rotated.sign_with(json!({"alg": "ES256", "kid": "made up"}), &claims(&it.ada.id, json!({})));
        assert_eq!(it.session(&made_up).await.status, 401);
        assert_eq!(round_trips(), 0);
    }
}

#[tokio::test]
async fn a_key_counts_for_30_days_after_its_end() {
    for (end, reason) in [("29 days", None), ("31 days", Some("jwt_key_expired"))] {
        let mut it = SignedIn::start().await;
        it.execute(&format!("update jwks set \"expiresAt\" = now() - interval '{end}'")).await;
        let jwt = it.jwt();
        match reason {
            None => assert_eq!(it.session(&jwt).await.status, 200),
            Some(reason) => it.assert_refused(&jwt, reason).await,
        }
    }
}

#[tokio::test]
async fn keys_that_the_start_could_not_load_are_loaded_for_the_first_jwt() {
    let mut it = SignedIn::start().await;
    // Below the ephemeral ports, so that no outgoing connection takes it before the proxy does.
    let is_free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let port = (9_000..9_500).find(is_free).expect("a free port");
    let url = it.api.database.plain_api_url(port);
    it.api.set("DATABASE_URL", &url);
    let jwt = it.jwt();
    assert_eq!(it.session(&jwt).await.status, 503, "an outage is no 401");
    let _network = Proxy::start_on(port, SERVICES.pooler_port).await.expect("the port");
    assert_eq!(it.session(&jwt).await.status, 200);
}

#[tokio::test]
async fn a_planted_table_of_keys_lets_nobody_in() {
    let mut it = SignedIn::start().await;
    let planter = "do $$ begin create role a_planter; exception when duplicate_object then null; end $$";
    it.execute(&format!("drop table jwks; {planter}; grant create, usage on schema public to a_planter")).await;
    let table = TABLE.replace("owner to tasks_owner", "owner to a_planter");
    it.execute(&format!("{table}; grant select on jwks to public")).await;
    it.key.insert_into(&it.api.database).await;
    let jwt = it.jwt();
    it.assert_refused(&jwt, "jwt_unknown_key").await;
    // The same table with the right owner would have.
    it.execute("alter table jwks owner to tasks_owner").await;
    it.api.take_function("session");
    assert_eq!(it.session(&jwt).await.status, 200);
}

#[tokio::test]
async fn where_ids_are_uuids_a_sub_or_a_path_that_is_none_is_no_error_of_the_database() {
    let mut it = SignedIn::start().await;
    it.execute(
        "do $$ declare key record; begin
            for key in select conrelid::regclass as tab, conname from pg_constraint where contype = 'f' loop
                execute format('alter table %s drop constraint %I', key.tab, key.conname);
            end loop;
        end $$;
        delete from session; delete from \"user\";
        alter table \"user\" alter id type uuid using id::uuid;
        alter table session alter user_id type uuid using user_id::uuid;
        alter table session add foreign key (user_id) references \"user\" (id) on delete cascade;
        select migration_tools.install_caller();
        insert into \"user\" (id, email) values ('0b8f1f0e-0000-4000-8000-000000000001', 'ada@example.com');
        insert into session (id, user_id, token, created_at, expires_at)
            select 's', id, 'a-token-of-ada', now() at time zone 'utc', now() at time zone 'utc' + interval '1 hour' from \"user\"",
    )
    .await;
    it.ada.id = "0b8f1f0e-0000-4000-8000-000000000001".to_owned();
    let jwt = it.jwt();
    assert_eq!(it.session(&jwt).await.body["user_id"], json!(it.ada.id));
    for sub in [
        "ada",
        "0b8f1f0e",
        "0B8F1F0E-0000-4000-8000-000000000001",
        "' or true --",
        "0b8f1f0e-0000-4000-8000-000000000002",
    ] {
        let jwt = it.jwt_with(json!({"sub": sub}));
        it.assert_refused(&jwt, "jwt_no_session").await;
    }
    for path_user in ["ada", "0b8f1f0e-0000-4000-8000-000000000002"] {
        assert_eq!(it.api.call(get(&format!("/api/{path_user}/tasks")).bearer(&jwt)).await.status, 403);
    }
    assert_eq!(it.api.call(get(&format!("/api/{}/tasks", it.ada.id)).bearer(&jwt)).await.status, 200);
}

#[tokio::test]
async fn jwts_can_be_switched_off() {
    let mut it = SignedIn::with_settings(&[("ACCEPT_JWT", "false"), ("JWT_SHARED_SECRET", SECRET)]).await;
    let jwt = it.jwt();
    it.assert_refused(&jwt, "jwt_not_accepted").await;
    let shared = hs256(json!({"alg": "HS256"}), &claims(&it.ada.id, json!({})), SECRET.as_bytes());
    it.assert_refused(&shared, "jwt_not_accepted").await;
    let token = it.ada.token.clone();
    assert_eq!(it.session(&token).await.status, 200);
}

#[tokio::test]
async fn without_the_need_of_a_session_a_jwt_counts_until_its_end() {
    let mut it = SignedIn::with_settings(&[("JWT_NEEDS_SESSION", "false")]).await;
    it.execute("alter table \"user\" add banned boolean; select migration_tools.install_caller()").await;
    it.execute("delete from session").await;
    let jwt = it.jwt_with(json!({"exp": 4_102_444_800_i64}));
    let answer = it.session(&jwt).await;
    assert_eq!((answer.status, &answer.body["expires_at"]), (200, &json!("2100-01-01T00:00:00.000000Z")));
    assert_eq!(it.api.call(post("/api/tasks").bearer(&jwt).json(json!({"title": "x"}))).await.status, 201);
    it.execute("update \"user\" set banned = true").await;
    it.assert_refused(&jwt, "jwt_no_session").await;
    it.execute("update \"user\" set banned = false").await;
    it.execute("delete from \"user\"").await;
    it.assert_refused(&jwt, "jwt_no_session").await;
}

#[tokio::test]
async fn a_jwt_of_a_shared_secret_needs_the_setting() {
    let secret = "a-secret-that-two-programs-share-0123456789";
    let mut it = SignedIn::with_settings(&[("JWT_SHARED_SECRET", secret)]).await;
    let plain = |changes: Value| {
        let mut changes = changes;
        for name in ["iss", "aud", "id", "name"] {
            changes[name] = Value::Null;
        }
        claims(&it.ada.id, changes)
    };
    let header = || json!({"alg": "HS256", "typ": "JWT"});
    let jwt = |changes: Value| hs256(header(), &plain(changes), secret.as_bytes());
    let cases = [
        (jwt(json!({"sub": null})), "jwt_subject"),
        (jwt(json!({"exp": null})), "jwt_times"),
        (jwt(json!({"session": {"token": "x"}, "user": {"id": it.ada.id}})), "jwt_purpose"),
        (hs256(header(), &plain(json!({})), SECRET.as_bytes()), "jwt_signature"),
        (hs256(json!({"alg": "HS512"}), &plain(json!({})), secret.as_bytes()), "jwt_algorithm"),
    ];
    let good = jwt(json!({}));
    assert_eq!(it.session(&good).await.status, 200);
    let of_better_auth = it.jwt();
    assert_eq!(it.session(&of_better_auth).await.status, 200);
    for (jwt, reason) in cases {
        it.assert_refused(&jwt, reason).await;
    }
    it.execute("delete from session").await;
    it.assert_refused(&good, "jwt_no_session").await;
}

#[tokio::test]
async fn the_session_ends_with_the_jwt_or_the_session_whichever_is_first() {
    let mut it = SignedIn::start().await;
    it.execute("update session set expires_at = '2090-01-01T00:00:00.5'").await;
    for (exp, end) in
        [(3_471_292_800_i64, "2080-01-01T00:00:00.000000Z"), (4_102_444_800, "2090-01-01T00:00:00.500000Z")]
    {
        let jwt = it.jwt_with(json!({"exp": exp}));
        assert_eq!(it.session(&jwt).await.body, json!({"user_id": it.ada.id, "expires_at": end}));
    }
}

#[tokio::test]
async fn a_good_jwt_wins_over_a_cookie_and_a_bad_one_does_not() {
    let mut it = SignedIn::start().await;
    let bob = it.api.database.sign_up("bob").await;
    let with_cookie = |jwt: &str| get("/api/session").bearer(jwt).cookie(&bob.token);
    let (good, expired) = (it.jwt(), it.jwt_with(json!({"exp": now() - 100})));
    assert_eq!(it.api.call(with_cookie(&good)).await.body["user_id"], json!(it.ada.id));
    // As Better Auth's bearer plugin ignores a bearer that is no token of a session.
    assert_eq!(it.api.call(with_cookie(&expired)).await.body["user_id"], json!(bob.id));
    let from_elsewhere =
        post("/api/tasks").bearer(&expired).cookie(&bob.token).header("origin", "https://evil.example.com");
    assert_eq!(it.api.call(from_elsewhere.json(json!({"title": "x"}))).await.status, 403);
    it.execute("delete from session where user_id like 'ada%'").await;
    assert_eq!(it.api.call(with_cookie(&good)).await.status, 401, "even if its user has no session");
}

#[tokio::test]
async fn issuer_and_audience_are_the_front_ends_url_or_those_of_the_settings() {
    let app = ("BETTER_AUTH_URL", "https://app.example.com/auth");
    let neon = "https://ep-x.neonauth.eu-central-1.aws.neon.tech/neondb/auth";
    let of = |url: &str| json!({"iss": url, "aud": url});
    for (settings, changes, reason) in [
        (vec![app], of("https://app.example.com"), None),
        (vec![app], of("https://app.example.com/auth"), None),
        (vec![app], of("https://app.example.com/other"), Some("jwt_issuer")),
        (
            vec![app, ("JWT_ISSUER", neon), ("JWT_AUDIENCE", neon)],
            of("https://ep-x.neonauth.eu-central-1.aws.neon.tech"),
            None,
        ),
        (vec![app, ("JWT_ISSUER", neon), ("JWT_AUDIENCE", neon)], of("https://app.example.com"), Some("jwt_issuer")),
        (vec![app, ("JWT_AUDIENCE", "tasks")], json!({"iss": "https://app.example.com", "aud": "tasks"}), None),
        (vec![app, ("JWT_AUDIENCE", "tasks")], of("https://app.example.com"), Some("jwt_audience")),
    ] {
        let mut it = SignedIn::with_settings(&settings).await;
        let jwt = it.jwt_with(changes.clone());
        match reason {
            None => assert_eq!(it.session(&jwt).await.status, 200, "{settings:?}: {changes}"),
            Some(reason) => it.assert_refused(&jwt, reason).await,
        }
    }
}

#[tokio::test]
async fn jwts_alone_can_be_the_credential() {
    let mut it = SignedIn::with_settings(&[("BETTER_AUTH_SECRET", ""), ("REQUIRE_SIGNED_TOKENS", "true")]).await;
    let (jwt, token) = (it.jwt(), it.ada.token.clone());
    assert_eq!(it.session(&jwt).await.status, 200);
    assert_eq!(it.session(&token).await.status, 401);
}

#[tokio::test]
async fn on_a_schema_from_before_jwts_tokens_work_and_a_jwt_is_refused() {
    let mut it = SignedIn::start().await;
    it.execute("drop function public.jwt_keys(), public.caller(text[])").await;
    let (jwt, token) = (it.jwt(), it.ada.token.clone());
    assert_eq!(it.session(&token).await.status, 200);
    it.assert_refused(&jwt, "jwt_unknown_key").await;
    it.execute("drop index session_token_hash").await;
    it.api.take_function("session");
    assert_eq!(it.session(&token).await.status, 200);
    let log = it.api.function("session").await.log_lines(2).await.join("\n");
    assert!(log.contains("session_token_hash"), "{log}");
}
