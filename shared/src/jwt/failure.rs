//! Why a JWT is refused.

/// Why a JWT is no credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JwtFailure {
    /// It is not three base64url parts of a header, claims and a signature, or it has extensions.
    Malformed,
    /// It is a token of another type, such as Better Auth's cookie cache.
    Type,
    /// Its algorithm is not accepted, or not the one of its key.
    Algorithm,
    /// No key has its `kid`.
    UnknownKey,
    /// Its key has expired, and the grace period too.
    KeyExpired,
    /// The signature is wrong.
    Signature,
    /// A claim that has to be a point in time is missing, or is something else.
    Times,
    /// It has expired.
    Expired,
    /// It counts from a later time, or was issued in the future.
    NotYetValid,
    /// It comes from another issuer.
    Issuer,
    /// It is meant for something else.
    Audience,
    /// It names no user.
    Subject,
    /// It is signed with a known key for another purpose: Better Auth's cookie cache, or an OAuth client.
    Purpose,
}

impl JwtFailure {
    /// The name in the log and the metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Malformed => "jwt_malformed",
            Self::Type => "jwt_type",
            Self::Algorithm => "jwt_algorithm",
            Self::UnknownKey => "jwt_unknown_key",
            Self::KeyExpired => "jwt_key_expired",
            Self::Signature => "jwt_signature",
            Self::Times => "jwt_times",
            Self::Expired => "jwt_expired",
            Self::NotYetValid => "jwt_not_yet_valid",
            Self::Issuer => "jwt_issuer",
            Self::Audience => "jwt_audience",
            Self::Subject => "jwt_subject",
            Self::Purpose => "jwt_purpose",
        }
    }
}
