//! Why a JWT is refused.

/// Why a JWT is no credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JwtFailure {
    /// No JWT is accepted: `ACCEPT_JWT` is false.
    NotAccepted,
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
    /// Its user has no live session of that time, is banned, or is gone.
    NoSession,
}

impl JwtFailure {
    /// The name in the log and the metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::NotAccepted => "jwt_not_accepted",
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
            Self::NoSession => "jwt_no_session",
        }
    }

    /// A sentence for the client's developer, without a quote or backslash (RFC 6750, section 3).
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::NotAccepted => "JWTs are not accepted here",
            Self::Malformed => "The JWT is malformed",
            Self::Type => "The token has another type than JWT",
            Self::Algorithm => "The JWT's algorithm is not accepted, or is not its key's",
            Self::UnknownKey => "The JWT's key is unknown",
            Self::KeyExpired => "The JWT's key has expired",
            Self::Signature => "The JWT's signature is wrong",
            Self::Times => "The JWT lacks exp or iat, or a time in it is not a number",
            Self::Expired => "The JWT has expired",
            Self::NotYetValid => "The JWT is not valid yet",
            Self::Issuer => "The JWT has another issuer",
            Self::Audience => "The JWT has another audience",
            Self::Subject => "The JWT names no user",
            Self::Purpose => "The JWT was made for another purpose",
            Self::NoSession => "The JWT's user is signed out, banned or gone",
        }
    }
}
