//! The JWTs that were found good, so that each is checked only once.
use crate::jwt::claims::VerifiedJwt;
use sha2::{Digest as _, Sha256};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// How many tokens are remembered: a few hundred kilobytes.
const CAPACITY: usize = 2048;

/// The SHA-256 digest of a token: the memory holds none that opens a session.
type Digest = [u8; 32];

/// Remembers tokens until they expire. The oldest is forgotten first. It belongs to the keys and rules that the tokens
/// were checked with, and has to be replaced with them.
#[derive(Default)]
pub(crate) struct VerifiedTokens(Mutex<Remembered>);

#[derive(Default)]
struct Remembered {
    tokens: HashMap<Digest, VerifiedJwt>,
    /// The digests of `tokens`, the oldest first.
    order: VecDeque<Digest>,
}

impl VerifiedTokens {
    /// Returns what is known about a token. `now` is in seconds since the epoch.
    pub(crate) fn get(&self, token: &str, now: i64) -> Option<VerifiedJwt> {
        self.lock().tokens.get(&digest(token)).filter(|jwt| now < jwt.counts_until).cloned()
    }

    /// Remembers a token that was found good.
    pub(crate) fn insert(&self, token: &str, verified: VerifiedJwt) {
        let digest = digest(token);
        let mut remembered = self.lock();
        if remembered.tokens.insert(digest, verified).is_some() {
            return;
        }
        remembered.order.push_back(digest);
        if remembered.order.len() > CAPACITY
            && let Some(oldest) = remembered.order.pop_front()
        {
            remembered.tokens.remove(&oldest);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn digest(token: &str) -> Digest {
    Sha256::digest(token).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(subject: &str, end: i64) -> VerifiedJwt {
        VerifiedJwt { subject: subject.to_owned(), issued_at: 0, expires_at: end, counts_until: end }
    }

    #[test]
    fn a_token_is_remembered_until_its_end() {
        let memory = VerifiedTokens::default();
        memory.insert("a", jwt("ada", 100));
        assert_eq!(memory.get("a", 99), Some(jwt("ada", 100)));
        assert_eq!(memory.get("a", 100), None);
        assert_eq!(memory.get("b", 0), None);
    }

    #[test]
    fn the_oldest_token_is_forgotten_first_and_twice_the_same_is_one() {
        let memory = VerifiedTokens::default();
        for number in 0..=CAPACITY {
            memory.insert(&number.to_string(), jwt("ada", 100));
            memory.insert("1", jwt("ada", 100));
        }
        assert_eq!(memory.get("0", 0), None);
        assert!(memory.get("1", 0).is_some());
        assert!(memory.get(&CAPACITY.to_string(), 0).is_some());
        let remembered = memory.lock();
        assert_eq!((remembered.tokens.len(), remembered.order.len()), (CAPACITY, CAPACITY));
    }
}
