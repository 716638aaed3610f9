//! The measured programs and their routes.
use std::{collections::HashMap, path::PathBuf};

/// A kind of call that is measured separately.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Route {
    /// Lists the first 50 tasks.
    List,
    /// Lists the first 50 pending tasks.
    Pending,
    /// Reads one task.
    Get,
    /// Creates a task.
    Create,
    /// Replaces a task's title and description.
    Update,
    /// Toggles whether a task is completed.
    Toggle,
    /// Deletes a task.
    Delete,
    /// Lists tasks with a token that belongs to no session.
    Refused,
    /// Changes a task's title with a merge patch.
    Patch,
    /// Returns the caller's user id.
    Session,
    /// Checks whether the database answers.
    Health,
    /// Deletes all completed tasks.
    Clear,
}

impl Route {
    /// The routes of every program but the floor, in the order of the tables.
    pub const SHARED: [Self; 8] =
        [Self::List, Self::Pending, Self::Get, Self::Create, Self::Update, Self::Toggle, Self::Delete, Self::Refused];
    /// The routes that only this project's API has.
    pub const OURS: [Self; 4] = [Self::Patch, Self::Session, Self::Health, Self::Clear];

    /// The name in tables and results.
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

/// The part of the API that a program implements.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// All routes of this project's API.
    Ours,
    /// The routes in [`Route::SHARED`].
    Shared,
    /// Only the list.
    List,
}

/// An API that consists of one or several functions.
#[derive(Clone)]
pub struct Program {
    /// The key in results.json.
    pub name: &'static str,
    /// The title in tables and plots.
    pub title: &'static str,
    /// The commands of routes whose function is not [`Program::command`].
    pub commands: HashMap<Route, Vec<String>>,
    /// The command of the function.
    pub command: Vec<String>,
    /// The command of the function if its settings are in a secret, unless it is the same.
    pub command_with_secret: Option<Vec<String>>,
    /// The working folder, like Lambda's /var/task.
    pub folder: PathBuf,
    /// The value of Lambda's `_HANDLER`.
    pub handler: &'static str,
    /// Environment variables. The database's address in their values is replaced if another route to the database is
    /// measured.
    pub environment: Vec<(&'static str, String)>,
    /// The zip packages that would be deployed, with the list function's first.
    pub packages: Vec<PathBuf>,
    pub extent: Extent,
}

impl Program {
    /// The command of the function for a route.
    pub fn command_for(&self, route: Route) -> &[String] {
        let route = match route {
            Route::Pending | Route::Refused => Route::List,
            other => other,
        };
        self.commands.get(&route).unwrap_or(&self.command)
    }
}
