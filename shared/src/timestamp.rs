//! Timestamps, as the database stores them and the API returns them.
use chrono::{DateTime, NaiveDateTime, SecondsFormat};
use serde::{Serialize, Serializer};
use tokio_postgres::types::{FromSql, Type};

/// A point in time in UTC, in microseconds, from a `timestamp` column that holds UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub(crate) NaiveDateTime);

impl Timestamp {
    /// Converts seconds since the epoch. `None` if they are outside of the range of dates.
    pub(crate) fn from_unix_seconds(seconds: i64) -> Option<Self> {
        DateTime::from_timestamp(seconds, 0).map(|at| Self(at.naive_utc()))
    }
}

impl Serialize for Timestamp {
    /// Writes `2026-01-31T12:34:56.123456Z` (RFC 3339), always with six fractional digits.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.and_utc().to_rfc3339_opts(SecondsFormat::Micros, true))
    }
}

impl<'a> FromSql<'a> for Timestamp {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        NaiveDateTime::from_sql(ty, raw).map(Self)
    }

    fn accepts(ty: &Type) -> bool {
        <NaiveDateTime as FromSql>::accepts(ty)
    }
}
