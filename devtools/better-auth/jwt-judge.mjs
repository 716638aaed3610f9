// Makes many changed JWTs, and lets two judges decide on each: jose, set to the API's rules, and Better Auth's own
// verifyJWT, which has fewer.
//
// Reads JSON from standard input:
//   { seed, count, baseURL, users: [id, id], sharedSecret }
// and writes a line of JSON with the rows of jwks, and one for each token:
//   [{ id, publicKey, alg, expiresAt }, ...]
//   { token, changes, subject, reason, betterAuth, leeway }
// `subject` is the user by jose with the API's rules, or null for the reason `reason`. `betterAuth` is whether Better Auth
// accepts the token. `leeway` is true of a token that Better Auth refuses because it knows no leeway. Times are in
// seconds. Each token is made when its line is written, so that the reader can try it at nearly the same time.
//
// The seed decides on the changes. The keys are new in each run, and some signatures are random.
import { constants, createHmac, createPublicKey, generateKeyPairSync, sign as signWith } from "node:crypto";
import { text } from "node:stream/consumers";
import { betterAuth } from "better-auth";
import { memoryAdapter } from "better-auth/adapters/memory";
import { jwt } from "better-auth/plugins";
import { importJWK, jwtVerify } from "jose";

const { seed, count, baseURL, users, sharedSecret } = JSON.parse(await text(process.stdin));
const time = () => Math.floor(Date.now() / 1000);
let now = time();
const DAY_S = 86_400;

// The API's limits: see shared/src/jwt.rs, shared/src/jwt/claims.rs and shared/src/jwt/key.rs.
const LEEWAY_S = 60;
const GRACE_PERIOD_S = 30 * DAY_S;
const MAX_TIME_S = 253_402_300_799;
const MAX_TOKEN_BYTES = 8192;
// serde_json's.
const MAX_DEPTH = 127;

// --- Random choices ---------------------------------------------------------------------------------------------------

let state = seed >>> 0;
// Mulberry32.
function random() {
  state = (state + 0x6d2b79f5) >>> 0;
  let mixed = Math.imul(state ^ (state >>> 15), state | 1);
  mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
  return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
}
const below = (limit) => Math.floor(random() * limit);
const pick = (all) => all[below(all.length)];
const chance = (probability) => random() < probability;

// --- Keys and signatures ----------------------------------------------------------------------------------------------

const KINDS = {
  EdDSA: () => generateKeyPairSync("ed25519"),
  ES256: () => generateKeyPairSync("ec", { namedCurve: "P-256" }),
  ES512: () => generateKeyPairSync("ec", { namedCurve: "P-521" }),
  PS256: () => generateKeyPairSync("rsa", { modulusLength: 2048 }),
  RS256: () => generateKeyPairSync("rsa", { modulusLength: 2048 }),
};
function newKey(id, alg, row = {}) {
  const { privateKey, publicKey } = KINDS[alg]();
  return { id, alg, privateKey, jwk: publicKey.export({ format: "jwk" }), row: { alg, expiresAt: null, ...row } };
}
const keys = [
  ...Object.keys(KINDS).map((alg) => newKey(`key-${alg}`, alg)),
  // Better Auth 1.4 stores no algorithm.
  newKey("old-EdDSA", "EdDSA", { alg: null }),
  newKey("old-RS256", "RS256", { alg: null }),
  newKey("old-PS256", "PS256", { alg: null }),
  newKey("old-ES512", "ES512", { alg: null }),
  newKey("in-grace", "ES256", { expiresAt: now - GRACE_PERIOD_S + DAY_S }),
  newKey("after-grace", "EdDSA", { expiresAt: now - GRACE_PERIOD_S - DAY_S }),
];
const strangers = Object.fromEntries(Object.keys(KINDS).map((alg) => [alg, newKey("stranger", alg)]));
const shared = { id: undefined, alg: "HS256", secret: sharedSecret };
// The key after its grace period is seldom taken, the five algorithms often.
const signers = [...keys.slice(0, 5), ...keys, ...(sharedSecret ? [shared, shared, shared] : [])];

