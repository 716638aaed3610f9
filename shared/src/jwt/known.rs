//! The keys that a process knows, and the JWTs that it has verified with them.
use crate::{
    clock::{LastTime, unix_seconds},
    jwt::{JwtRules, claims::VerifiedJwt, failure::JwtFailure, key::Keys, memory::VerifiedTokens},
};
use std::sync::{Arc, PoisonError, RwLock};

/// A JWT of an unknown key can mean that there is a new one. The keys are then loaded again, unless that was done at most
/// this many seconds ago. A shorter time would let anyone who makes up keys trigger a query each time.
const LOAD_FOR_UNKNOWN_KEY_AFTER_S: u64 = 30;
/// Seconds after which a good JWT is checked with keys that are loaded anew: one that was removed from the table must not
/// count for longer.
const LOAD_AGAIN_AFTER_S: u64 = 5 * 60;

/// The keys as they were last loaded. It cannot be printed.
#[derive(Default)]
pub(crate) struct KnownKeys {
    current: RwLock<Arc<Current>>,
    /// When the database last returned them.
    last_loaded: LastTime,
    /// When it did so for a request, other than the first time: a key can be made right after Init.
    last_reloaded: LastTime,
}

#[derive(Default)]
struct Current {
    keys: Keys,
    verified: VerifiedTokens,
}

impl KnownKeys {
    /// Checks a JWT now, once as long as the keys stay the same.
    ///
    /// # Errors
    /// The first reason for refusing it.
    pub(crate) fn verify(&self, rules: &JwtRules, token: &str) -> Result<VerifiedJwt, JwtFailure> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        let now = i64::try_from(unix_seconds()).unwrap_or(i64::MAX);
        rules.verify_once(token, &current.keys, &current.verified, now)
    }

    /// Whether the keys have to be loaded before this verdict on a JWT counts.
    pub(crate) fn are_too_old_for(&self, verdict: &Result<VerifiedJwt, JwtFailure>) -> bool {
        match verdict {
            Ok(_) => self.last_loaded.seconds_ago().is_some_and(|age_s| age_s > LOAD_AGAIN_AFTER_S),
            Err(JwtFailure::UnknownKey) => {
                self.last_reloaded.seconds_ago().is_none_or(|age_s| age_s > LOAD_FOR_UNKNOWN_KEY_AFTER_S)
            }
            Err(_) => false,
        }
    }

    /// Replaces the keys by those that the database has just returned, and forgets what was verified with the old ones.
    pub(crate) fn replace(&self, keys: Keys) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) =
            Arc::new(Current { keys, verified: VerifiedTokens::default() });
        if self.last_loaded.seconds_ago().is_some() {
            self.last_reloaded.set_now();
        }
        self.last_loaded.set_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_loaded_again_for_an_unknown_key_after_30_s_and_for_a_good_jwt_after_5_min() {
        let jwt = VerifiedJwt { subject: "ada".to_owned(), issued_at: 0, expires_at: 0, counts_until: 0 };
        let (good, unknown, expired) = (Ok(jwt), Err(JwtFailure::UnknownKey), Err(JwtFailure::Expired));
        let keys = KnownKeys::default();
        assert!(keys.are_too_old_for(&unknown), "they were never loaded");
        assert!(!keys.are_too_old_for(&good) && !keys.are_too_old_for(&expired));
        keys.replace(Keys::default());
        assert!(keys.are_too_old_for(&unknown), "they were loaded in Init alone");
        keys.replace(Keys::default());
        for (age_s, for_unknown, for_good) in
            [(0, false, false), (29, false, false), (31, true, false), (299, true, false), (301, true, true)]
        {
            keys.last_loaded.set_seconds_ago(age_s);
            keys.last_reloaded.set_seconds_ago(age_s);
            assert_eq!(keys.are_too_old_for(&unknown), for_unknown, "{age_s}");
            assert_eq!(keys.are_too_old_for(&good), for_good, "{age_s}");
            assert!(!keys.are_too_old_for(&expired), "{age_s}");
        }
    }
}
