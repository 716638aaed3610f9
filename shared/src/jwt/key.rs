//! The public keys of Better Auth's `jwt` plugin, from its table `jwks`, and the signatures that they check.
use crate::jwt::failure::JwtFailure;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use openssl::{
    bn::BigNum,
    ec::{EcGroup, EcKey},
    ecdsa::EcdsaSig,
    error::ErrorStack,
    hash::MessageDigest,
    nid::Nid,
    pkey::{Id, PKey, Public},
    rsa::{Padding, Rsa},
    sign::{RsaPssSaltlen, Verifier},
};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// How long a key counts after it has expired, in seconds: 30 days, the plugin's `gracePeriod`.
const GRACE_PERIOD_S: i64 = 30 * 24 * 60 * 60;
/// The shortest RSA key that counts, in bits (RFC 7518, section 3.3).
const MIN_RSA_BITS: i32 = 2048;

/// An algorithm that the plugin offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    EdDsa,
    Es256,
    Es512,
    Ps256,
    Rs256,
}

/// A public key, and what it is good for.
pub(crate) struct Key {
    id: String,
    public: PublicKey,
    /// `None` for an RSA key of which only the type is known: Better Auth 1.4 stores no algorithm. Such a key verifies both
    /// RS256 and PS256. A signature of one is not valid for the other, so a forger gains nothing by choosing.
    algorithm: Option<Algorithm>,
    counts_until: Option<i64>,
}

/// A public key of a type that the plugin makes.
enum PublicKey {
    Ed25519(PKey<Public>),
    /// An elliptic curve's, with the length of a coordinate in bytes.
    Ec(PKey<Public>, Curve),
    Rsa(PKey<Public>),
}

#[derive(Clone, Copy)]
enum Curve {
    P256,
    P521,
}

/// Why a row of `jwks` is not a key, in a few words that contain nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InvalidKey(&'static str);

/// The keys, by their ids.
#[derive(Default)]
pub(crate) struct Keys(BTreeMap<String, Key>);

impl Algorithm {
    /// Returns the algorithm with a name of RFC 7518 or RFC 8037.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name {
            "EdDSA" => Some(Self::EdDsa),
            "ES256" => Some(Self::Es256),
            "ES512" => Some(Self::Es512),
            "PS256" => Some(Self::Ps256),
            "RS256" => Some(Self::Rs256),
            _ => None,
        }
    }
}

impl Keys {
    /// Returns the keys of the rows of `jwks`: `(id, publicKey, alg, expiresAt)`, the last in seconds since the epoch.
    /// A row that is not a key is skipped. The log names its id.
    pub(crate) fn from_rows<'a>(
        rows: impl IntoIterator<Item = (&'a str, &'a str, Option<&'a str>, Option<i64>)>,
    ) -> Self {
        let key = |(id, public_key, algorithm, expires_at)| match Key::from_row(id, public_key, algorithm, expires_at) {
            Ok(key) => Some(key),
            Err(InvalidKey(cause)) => {
                tracing::warn!(id, cause, "a key of Better Auth's jwt plugin cannot be used");
                None
            }
        };
        rows.into_iter().filter_map(key).collect()
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Key> {
        self.0.get(id)
    }
}

impl FromIterator<Key> for Keys {
    fn from_iter<I: IntoIterator<Item = Key>>(keys: I) -> Self {
        Self(keys.into_iter().map(|key| (key.id.clone(), key)).collect())
    }
}

impl Key {
    /// Reads a row of `jwks`. `expires_at` is in seconds since the epoch.
    ///
    /// # Errors
    /// Why it is not the public half of a key that the plugin makes.
    pub(crate) fn from_row(
        id: &str,
        public_key_jwk: &str,
        algorithm: Option<&str>,
        expires_at: Option<i64>,
    ) -> Result<Self, InvalidKey> {
        let jwk: Map<String, Value> =
            serde_json::from_str(public_key_jwk).map_err(|_| InvalidKey("it is not a JSON object"))?;
        if jwk.contains_key("d") {
            return Err(InvalidKey("it has a private half"));
        }
        let (is_for_signatures, is_for_verifying) = (
            jwk.get("use").is_none_or(|usage| usage == "sig"),
            jwk.get("key_ops").is_none_or(|all| all.as_array().is_some_and(|all| all.iter().any(|it| it == "verify"))),
        );
        if !is_for_signatures || !is_for_verifying {
            return Err(InvalidKey("it is not for checking signatures"));
        }
        let public = PublicKey::from_jwk(&jwk)?;
        let named = |name: &str| Algorithm::from_name(name).ok_or(InvalidKey("its algorithm is not a known one"));
        let of_row = algorithm.map(named).transpose()?;
        let of_jwk = jwk.get("alg").map(|name| named(name.as_str().unwrap_or_default())).transpose()?;
        let algorithm = match (of_row, of_jwk) {
            (Some(row), Some(jwk)) if row != jwk => return Err(InvalidKey("it has two algorithms")),
            (row, jwk) => row.or(jwk).or(public.only_algorithm()),
        };
        if algorithm.is_some_and(|algorithm| !public.supports(algorithm)) {
            return Err(InvalidKey("its algorithm belongs to another type of key"));
        }
        let counts_until = expires_at.map(|end| end.saturating_add(GRACE_PERIOD_S));
        Ok(Self { id: id.to_owned(), public, algorithm, counts_until })
    }