const PSS = { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 };
const SIGN = {
  EdDSA: (key, input) => signWith(null, input, key),
  ES256: (key, input) => signWith("sha256", input, { key, dsaEncoding: "ieee-p1363" }),
  ES512: (key, input) => signWith("sha512", input, { key, dsaEncoding: "ieee-p1363" }),
  PS256: (key, input) => signWith("sha256", input, { key, ...PSS }),
  RS256: (key, input) => signWith("sha256", input, key),
};
const hmac = (secret, input, hash = "sha256") => createHmac(hash, secret).update(input).digest();
const signAs = (key, input) => (key.secret ? hmac(key.secret, input) : SIGN[key.alg](key.privateKey, input));
const bits = (bytes) => BigInt(`0x${bytes.toString("hex") || "0"}`);
const fromBits = (number, length) => Buffer.from(number.toString(16).padStart(2 * length, "0"), "hex");

// --- Changes ----------------------------------------------------------------------------------------------------------

// A draft has the header and the claims as lists of [name, JSON], so that a name can come twice.
const json = JSON.stringify;
const set = (members, name, value) => {
  const member = members.find(([known]) => known === name);
  if (member) member[1] = value;
  else members.push([name, value]);
};
const without = (members, name) => members.filter(([known]) => known !== name);
const header = (name, ...values) => [`header ${name}`, (draft) => set(draft.header, name, pick(values))];
const claim = (name, ...values) => [`claim ${name}`, (draft) => set(draft.claims, name, pick(values))];
// `values` is a function, because they depend on the time.
const claimOfTime = (name, values) => [`claim ${name}`, (draft) => set(draft.claims, name, pick(values()))];
const twice = (part, name, first, last) => [
  `${part} ${name} twice`,
  (draft) => {
    draft[part] = [[name, first(draft)], ...without(draft[part], name), [name, last(draft)]];
  },
];
const keep = (part, name) => (draft) => draft[part].find(([known]) => known === name)?.[1] ?? "null";
const value = (text) => () => text;
const signature = (name, change) => [`signature ${name}`, (draft) => (draft.sign = change(draft.sign, draft))];
const deep = (depth) => "[".repeat(depth) + "]".repeat(depth);

const past = () => String(now - 300), future = () => String(now + 3600);
const oddTimes = () => [
  "null", "true", '""', "[]", "{}", json(future()), json(String(now)), `[${future()}]`, "0", "-0", "-1", "1e400", "-1e400",
  "1e5", `${future()}.5`, `${now - 1}.25`, `${future()}e0`, String(now * 1000), String(MAX_TIME_S), String(MAX_TIME_S + 1),
  "9007199254740993", "1e22", json(new Date(now * 1000).toISOString()), past(), future(), String(now - 1),
  String(now - LEEWAY_S - 5), String(now + LEEWAY_S - 5),
];
const algorithms = [
  "none", "None", "NONE", "nOnE", "", "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512",
  "ES256", "ES256K", "ES384", "ES512", "EdDSA", "eddsa", "Ed25519", "Ed448", "ML-DSA-44", "dir", "RSA-OAEP", "EdDSA ",
  "__proto__", "constructor", "toString",
];
const kids = () => [
  ...keys.map(({ id }) => json(id)), json("stranger"), '""', "null", "0", "true", "[]", '["key-EdDSA"]', '{"id":"key-EdDSA"}',
  json("key-EdDSA "), json("KEY-EDDSA"), json("key-EdDSA\u0000"), json("../key-EdDSA"), json("key-EdDSA' or '1'='1"),
  json("__proto__"), json("constructor"), '"key\\u002dEdDSA"', json("%6bey-EdDSA"),
];
const origins = [
  json(baseURL), json(`${baseURL}/`), json(`${baseURL}/api/auth`), json(baseURL.toUpperCase()), json(` ${baseURL}`),
  json("https://evil.example"), json("better-auth:session-cache"), '""', "null", "1", "{}", "[]", `[${json(baseURL)}]`,
  `[[${json(baseURL)}]]`, `["https://other.example",${json(baseURL)}]`, `[1,null,${json(baseURL)}]`, '["https://other.example"]',
];

