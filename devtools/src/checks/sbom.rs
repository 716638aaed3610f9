//! Software bills of materials: which crates are in the deployed programs, in CycloneDX's format.
use crate::system::{
    process::run_command,
    tools::{cargo, from_crates_io},
};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};
use tokio::process::Command;
use xtask::{
    cli::Sbom,
    place::{root, target},
    step,
};

/// The version that wrote the lists that were compared with cargo's tree.
const CARGO_CYCLONEDX: &str = "cargo-cyclonedx@0.5.9";
/// The packages whose programs are deployed.
const PACKAGES: [&str; 2] = ["functions", "migrate"];
/// The platform of the stack. The crates for arm64 are the same.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// A crate: its name and version.
type Crate = (String, String);

/// Writes the lists to a folder.
pub async fn sbom(options: &Sbom) -> Result<()> {
    for (file, count) in write(&options.folder).await? {
        println!("{}: {count} components", file.display());
    }
    Ok(())
}

/// Writes the lists, reads them again, and fails if one differs from cargo's tree.
pub async fn check() -> Result<()> {
    step(format!("{CARGO_CYCLONEDX}: lists of components"));
    for (package, (file, _)) in PACKAGES.iter().zip(write(&target().join("test/sbom")).await?) {
        let list: Value = serde_json::from_slice(&fs::read(&file)?)?;
        let listed = components(&list).len();
        let built = crates(package).await?.len();
        ensure!(listed == built, "{} has {listed} components, and cargo's tree has {built}", file.display());
        println!("{package}: {listed} components, as in cargo's tree");
    }
    Ok(())
}

/// Writes a list for each package, and returns the files and their numbers of components.
async fn write(folder: &Path) -> Result<Vec<(PathBuf, usize)>> {
    let program = from_crates_io(CARGO_CYCLONEDX).await?;
    fs::create_dir_all(folder)?;
    let mut command = Command::new(program);
    command.args(["cyclonedx", "--quiet", "--format", "json", "--spec-version", "1.5", "--target", PLATFORM]);
    run_command(command.current_dir(root())).await?;
    let mut written = Vec::new();
    // It writes into the folder of each package of the workspace.
    for manifest in manifests()? {
        let package = manifest.parent().and_then(Path::file_name).context("a package has a folder")?.to_string_lossy();
        let name = format!("{package}.cdx.json");
        let made = manifest.with_file_name(&name);
        if PACKAGES.contains(&&*package) {
            let mut list: Value = serde_json::from_slice(&fs::read(&made)?)?;
            let count = keep(&mut list, &crates(&package).await?)?;
            let file = folder.join(name);
            fs::write(&file, serde_json::to_vec_pretty(&list)?)?;
            written.push((file, count));
        }
        fs::remove_file(made)?;
    }
    Ok(written)
}

/// The manifests of the workspace's packages, by name.
fn manifests() -> Result<Vec<PathBuf>> {
    let folders = fs::read_dir(root())?.filter_map(Result::ok).map(|entry| entry.path().join("Cargo.toml"));
    let mut manifests: Vec<_> = folders.filter(|file| file.is_file()).collect();
    manifests.sort();
    Ok(manifests)
}

/// Removes the components that are not built for the package: cargo-cyclonedx reads the features of the whole workspace,
/// which switch on more crates. Returns the number of components.
fn keep(list: &mut Value, built: &BTreeSet<Crate>) -> Result<usize> {
    let all = components(list);
    let missing: Vec<_> = built.difference(&all).collect();
    ensure!(missing.is_empty(), "the list of components lacks {missing:?}");
    let mut removed = BTreeSet::new();
    let components = list["components"].as_array_mut().context("a list of components")?;
    components.retain(|component| {
        let is_built = name_and_version(component).is_some_and(|it| built.contains(&it));
        if !is_built {
            removed.extend(component["bom-ref"].as_str().map(str::to_owned));
        }
        is_built
    });
    let count = components.len();
    let is_kept = |reference: &Value| reference.as_str().is_none_or(|reference| !removed.contains(reference));
    let dependencies = list["dependencies"].as_array_mut().context("a list of dependencies")?;
    dependencies.retain(|dependency| is_kept(&dependency["ref"]));
    for dependency in dependencies {
        if let Some(needed) = dependency["dependsOn"].as_array_mut() {
            needed.retain(is_kept);
        }
    }
    Ok(count)
}

fn components(list: &Value) -> BTreeSet<Crate> {
    list["components"].as_array().into_iter().flatten().filter_map(name_and_version).collect()
}

fn name_and_version(component: &Value) -> Option<Crate> {
    Some((component["name"].as_str()?.to_owned(), component["version"].as_str()?.to_owned()))
}

/// The crates that cargo builds for a package, without the package.
async fn crates(package: &str) -> Result<BTreeSet<Crate>> {
    let mut tree = cargo(&["tree", "--locked", "--package", package, "--edges", "normal,build", "--target", PLATFORM]);
    let output = tree.args(["--prefix", "none", "--format", "{p}"]).output().await?;
    ensure!(output.status.success(), "cargo tree failed: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let crates = text.lines().filter_map(|line| {
        let (name, rest) = line.split_once(" v")?;
        Some((name.to_owned(), rest.split(' ').next()?.to_owned()))
    });
    Ok(crates.filter(|(name, _)| name != package).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn list() -> Value {
        json!({
            "components": [
                { "name": "a", "version": "1.0.0", "bom-ref": "a" },
                { "name": "b", "version": "1.0.0", "bom-ref": "b" },
            ],
            "dependencies": [{ "ref": "a", "dependsOn": ["b"] }, { "ref": "b" }],
        })
    }

    #[test]
    fn a_list_keeps_what_is_built_and_must_have_all_of_it() {
        let built = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), "1.0.0".to_owned())).collect();
        let mut kept = list();
        assert_eq!(keep(&mut kept, &built(&["a"])).unwrap(), 1);
        assert_eq!(kept["dependencies"], json!([{ "ref": "a", "dependsOn": [] }]));
        let error = keep(&mut list(), &built(&["a", "c"])).unwrap_err().to_string();
        assert!(error.contains("lacks") && error.contains("\"c\""), "{error}");
    }
}