    /// When it counts no more, in seconds since the epoch.
    pub(crate) fn counts_until(&self) -> Option<i64> {
        self.counts_until
    }

    /// # Errors
    /// [`JwtFailure::KeyExpired`] after the key's end and the grace period.
    pub(crate) fn check_time(&self, now: i64) -> Result<(), JwtFailure> {
        if self.counts_until.is_some_and(|end| end <= now) { Err(JwtFailure::KeyExpired) } else { Ok(()) }
    }

    /// Checks a signature. The key decides on the algorithm: `algorithm` is only what the token claims.
    ///
    /// # Errors
    /// [`JwtFailure::Algorithm`] if the key is for another one, [`JwtFailure::Signature`] if the signature is wrong.
    pub(crate) fn check_signature(
        &self,
        algorithm: Algorithm,
        signed: &[u8],
        signature: &[u8],
    ) -> Result<(), JwtFailure> {
        if self.algorithm.is_some_and(|own| own != algorithm) || !self.public.supports(algorithm) {
            return Err(JwtFailure::Algorithm);
        }
        // OpenSSL reports some bad signatures as errors. The crate then takes them from the thread's queue, where a later
        // call for TLS would find them.
        let is_good = self.public.verify(algorithm, signed, signature).unwrap_or(false);
        if is_good { Ok(()) } else { Err(JwtFailure::Signature) }
    }
}

impl PublicKey {
    fn from_jwk(jwk: &Map<String, Value>) -> Result<Self, InvalidKey> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let bytes = |name: &str| {
            let decoded = text(name).and_then(|encoded| URL_SAFE_NO_PAD.decode(encoded).ok());
            decoded.ok_or(InvalidKey("a part is missing or not base64url"))
        };
        let refused = |_: ErrorStack| InvalidKey("OpenSSL refuses it");
        match (text("kty"), text("crv")) {
            (Some("OKP"), Some("Ed25519")) => {
                PKey::public_key_from_raw_bytes(&bytes("x")?, Id::ED25519).map(Self::Ed25519).map_err(refused)
            }
            (Some("EC"), Some(name)) => {
                let curve = Curve::from_name(name).ok_or(InvalidKey("its curve is not a known one"))?;
                let (x, y) = (bytes("x")?, bytes("y")?);
                if x.len() != curve.bytes() || y.len() != curve.bytes() {
                    return Err(InvalidKey("a coordinate has the wrong length"));
                }
                curve.public_key(&x, &y).map(|key| Self::Ec(key, curve)).map_err(refused)
            }
            (Some("RSA"), _) => {
                let (modulus, exponent) = (bytes("n")?, bytes("e")?);
                let modulus = BigNum::from_slice(&modulus).map_err(refused)?;
                if modulus.num_bits() < MIN_RSA_BITS {
                    return Err(InvalidKey("it is shorter than 2048 bits"));
                }
                let exponent = BigNum::from_slice(&exponent).map_err(refused)?;
                let key = Rsa::from_public_components(modulus, exponent).and_then(PKey::from_rsa);
                key.map(Self::Rsa).map_err(refused)
            }
            _ => Err(InvalidKey("its type is not a known one")),
        }
    }