let shortSignatures = 0;
const changes = [
  header("alg", ...algorithms.map((alg) => json(alg)), "null", "256", '["EdDSA"]', "{}"),
  header("alg", ...Object.keys(KINDS).map((alg) => json(alg)), json("HS256"), json("none")),
  header("kid", ...kids()),
  header("typ", '"JWT"', '"jwt"', '"Jwt"', '"application/jwt"', '"Application/JWT"'),
  header("typ", '"JWS"', '"at+jwt"', '"better-auth.session-cache+jwt"', '"application/at+jwt"', '""', '"JWT "', "null", "1", '["JWT"]'),
  header("crit", "[]", '["b64"]', '["exp"]', '["alg"]', '"b64"', "null", '["b64","b64"]', '[""]'),
  header("b64", "true", "false", "null", '"false"'),
  ["header crit b64", (draft) => (set(draft.header, "crit", '["b64"]'), set(draft.header, "b64", pick(["true", "false"])))],
  header("cty", '"JWT"', "null"),
  header("zip", '"DEF"'),
  header("enc", '"A256GCM"'),
  header("x", deep(MAX_DEPTH - 1), deep(MAX_DEPTH), deep(MAX_DEPTH + 20), '"\\ud800"', "1e400", '"\\u0000"', json("é😀")),
  twice("header", "alg", value('"none"'), keep("header", "alg")),
  twice("header", "alg", keep("header", "alg"), value('"none"')),
  twice("header", "kid", value('"stranger"'), keep("header", "kid")),
  twice("header", "kid", keep("header", "kid"), value('"stranger"')),
  twice("header", "typ", value('"at+jwt"'), value('"JWT"')),
  ["header without alg", (draft) => (draft.header = without(draft.header, "alg"))],
  ["header without kid", (draft) => (draft.header = without(draft.header, "kid"))],
  ["header reversed", (draft) => draft.header.reverse()],
  ["header escaped", (draft) => (draft.header = draft.header.map(([name, it]) => [name.replace("k", "\\u006b"), it]))],
  ...[["header", "headerText"], ["claims", "claimsText"]].map(([name, part]) => [
    `${name} as other text`,
    (draft) => {
      const written = draft[part];
      draft[part] = pick([
        (members) => `\ufeff${written(members)}`, (members) => ` \n\t\r${written(members)}\r\n `,
        (members) => `${written(members)}x`, (members) => `${written(members)}{}`, (members) => `${written(members)}\u0000`,
        (members) => `[${written(members)}]`, (members) => json(written(members)), () => "null", () => "", () => "1", () => "{}",
        (members) => written(members).slice(0, -1), (members) => written(members).replace("}", ",}"),
        (members) => written(members).replaceAll('"', "'"), (members) => `/**/${written(members)}`,
        (members) => Buffer.concat([Buffer.from(written(members).slice(0, -1)), Buffer.from(pick([',"x":"\xff"}', ',"x":"\xc0\x80"}', ',"x":"\xed\xa0\x80"}']), "latin1")]),
        (members) => Buffer.from(written(members), "utf16le"), (members) => `\u00a0${written(members)}`, (members) => `\v${written(members)}`,
      ]);
    },
  ]),

  claimOfTime("exp", oddTimes),
  claimOfTime("exp", () => [past(), future(), String(now - 1), String(now - LEEWAY_S - 1)]),
  claimOfTime("iat", oddTimes),
  claimOfTime("nbf", oddTimes),
  claimOfTime("nbf", () => [past(), future(), String(now + 20)]),
  claim("iss", ...origins),
  claim("aud", ...origins),
  claim("aud", ...origins),
  claim("sub", '""', "null", "1", "[]", `[${json(users[0])}]`, "true", json(`${users[0]}\u0000`), '"\\ud800"', json("nobody"), json(users[1]), json(` ${users[0]}`)),
  claim("session", "{}", "null", '{"token":"x"}'),
  claim("user", "{}", "null", json({ id: users[1] })),
  claim("azp", '"client"', "null"),
  claim("client_id", '"client"'),
  claim("scope", '"openid profile"', '""'),
  claim("x", deep(MAX_DEPTH - 1), deep(MAX_DEPTH), deep(MAX_DEPTH + 20), '"\\udc00"', "1e400", '"\\u0000"', json("é😀"), '{"exp":1}', "1E+2", "01", ".5", "+1", "NaN"),
  claim("email", json("ada@example.com")),
  claim("nonce", '"n"'),
  claim("__proto__", `{"sub":${json(users[1])}}`),
  ...["exp", "iat", "iss", "aud", "sub"].map((name) => [`claims without ${name}`, (draft) => (draft.claims = without(draft.claims, name))]),
  twice("claims", "exp", past, keep("claims", "exp")),
  twice("claims", "exp", keep("claims", "exp"), past),
  twice("claims", "sub", value(json(users[1])), keep("claims", "sub")),
  twice("claims", "sub", keep("claims", "sub"), value(json(users[1]))),
  twice("claims", "aud", value('"https://other.example"'), keep("claims", "aud")),
  twice("claims", "iss", keep("claims", "iss"), value('"https://other.example"')),
  ["claims reversed", (draft) => draft.claims.reverse()],
  ["claims padded", (draft) => set(draft.claims, "x", json("x".repeat(pick([1000, 5000, 5800, 6500]))))],

  signature("by a stranger", (_, { key }) => (input) => signAs(strangers[key.alg] ?? { secret: "x".repeat(32) }, input)),
  signature("by another key", () => (input) => signAs(pick(keys), input)),
  ["key in the header", (draft) => {
    const stranger = strangers[draft.key.alg] ?? strangers.EdDSA;
    set(draft.header, "alg", json(stranger.alg));
    set(draft.header, pick(["jwk", "x5c", "jku", "x5u"]), pick([json(stranger.jwk), json([stranger.jwk]), '"https://evil.example/jwks"']));
    draft.sign = (input) => signAs(stranger, input);
  }],
  ["RSA by another algorithm", (draft) => {
    const rsa = pick(keys.filter(({ jwk }) => jwk.kty === "RSA"));
    const [alg, sign] = pick([
      ["RS256", SIGN.RS256], ["PS256", SIGN.PS256], ["RS512", (key, input) => signWith("sha512", input, key)],
      ["PS384", (key, input) => signWith("sha384", input, { key, ...PSS, saltLength: 48 })],
    ]);
    set(draft.header, "alg", json(alg));
    set(draft.header, "kid", json(rsa.id));
    draft.sign = (input) => sign(rsa.privateKey, input);
  }],
  ["HS256 with the public key", (draft) => {
    const key = pick(keys), hash = pick(["sha256", "sha256", "sha384", "sha512"]);
    const publicKey = createPublicKey({ key: key.jwk, format: "jwk" });
    const pem = publicKey.export({ type: "spki", format: "pem" });
    const secret = pick([pem, pem.trim(), publicKey.export({ type: "spki", format: "der" }), json(key.jwk), Buffer.from(key.jwk.x ?? key.jwk.n, "base64url"), key.jwk.x ?? key.jwk.n]);
    set(draft.header, "alg", json(`HS${hash.slice(3)}`));
    set(draft.header, "kid", json(key.id));
    draft.sign = (input) => hmac(secret, input, hash);
  }],
  ["HS256 with another secret", (draft) => {
    set(draft.header, "alg", '"HS256"');
    const secret = pick(["", "secret", "\0".repeat(32), ...(sharedSecret ? [sharedSecret, `${sharedSecret} `, sharedSecret.toUpperCase(), Buffer.from(sharedSecret, "base64")] : [])]);
    draft.sign = (input) => hmac(secret, input);
  }],
  ["none", (draft) => (set(draft.header, "alg", json(pick(["none", "None", ""]))), (draft.sign = () => pick([Buffer.alloc(0), Buffer.from("x")])))],
  signature("empty", () => () => Buffer.alloc(0)),
  signature("zero", (sign) => (input) => Buffer.alloc(sign(input).length, pick([0, 255]))),
  signature("too short", (sign) => (input) => sign(input).subarray(0, -1)),
  signature("without its start", (sign) => (input) => sign(input).subarray(1)),
  signature("too long", (sign) => (input) => Buffer.concat([sign(input), Buffer.alloc(pick([1, 32]))])),
  signature("with a zero before", (sign) => (input) => Buffer.concat([Buffer.alloc(1), sign(input)])),
  signature("of other text", (sign) => (input) => sign(Buffer.concat([input, Buffer.from(".")]))),
  signature("with one bit changed", (sign) => (input) => {
    const bytes = Buffer.from(sign(input));
    bytes[below(bytes.length)] ^= 1 << below(8);
    return bytes;
  }),
  ["ECDSA in DER", (draft) => {
    if (draft.key.alg.startsWith("ES")) draft.sign = (input) => signWith(draft.key.alg === "ES256" ? "sha256" : "sha512", input, draft.key.privateKey);
  }],
  ["ECDSA with the negative s", (draft) => {
    // A second valid signature, which anybody can make of the first.
    if (draft.key.alg !== "ES256") return;
    const order = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n;
    draft.sign = (input) => {
      const bytes = SIGN.ES256(draft.key.privateKey, input);
      return Buffer.concat([bytes.subarray(0, 32), fromBits(order - bits(bytes.subarray(32)), 32)]);
    };
  }],
  ["Ed25519 with a larger s", (draft) => {
    if (draft.key.alg !== "EdDSA") return;
    const order = 2n ** 252n + 27742317777372353535851937790883648493n;
    draft.sign = (input) => {
      const bytes = SIGN.EdDSA(draft.key.privateKey, input);
      const s = bits(Buffer.from(bytes.subarray(32)).reverse()) + order;
      return Buffer.concat([bytes.subarray(0, 32), fromBits(s, 32).reverse()]);
    };
  }],
  ["PSS with another salt", (draft) => {
    const rsa = pick(keys.filter(({ jwk }) => jwk.kty === "RSA"));
    set(draft.header, "alg", '"PS256"');
    set(draft.header, "kid", json(rsa.id));
    const saltLength = pick([0, 20, 31, 33, constants.RSA_PSS_SALTLEN_MAX_SIGN]);
    draft.sign = (input) => signWith("sha256", input, { key: rsa.privateKey, ...PSS, saltLength });
  }],
  ["PSS without its first byte, a zero", (draft) => {
    // It is the same number. One signature of 256 has it, so it takes a while to find one.
    if ((shortSignatures += 1) > 8) return;
    set(draft.header, "alg", '"PS256"');
    set(draft.header, "kid", '"key-PS256"');
    const { privateKey } = keys.find(({ id }) => id === "key-PS256");
    draft.sign = (input) => {
      for (;;) {
        const bytes = SIGN.PS256(privateKey, input);
        if (bytes[0] === 0) return bytes.subarray(1);
      }
    };
  }],

  // Encodings that are signed as they are written.
  ...["header", "claims"].map((part) => [
    `${part} in another base64`,
    (draft) => (draft.encode[part] = pick([
      (it) => it.toString("base64"), (it) => `${it.toString("base64url")}=`, (it) => it.toString("hex"), otherBits,
      (it) => it.toString("base64url").replace(/.{40}/, "$& "), (it) => `${it.toString("base64url")}\t`, (it) => `${it.toString("base64url")}A`,
    ])),
  ]),
];

