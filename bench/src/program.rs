//! What is measured: programs, and the routes that they have.
use std::{collections::HashMap, path::PathBuf};

/// A kind of call.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Route {
    /// The first 50 tasks.
    List,
    /// The first 50 pending tasks.
    Pending,
    /// One task.
    Get,
    /// A new task.
    Create,
    /// A task's title and description replaced.
    Update,
    /// A task completed, or not any more.
    Toggle,
    /// A task removed.
    Delete,
    /// A list for a token that is no session's.
    Refused,
    /// A task's title changed by a merge patch.
    Patch,
    /// Who the caller is.
    Session,
    /// Whether the database answers.
    Health,
    /// All completed tasks removed.
    Clear,
}

impl Route {
    /// Those that every program but the floor has, in the order of the tables.
    pub const SHARED: [Self; 8] =
        [Self::List, Self::Pending, Self::Get, Self::Create, Self::Update, Self::Toggle, Self::Delete, Self::Refused];
    /// Those that only we have.
    pub const OURS: [Self; 4] = [Self::Patch, Self::Session, Self::Health, Self::Clear];

    /// The name in tables and in the results.
    pub fn name(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Pending => "pending",
            Self::Get => "get",
            Self::Create => "create",
            Self::Update => "update",
            Self::Toggle => "toggle",
            Self::Delete => "delete",
            Self::Refused => "401",
            Self::Patch => "patch",
            Self::Session => "session",
            Self::Health => "health",
            Self::Clear => "clear",
        }
    }
}

/// How much of the API a program has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// All that we have.
    Ours,
    /// What all but the floor have.
    Shared,
    /// The list alone.
    List,
}

/// An API, as one function or several.
#[derive(Clone)]
pub struct Program {
    /// The key in the results.
    pub name: &'static str,
    /// What the program is, for people.
    pub title: &'static str,
    /// The command of the function that answers a route, where it is not [`Program::command`].
    pub commands: HashMap<Route, Vec<String>>,
    /// The command of the function.
    pub command: Vec<String>,
    /// The folder that it runs in, as Lambda's /var/task.
    pub folder: PathBuf,
    /// What Lambda calls the handler.
    pub handler: &'static str,
    /// The settings. The database's address in them is replaced when another way to it is measured.
    pub environment: Vec<(&'static str, String)>,
    /// The packages that would be deployed: the list function's first.
    pub packages: Vec<PathBuf>,
    /// Which calls it answers.
    pub extent: Extent,
}

impl Program {
    /// The command of the function for a route.
    pub fn command_of(&self, route: Route) -> &[String] {
        let route = match route {
            Route::Pending | Route::Refused => Route::List,
            other => other,
        };
        self.commands.get(&route).unwrap_or(&self.command)
    }
}