    /// The algorithm of a type of key that has one only.
    fn only_algorithm(&self) -> Option<Algorithm> {
        match self {
            Self::Ed25519(_) => Some(Algorithm::EdDsa),
            Self::Ec(_, Curve::P256) => Some(Algorithm::Es256),
            Self::Ec(_, Curve::P521) => Some(Algorithm::Es512),
            Self::Rsa(_) => None,
        }
    }

    fn supports(&self, algorithm: Algorithm) -> bool {
        match self.only_algorithm() {
            Some(only) => algorithm == only,
            None => matches!(algorithm, Algorithm::Ps256 | Algorithm::Rs256),
        }
    }

    fn verify(&self, algorithm: Algorithm, signed: &[u8], signature: &[u8]) -> Result<bool, ErrorStack> {
        match self {
            Self::Ed25519(key) => Verifier::new_without_digest(key)?.verify_oneshot(signature, signed),
            Self::Ec(key, curve) => {
                // A JWT has the two numbers in their full length (RFC 7518, section 3.4), OpenSSL wants them in DER.
                if signature.len() != 2 * curve.bytes() {
                    return Ok(false);
                }
                let (r, s) = signature.split_at(curve.bytes());
                let der =
                    EcdsaSig::from_private_components(BigNum::from_slice(r)?, BigNum::from_slice(s)?)?.to_der()?;
                Verifier::new(curve.digest(), key)?.verify_oneshot(&der, signed)
            }
            Self::Rsa(key) => {
                if signature.len() != key.size() {
                    return Ok(false);
                }
                let mut verifier = Verifier::new(MessageDigest::sha256(), key)?;
                if algorithm == Algorithm::Ps256 {
                    verifier.set_rsa_padding(Padding::PKCS1_PSS)?;
                    verifier.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH)?;
                }
                verifier.verify_oneshot(signature, signed)
            }
        }
    }
}

impl Curve {
    fn from_name(name: &str) -> Option<Self> {
        match name {
            "P-256" => Some(Self::P256),
            "P-521" => Some(Self::P521),
            _ => None,
        }
    }