// Changes the bits of the last character that belong to no byte, if it has any.
function otherBits(bytes) {
  // Some signatures vary in length. What follows from the seed must not.
  const choice = random();
  const encoded = bytes.toString("base64url"), spare = { 1: 4, 2: 2, 0: 0 }[bytes.length % 3];
  if (spare === 0 || encoded === "") return encoded;
  const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  return encoded.slice(0, -1) + digits[digits.indexOf(encoded.at(-1)) | (1 + Math.floor(choice * (2 ** spare - 1)))];
}

const place = (token) => below(token.length + 1);
const odd = [".", "=", "%", " ", "\t", "+", "/", "-", "_", "A", "~", '"', ",", ";"];
const textChanges = [
  ["text replaced", (token) => { const at = place(token); return token.slice(0, at) + pick(odd) + token.slice(at + 1); }],
  ["text inserted", (token) => { const at = place(token); return token.slice(0, at) + pick(odd) + token.slice(at); }],
  ["text removed", (token) => { const at = place(token); return token.slice(0, at) + token.slice(at + 1); }],
  ["text case swapped", (token) => {
    const at = place(token), it = token.charAt(at);
    return token.slice(0, at) + (it === it.toUpperCase() ? it.toLowerCase() : it.toUpperCase()) + token.slice(at + 1);
  }],
  ["text cut", (token) => token.slice(0, place(token))],
  ["text appended", (token) => token + pick([".", "=", "==", "%", "%3D", "A", "AA", ".x", ", x", "..", ".."])],
  ["text prepended", (token) => pick([".", "=", "%20", "A", "x.", "Bearer "]) + token],
  ["text percent-encoded", (token) => { const at = place(token) % token.length || 0; return token.slice(0, at) + `%${token.charCodeAt(at).toString(16)}` + token.slice(at + 1); }],
  ["text doubled", (token) => `${token}.${token}`],
  ["signature of another token", (token, other) => token.slice(0, token.lastIndexOf(".") + 1) + other.slice(other.lastIndexOf(".") + 1)],
  ["claims of another token", (token, other) => [token.split(".")[0], other.split(".")[1], token.split(".")[2]].join(".")],
  ["spare bits of the signature", (token) => {
    const [head, body, last] = token.split(".");
    return last === undefined ? token : `${head}.${body}.${otherBits(Buffer.from(last, "base64url"))}`;
  }],
  ["signature padded", (token) => token + "=".repeat((4 - ((token.length - token.lastIndexOf(".") - 1) % 4)) % 4)],
];

