//! The SQL that may be run. A statement that does not ask for the caller does not compile.
use tokio_postgres::types::{ToSql, Type};

/// The parameters of a statement with their types, which saves the round trip that would ask the server for them.
pub(crate) type Parameters<'a> = &'a [(&'a (dyn ToSql + Sync), Type)];

/// SQL that may be run. [`authorised!`] and [`authorised_read!`] create statements that start from the caller, and
/// [`without_caller!`] those that need no user. Other text does not compile.
#[derive(Clone, Copy)]
pub(crate) struct Statement {
    sql: &'static str,
    is_repeatable: bool,
}

impl Statement {
    /// Checks at compile time that the text asks for the caller, and that its last part reads from it.
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

    /// Checks at compile time that the text does not mention tasks, which always belong to a user.
    pub(crate) const fn without_caller(sql: &'static str) -> Self {
        assert!(
            !contains(sql, "tasks"),
            "the statement names tasks, which are always somebody's: make it with authorised! or authorised_read!"
        );
        Self { sql, is_repeatable: true }
    }

    /// Marks a statement that must not run twice, because the second run would have another effect.
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

/// Creates a statement that begins with `s`: the caller's row, or no row without a live session. `$1` is the token, and
/// `$2` the user id in the path or null. The statement's own parameters begin at `$3`.
///
/// No row means 401, and `mine` = false means 403. The meaning of nulls is up to the statement.
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

/// Like [`authorised!`], for a statement that only reads: its columns, and what is joined to `s`. PostgreSQL plans
/// every statement anew, and this form faster than one with a `with` query in front.
///
/// The join must be on `s.user_id`, so that only the caller's own rows are read. They are read even if the path names
/// another user, but the 403 hides them.
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

/// Creates a statement that needs no session: it reads and writes nothing that belongs to a user.
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