    /// The length of a coordinate, and of each half of a signature.
    fn bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P521 => 66,
        }
    }

    fn digest(self) -> MessageDigest {
        match self {
            Self::P256 => MessageDigest::sha256(),
            Self::P521 => MessageDigest::sha512(),
        }
    }

    /// OpenSSL refuses a point that is not on the curve.
    fn public_key(self, x: &[u8], y: &[u8]) -> Result<PKey<Public>, ErrorStack> {
        let name = match self {
            Self::P256 => Nid::X9_62_PRIME256V1,
            Self::P521 => Nid::SECP521R1,
        };
        let group = EcGroup::from_curve_name(name)?;
        let (x, y) = (BigNum::from_slice(x)?, BigNum::from_slice(y)?);
        PKey::from_ec_key(EcKey::from_public_key_affine_coordinates(&group, &x, &y)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn encode(bytes: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn rsa(bits: u32) -> Value {
        let key = Rsa::generate(bits).unwrap();
        json!({"kty": "RSA", "n": encode(&key.n().to_vec()), "e": encode(&key.e().to_vec())})
    }

    fn ed25519() -> Value {
        let key = PKey::generate_ed25519().unwrap();
        json!({"kty": "OKP", "crv": "Ed25519", "x": encode(&key.raw_public_key().unwrap())})
    }

    fn p256() -> Value {
        let key = EcKey::generate(&EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap()).unwrap();
        let mut context = openssl::bn::BigNumContext::new().unwrap();
        let (mut x, mut y) = (BigNum::new().unwrap(), BigNum::new().unwrap());
        key.public_key().affine_coordinates(key.group(), &mut x, &mut y, &mut context).unwrap();
        let coordinate = |number: &BigNum| encode(&number.to_vec_padded(32).unwrap());
        json!({"kty": "EC", "crv": "P-256", "x": coordinate(&x), "y": coordinate(&y)})
    }

    fn with(mut jwk: Value, name: &str, value: Value) -> Value {
        jwk[name] = value;
        jwk
    }

    fn algorithm(jwk: &Value, algorithm: Option<&str>) -> Result<Option<Algorithm>, InvalidKey> {
        Key::from_row("k", &jwk.to_string(), algorithm, None).map(|key| key.algorithm)
    }

    #[test]
    fn the_row_or_else_the_jwk_names_the_algorithm() {
        let rsa = rsa(2048);
        assert_eq!(algorithm(&ed25519(), None), Ok(Some(Algorithm::EdDsa)));
        assert_eq!(algorithm(&p256(), None), Ok(Some(Algorithm::Es256)));
        assert_eq!(algorithm(&rsa, None), Ok(None));
        assert_eq!(algorithm(&rsa, Some("PS256")), Ok(Some(Algorithm::Ps256)));
        assert_eq!(algorithm(&with(rsa.clone(), "alg", json!("RS256")), None), Ok(Some(Algorithm::Rs256)));
        let contradiction = algorithm(&with(rsa, "alg", json!("RS256")), Some("PS256"));
        assert_eq!(contradiction, Err(InvalidKey("it has two algorithms")));
    }

    #[test]
    fn an_algorithm_of_another_type_of_key_is_refused() {
        let other_type = InvalidKey("its algorithm belongs to another type of key");
        for (jwk, name) in [(ed25519(), "ES256"), (p256(), "EdDSA"), (p256(), "ES512"), (rsa(2048), "EdDSA")] {
            assert_eq!(algorithm(&jwk, Some(name)), Err(other_type), "{name}");
        }
        for name in ["HS256", "none", "RS512", ""] {
            assert_eq!(
                algorithm(&rsa(2048), Some(name)),
                Err(InvalidKey("its algorithm is not a known one")),
                "{name}"
            );
        }
    }

    #[test]
    fn an_rsa_key_has_2048_bits() {
        assert_eq!(algorithm(&rsa(2048), None), Ok(None));
        assert_eq!(algorithm(&rsa(2040), None), Err(InvalidKey("it is shorter than 2048 bits")));
    }

    /// A new RSA key without an algorithm, and a function that signs `text` with it.
    fn old_rsa() -> (Key, impl Fn(bool) -> Vec<u8>) {
        let private = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
        let rsa = private.rsa().unwrap();
        let jwk = json!({"kty": "RSA", "n": encode(&rsa.n().to_vec()), "e": encode(&rsa.e().to_vec())}).to_string();
        let sign = move |is_pss| {
            let mut signer = openssl::sign::Signer::new(MessageDigest::sha256(), &private).unwrap();
            if is_pss {
                signer.set_rsa_padding(Padding::PKCS1_PSS).unwrap();
                signer.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH).unwrap();
            }
            signer.sign_oneshot_to_vec(b"text").unwrap()
        };
        (Key::from_row("k", &jwk, None, None).unwrap(), sign)
    }

    #[test]
    fn an_rsa_key_without_an_algorithm_accepts_each_of_rsas_two_for_its_own_signatures_only() {
        let (key, sign) = old_rsa();
        let check = |algorithm, is_pss| key.check_signature(algorithm, b"text", &sign(is_pss));
        assert_eq!(check(Algorithm::Rs256, false), Ok(()));
        assert_eq!(check(Algorithm::Ps256, true), Ok(()));
        assert_eq!(check(Algorithm::Rs256, true), Err(JwtFailure::Signature));
        assert_eq!(check(Algorithm::Ps256, false), Err(JwtFailure::Signature));
        for other in [Algorithm::EdDsa, Algorithm::Es256, Algorithm::Es512] {
            assert_eq!(check(other, false), Err(JwtFailure::Algorithm), "{other:?}");
        }
    }

    #[test]
    fn an_rsa_signature_has_the_length_of_its_key() {
        let (key, sign) = old_rsa();
        // One signature of 256 begins with a zero, without which it is the same number.
        let signature = (0..10_000).map(|_| sign(true)).find(|signature| signature[0] == 0).unwrap();
        assert_eq!(key.check_signature(Algorithm::Ps256, b"text", &signature), Ok(()));
        assert_eq!(key.check_signature(Algorithm::Ps256, b"text", &signature[1..]), Err(JwtFailure::Signature));
    }

    #[test]
    fn a_row_that_is_no_public_key_is_refused() {
        for jwk in [
            json!(null),
            json!([]),
            json!({}),
            json!({"kty": "oct", "k": "c2VjcmV0"}),
            json!({"kty": "OKP", "crv": "Ed448", "x": "AA"}),
            json!({"kty": "RSA", "n": "", "e": ""}),
            with(ed25519(), "x", json!("AA")),
            with(ed25519(), "x", json!("=")),
            with(ed25519(), "x", json!(1)),
            with(ed25519(), "d", json!("AA")),
            with(ed25519(), "use", json!("enc")),
            with(ed25519(), "key_ops", json!(["sign"])),
            with(ed25519(), "alg", json!(null)),
            with(p256(), "x", json!(encode(&[1; 32]))),
            with(p256(), "x", json!(encode(&[0; 33]))),
            with(p256(), "y", json!("")),
            with(p256(), "crv", json!("P-384")),
            with(p256(), "crv", json!("P-521")),
        ] {
            assert!(algorithm(&jwk, None).is_err(), "{jwk}");
            assert!(ErrorStack::get().errors().is_empty(), "{jwk}");
        }
    }

    #[test]
    fn a_coordinate_has_its_full_length() {
        let key = p256();
        let x = URL_SAFE_NO_PAD.decode(key["x"].as_str().unwrap()).unwrap();
        assert!(algorithm(&key, None).is_ok());
        let longer = with(key, "x", json!(encode(&[&[0], &x[..]].concat())));
        assert_eq!(algorithm(&longer, None), Err(InvalidKey("a coordinate has the wrong length")));
    }

    #[test]
    fn a_row_that_is_no_key_is_skipped() {
        let good = ed25519().to_string();
        let keys = Keys::from_rows([("bad", "{}", None, None), ("good", &*good, Some("EdDSA"), None)]);
        assert!(keys.get("bad").is_none());
        assert!(keys.get("good").is_some());
    }

    proptest! {
        #[test]
        fn no_row_panics(kind in "OKP|EC|RSA", curve in "Ed25519|P-256|P-521", x in any::<Vec<u8>>(), y in any::<Vec<u8>>()) {
            let (x, y) = (encode(&x), encode(&y));
            let jwk = json!({"kty": kind, "crv": curve, "x": x, "y": y, "n": x, "e": y});
            let _ = algorithm(&jwk, None);
        }

        #[test]
        fn an_rsa_key_of_any_numbers_refuses_a_wrong_signature(n in proptest::collection::vec(any::<u8>(), 256..300), e in proptest::collection::vec(any::<u8>(), 0..9)) {
            let jwk = json!({"kty": "RSA", "n": encode(&n), "e": encode(&e)}).to_string();
            if let Ok(key) = Key::from_row("k", &jwk, None, None) {
                for algorithm in [Algorithm::Rs256, Algorithm::Ps256] {
                    prop_assert_eq!(key.check_signature(algorithm, b"text", &vec![1; n.len()]), Err(JwtFailure::Signature));
                }
            }
        }
    }
}