// A header value as it arrives: visible ASCII, without white space around it.
const asSent = (token) => token.replace(/[^\x20-\x7e\t]/g, "x").replace(/^[ \t]+|[ \t]+$/g, "");

function compact(draft) {
  const part = (name) => draft.encode[name](Buffer.from(draft[`${name}Text`](draft[name])));
  const signed = `${part("header")}.${part("claims")}`;
  return `${signed}.${draft.sign(Buffer.from(signed)).toString("base64url")}`;
}

let previous = "";
function newToken() {
  const key = pick(signers);
  const written = (members) => `{${members.map(([name, it]) => `"${name}":${it}`).join(",")}}`;
  const draft = {
    key,
    header: [["alg", json(key.alg)], ...(key.id ? [["kid", json(key.id)]] : [])],
    claims: [
      ["iat", String(now - below(600))], ["sub", json(pick(users))], ["exp", String(now + 900)],
      ...(key.secret && chance(0.5) ? [] : [["iss", json(baseURL)], ["aud", json(baseURL)]]),
    ],
    headerText: written,
    claimsText: written,
    encode: { header: (it) => it.toString("base64url"), claims: (it) => it.toString("base64url") },
    sign: (input) => signAs(key, input),
  };
  const names = [];
  for (let number = pick([0, 1, 1, 1, 1, 1, 2, 2]); number > 0; number -= 1) {
    const [name, change] = pick(changes);
    change(draft);
    names.push(name);
  }
  let token = compact(draft);
  const other = previous || token;
  previous = token;
  for (let number = pick([0, 0, 0, 0, 0, 1, 1, 2]); number > 0; number -= 1) {
    const [name, change] = pick(textChanges);
    token = change(token, other);
    names.push(name);
  }
  return { token: asSent(token), changes: [key.id ?? "shared secret", ...names] };
}

