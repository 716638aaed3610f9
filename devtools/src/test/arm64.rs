//! The functions for arm64: built as `cargo xtask deploy` builds them there, checked, and made to run here under
//! qemu-user.
//!
//! A compiler accepts only the standard library that was made with it, and a Rust that rustup did not install has none
//! for another processor. Debian has it for its own Rust. So a Debian release under target/ compiles, with the
//! cargo-lambda and Zig of a deployment.
use crate::{
    checks::elf::{Architecture, check_all},
    checks::sam,
    system::{
        chroot::{Chroot, PATH},
        process::shell_quoted,
        progress::run_long,
        tools::{PythonTool, cargo, find_or_install},
    },
};
use anyhow::{Context as _, Result, bail};
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};
use xtask::{
    apt,
    build::functions,
    place::{find_in_path, root, target},
};

/// The Debian release whose Rust compiles: the first one that is new enough.
const RELEASE: &str = "forky";
/// Rust, its standard library for arm64, what links build scripts, and what OpenSSL's build needs.
const PACKAGES: [&str; 7] = ["cargo", "rustc", "libstd-rust-dev:arm64", "gcc", "libc6-dev", "make", "perl"];
/// GLIBC for arm64, and the Debian package that it is from.
const GLIBC: (&str, &str) = ("/usr/aarch64-linux-gnu", "libc6-arm64-cross");

/// Builds the functions and the migrate function, and checks that Lambda can run them. Returns a folder with a program
/// for each of them, which runs it under qemu-user.
pub async fn programs() -> Result<PathBuf> {
    check_machine()?;
    let qemu = find_or_install("qemu-user", || find_in_path("qemu-aarch64"), "qemu-user").await?;
    let (libraries, package) = GLIBC;
    let find = || Some(Path::new(libraries).join("lib/libc.so.6")).filter(|file| file.is_file());
    find_or_install("GLIBC for arm64", find, package).await?;

    let folder = target().join("arm64");
    let built = folder.join("functions");
    build(&folder, &built).await?;
    let names: Vec<_> = functions()?.into_iter().chain(["migrate".to_owned()]).collect();
    let bootstraps = names.iter().map(|name| (name.as_str(), built.join(name).join("bootstrap")));
    check_all(bootstraps, Some(Architecture::Arm64))?;

    let programs = folder.join("programs");
    let _ = fs::remove_dir_all(&programs);
    fs::create_dir_all(&programs)?;
    for name in names {
        let words = [&qemu, Path::new("-L"), Path::new(libraries), &built.join(&name).join("bootstrap")];
        let words: Vec<_> = words.iter().map(|word| shell_quoted(&word.to_string_lossy())).collect();
        let program = programs.join(name);
        // qemu-user replaces the shell, so that signals reach the function.
        fs::write(&program, format!("#!/bin/sh\nexec {}\n", words.join(" ")))?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    }
    Ok(programs)
}

/// Fails if this machine cannot build and run programs for arm64 as this part does.
fn check_machine() -> Result<()> {
    if Architecture::Arm64.is_native() {
        bail!("this machine has an arm64 processor: here, 'cargo xtask test api' tests it");
    }
    if !(cfg!(all(target_os = "linux", target_arch = "x86_64")) && apt::can_install()) {
        bail!("this part needs Debian or Ubuntu on x86_64, and root to enter a Debian {RELEASE} with chroot");
    }
    Ok(())
}

/// Builds the functions into `built`, with the commands that `sam build` runs.
async fn build(folder: &Path, built: &Path) -> Result<()> {
    let chroot = Chroot::install(folder.join("debian"), RELEASE, "arm64", &PACKAGES).await?;
    let lambda = PythonTool::cargo_lambda(true);
    lambda.install().await?;
    let zig = zig(&lambda.program)?;
    sam::write_settings_for_this_machine()?;
    // Cargo has no network in there.
    run_long("Downloading the crates", "fetch", "seconds", &mut cargo(&["fetch", "--locked"])).await?;
    let cargo_home = cargo_home()?;
    for package in ["functions", "migrate"] {
        let (root, target) = (root(), target());
        let mut command = chroot.command(&[&root, &target, &cargo_home], &root.join(package), &lambda.program);
        command.args(["lambda", "build", "--release", "--arm64", "--locked", "--lambda-dir"]).arg(built).env_clear();
        let path = format!("{}:{PATH}", zig.display());
        command.envs([("PATH", &*path), ("HOME", "/root"), ("LC_ALL", "C.UTF-8"), ("CARGO_NET_OFFLINE", "true")]);
        command.env("CARGO_HOME", &cargo_home).env("CARGO_TARGET_DIR", folder.join("target"));
        command.env("CARGO_LAMBDA_COMPILER", "cargo_zigbuild");
        command.env("CARGO_LAMBDA_GLOBAL", sam::settings_for_this_machine());
        let what = format!("Building the package {package} for arm64 (link-time optimisation takes minutes)");
        run_long(&what, &format!("arm64-{package}"), "ten minutes on two cores", &mut command).await?;
    }
    Ok(())
}

/// Returns the folder of the Zig compiler in the environment of a cargo-lambda.
fn zig(cargo_lambda: &Path) -> Result<PathBuf> {
    let libraries = cargo_lambda.with_file_name("../lib").canonicalize()?;
    fs::read_dir(&libraries)?
        .filter_map(Result::ok)
        .map(|python| python.path().join("site-packages/ziglang"))
        .find(|folder| folder.join("zig").is_file())
        .with_context(|| format!("cargo-lambda came without Zig: {}", libraries.display()))
}

/// The folder of the downloaded crates.
fn cargo_home() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("CARGO_HOME") {
        return Ok(folder.into());
    }
    let home = std::env::home_dir().context("there is no home folder")?;
    Ok(home.join(".cargo"))
}
