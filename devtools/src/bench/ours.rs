//! Our functions as programs to measure.
use crate::{
    servers::postgres::secret,
    system::{process::run_command, tools::cargo},
};
use anyhow::{Context as _, Result};
use bench::{
    function::{Function, Start},
    program::{Extent, Program, Route},
};
use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};
use xtask::{build::functions, step};
use zip::{ZipWriter, write::SimpleFileOptions};

/// Builds our functions and the floor.
pub async fn build_ours() -> Result<()> {
    step("Building the functions and the floor for release (link-time optimisation takes minutes)");
    run_command(&mut cargo(&["build", "--release", "--locked", "--package", "functions", "--bins"])).await?;
    run_command(&mut cargo(&["build", "--release", "--locked", "--package", "bench", "--bins"])).await
}

/// Builds some of our functions.
pub async fn build_some(names: &[&str]) -> Result<()> {
    step("Building the functions for release (link-time optimisation takes minutes)");
    let mut build = cargo(&["build", "--release", "--locked", "--package", "functions"]);
    for name in names {
        build.args(["--bin", name]);
    }
    run_command(&mut build).await
}

/// Starts a function in `folder`, where its lines are added to `logs/LOG`.
pub fn start(program: &Path, environment: &[(&'static str, String)], folder: &Path, log: &str) -> Result<Function> {
    Function::start(&Start {
        command: &[program.display().to_string()],
        folder,
        handler: "bootstrap",
        environment,
        log: &folder.join("logs").join(log),
        share: None,
        cpus: None,
    })
}

/// Our functions with the settings of template.yaml; `built` is the folder of the binaries.
pub fn ours(database_url: String, folder: &Path, built: &Path) -> Result<Program> {
    let packages_folder = folder.join("packages").join(built.file_name().context("a folder has a name")?);
    let mut packages = Vec::new();
    let names = functions()?;
    // The results table shows the size of the first package. docs and purge are not part of the API.
    let api = names.iter().filter(|name| !["docs", "list-tasks", "purge"].contains(&name.as_str()));
    for name in std::iter::once("list-tasks").chain(api.map(String::as_str)) {
        packages.push(pack(&built.join(name), &packages_folder.join(format!("{name}.zip")))?);
    }
    let command = |name: &str| vec![built.join(name).display().to_string()];
    let commands = [
        (Route::Create, "create-task"),
        (Route::Get, "get-task"),
        (Route::Update, "update-task"),
        (Route::Toggle, "complete-task"),
        (Route::Delete, "delete-task"),
        (Route::Patch, "patch-task"),
        (Route::Session, "session"),
        (Route::Health, "health"),
        (Route::Clear, "clear-completed"),
    ];
    Ok(Program {
        name: "ours",
        title: "ours",
        commands: commands.map(|(route, name)| (route, command(name))).into(),
        command: command("list-tasks"),
        command_with_secret: None,
        folder: folder.to_owned(),
        handler: "bootstrap",
        environment: our_environment(database_url)?,
        packages,
        extent: Extent::Ours,
    })
}

/// Our functions' environment, as template.yaml sets it.
pub fn our_environment(database_url: String) -> Result<Vec<(&'static str, String)>> {
    Ok(vec![
        ("DATABASE_URL", database_url),
        ("BETTER_AUTH_SECRET", secret()?),
        ("BETTER_AUTH_URL", "https://app.example.com".to_owned()),
        ("METRICS_NAMESPACE", "TaskApi".to_owned()),
        ("SERVICE_NAME", "task-api".to_owned()),
    ])
}

/// Zips a folder, or a program (as `bootstrap`), like `sam build` and `sam deploy` do.
pub fn pack(what: &Path, to: &Path) -> Result<PathBuf> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut zip = ZipWriter::new(File::create(to)?);
    let options = SimpleFileOptions::default().unix_permissions(0o755).compression_level(Some(6));
    let mut files = vec![what.to_owned()];
    while let Some(path) = files.pop() {
        if path.is_dir() {
            for entry in fs::read_dir(&path)? {
                files.push(entry?.path());
            }
            continue;
        }
        let inside = path.strip_prefix(what)?.to_string_lossy();
        zip.start_file(if inside.is_empty() { "bootstrap".into() } else { inside }, options)?;
        let mut file = File::open(&path).with_context(|| format!("{} cannot be packed", path.display()))?;
        io::copy(&mut file, &mut zip)?;
    }
    zip.finish()?.flush()?;
    Ok(to.to_owned())
}