// --- The judges -------------------------------------------------------------------------------------------------------

class Refused extends Error {}
const refuseIf = (condition, why) => { if (condition) throw new Refused(why); };
const decoded = (part) => Buffer.from(part, "base64url");

// What serde_json refuses, and JSON.parse does not.
function refuseOddJson(part) {
  const bytes = decoded(part);
  refuseIf(bytes.subarray(0, 3).equals(Buffer.from("\ufeff")), "JSON with a byte order mark");
  const check = (it, depth) => {
    refuseIf(typeof it === "number" && !Number.isFinite(it), "JSON with a number that is too large");
    refuseIf(typeof it === "string" && !it.isWellFormed(), "JSON with half a character");
    if (it === null || typeof it !== "object") return;
    refuseIf(depth > MAX_DEPTH, "JSON that is nested too deeply");
    Object.entries(it).forEach(([name, member]) => (check(name, depth), check(member, depth + 1)));
  };
  check(JSON.parse(bytes), 1);
}

const imported = new Map();
for (const { id, jwk, row, alg } of keys) {
  const own = row.alg ? [row.alg] : jwk.kty === "RSA" ? ["RS256", "PS256"] : [alg];
  imported.set(id, { row, keys: Object.fromEntries(await Promise.all(own.map(async (name) => [name, await importJWK(jwk, name)]))) });
}
const SIGNATURE_BYTES = { EdDSA: 64, ES256: 64, ES512: 132, PS256: 256, RS256: 256, HS256: 32 };

// jose's reason, such as "no exp".
function reasonOf({ claim: name, reason, code, message }) {
  const words = { missing: "no", check_failed: "a wrong", invalid: "an odd" };
  return name ? `${words[reason]} ${name}` : code ?? message;
}

