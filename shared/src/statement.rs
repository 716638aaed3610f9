//! The SQL that may be run: text that does not ask for the caller does not compile.
use tokio_postgres::types::{ToSql, Type};

/// A statement's parameters with their types, so that it needs no round trip to ask for them.
pub(crate) type Parameters<'a> = &'a [(&'a (dyn ToSql + Sync), Type)];

/// SQL that starts from the caller. [`authorised!`] and [`authorised_read!`] make them, and [`without_caller!`] those that
/// need nobody; other text does not compile.
#[derive(Clone, Copy)]
pub(crate) struct Statement {
    sql: &'static str,
    is_repeatable: bool,
}

impl Statement {
    /// Checked while compiling: the text asks for the caller, and its last part reads from that.
    pub(crate) const fn new(sql: &'static str) -> Self {
        assert!(
            contains(sql, "from caller($1)"),
            "the statement does not ask for the caller: make it with authorised! or authorised_read!"
        );
        assert!(contains(sql, "mine"), "the statement does not say whether the path's user is the caller (mine)");
        assert!(
            contains(sql, " from s") || contains(sql, "from caller($1) s"),
            "the statement does not read from s, the caller"
        );
        Self { sql, is_repeatable: true }
    }

    /// Checked while compiling: the text says nothing of tasks, which are always somebody's.
    pub(crate) const fn without_caller(sql: &'static str) -> Self {
        assert!(
            !contains(sql, "tasks"),
            "the statement names tasks, which are always somebody's: make it with authorised! or authorised_read!"
        );
        Self { sql, is_repeatable: true }
    }

    /// For statements that do something else when they run twice.
    pub(crate) const fn never_repeated(self) -> Self {
        Self { is_repeatable: false, ..self }
    }

    pub(crate) fn sql(&self) -> &'static str {
        self.sql
    }

    pub(crate) fn is_repeatable(&self) -> bool {
        self.is_repeatable
    }
}

/// A statement that begins with `s`: the caller's row, or none without a live session. `$1` is the token, `$2` the user
/// whom the path names or null; the statement's own parameters begin at `$3`.
///
/// No row is 401, `mine` false is 403; what a null means is the statement's.
macro_rules! authorised {
    ($($sql:tt)+) => {
        const {
            $crate::statement::Statement::new(concat!(
                "with s as (\
                 select user_id, expires_at, ($2 is null or user_id::text = $2) as mine from caller($1)) ",
                $($sql)+
            ))
        }
    };
}
pub(crate) use authorised;

/// Like [`authorised!`], for a statement that only reads: columns, and what is joined to `s`. PostgreSQL plans it faster than
/// one with a query in front, and it plans every statement anew.
///
/// What is joined is the caller's own, by `s.user_id`, even if the path names somebody else: 403 hides it.
macro_rules! authorised_read {
    ($columns:expr, $($joined:tt)+) => {
        const {
            $crate::statement::Statement::new(concat!(
                "select ($2 is null or s.user_id::text = $2) as mine, ",
                $columns,
                " from caller($1) s ",
                $($joined)+
            ))
        }
    };
}
pub(crate) use authorised_read;

/// A statement that nobody has to be signed in for: it reads and writes nothing of a user's.
macro_rules! without_caller {
    ($sql:expr) => {
        const { $crate::statement::Statement::without_caller($sql) }
    };
}
pub(crate) use without_caller;

const fn contains(text: &str, part: &str) -> bool {
    let (text, part) = (text.as_bytes(), part.as_bytes());
    let mut rest = text;
    while rest.len() >= part.len() {
        let (head, _) = rest.split_at(part.len());
        let mut remaining = (head, part);
        while let ([a, left @ ..], [b, right @ ..]) = remaining {
            if *a != *b {
                break;
            }
            remaining = (left, right);
        }
        if remaining.1.is_empty() {
            return true;
        }
        rest = rest.split_at(1).1;
    }
    false
}