// jose, set to the API's rules.
async function judge(token) {
  refuseIf(Buffer.byteLength(token) > MAX_TOKEN_BYTES, "a token that is too long");
  const chosen = (header) => {
    if (header.alg === "HS256") {
      refuseIf(!sharedSecret, "HS256");
      return Buffer.from(sharedSecret);
    }
    const entry = typeof header.kid === "string" ? imported.get(header.kid) : undefined;
    refuseIf(!entry, "an unknown key");
    refuseIf(entry.row.expiresAt !== null && entry.row.expiresAt + GRACE_PERIOD_S <= now, "a key that has expired");
    refuseIf(!Object.hasOwn(entry.keys, header.alg), "another algorithm than the key's");
    return entry.keys[header.alg];
  };
  const options = { clockTolerance: LEEWAY_S, maxTokenAge: Number.MAX_SAFE_INTEGER, currentDate: new Date(now * 1000), requiredClaims: ["exp", "iat", "sub"] };
  const plain = await jwtVerify(token, chosen, options).catch((error) => {
    throw error instanceof Refused ? error : new Refused(reasonOf(error), { cause: error });
  });
  const { protectedHeader, payload } = plain, parts = token.split(".");
  refuseIf(parts.some((part) => decoded(part).toString("base64url") !== part), "base64url with padding, white space or spare bits");
  refuseIf("crit" in protectedHeader || "b64" in protectedHeader, "an extension");
  refuseIf(decoded(parts[2]).length !== SIGNATURE_BYTES[protectedHeader.alg], "a signature of another length");
  parts.slice(0, 2).forEach(refuseOddJson);
  const isShared = protectedHeader.alg === "HS256";
  const present = (name, expected) => (isShared && !Object.hasOwn(payload, name) ? {} : expected);
  await jwtVerify(token, chosen, {
    ...options,
    ...present("iss", { issuer: baseURL }),
    ...present("aud", { audience: baseURL }),
    ...("typ" in protectedHeader ? { typ: "JWT" } : {}),
  }).catch((error) => { throw new Refused(reasonOf(error), { cause: error }); });
  refuseIf(["azp", "client_id", "scope", ...(isShared ? ["session", "user"] : [])].some((name) => Object.hasOwn(payload, name)), "a claim of another purpose");
  refuseIf(typeof payload.sub !== "string" || payload.sub === "" || payload.sub.includes("\u0000"), "a subject that is no id");
  for (const name of ["exp", "iat", "nbf"]) refuseIf(payload[name] < 0 || payload[name] > MAX_TIME_S, "a time out of range");
  return payload;
}

// The plugin takes the algorithm of a key without one from its options, which the API does not know. So it counts as
// accepting what it accepts under any.
const plugins = ["EdDSA", "ES512", "PS256", "RS256"].map((alg) =>
  betterAuth({
    baseURL,
    secret: "a-secret-of-the-judge-0123456789abcdef",
    database: memoryAdapter({
      user: [], session: [], account: [], verification: [],
      jwks: keys.map(({ id, jwk, row }) => ({
        id, publicKey: json(jwk), privateKey: "", createdAt: new Date(), alg: row.alg,
        expiresAt: row.expiresAt === null ? null : new Date(row.expiresAt * 1000),
      })),
    }),
    plugins: [jwt({ jwks: { keyPairConfig: { alg } } })],
    rateLimit: { enabled: false },
    telemetry: { enabled: false },
    logger: { disabled: true },
  }),
);
async function askBetterAuth(token) {
  const usesDefault = /^[\w-]+\./.test(token) && decoded(token.split(".")[0]).toString().includes("old-");
  for (const plugin of usesDefault ? plugins : plugins.slice(0, 1)) {
    const { payload } = await plugin.api.verifyJWT({ body: { token } });
    if (payload) return true;
  }
  return false;
}

const write = (it) => process.stdout.write(`${json(it)}\n`);
write(keys.map(({ id, jwk, row }) => ({ id, publicKey: json(jwk), ...row })));
for (let number = 0; number < count; number += 1) {
  now = time();
  const { token, changes: names } = newToken();
  const verdict = { token, changes: names, subject: null, reason: null, betterAuth: await askBetterAuth(token), leeway: false };
  try {
    const payload = await judge(token);
    verdict.subject = payload.sub;
    verdict.leeway = payload.exp <= now || payload.nbf > now;
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    verdict.reason = error.message;
  }
  write(verdict);
}
