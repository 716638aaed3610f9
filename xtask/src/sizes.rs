//! `cargo xtask sizes`: what the release binaries weigh, and what they need of the machine that they run on.
use crate::{
    process::{run_command, step},
    tools::{cargo, function_names, target},
};
use anyhow::{Context as _, Result, bail};
use goblin::elf::Elf;
use std::fs;

/// The newest GLIBC that Amazon Linux 2023 (provided.al2023) has.
const GLIBC_OF_LAMBDA: (u32, u32) = (2, 34);
/// What every Linux has beside GLIBC's own libraries.
const ALLOWED_LIBRARIES: [&str; 6] =
    ["libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "libgcc_s.so.1", "ld-linux-x86-64.so.2"];

/// Builds the functions for release, prints a line for each, and fails where one could not run on Lambda.
pub async fn sizes() -> Result<()> {
    step("Building the functions for release (link-time optimisation takes minutes)");
    run_command(&mut cargo(&["build", "--release", "--locked", "--package", "functions", "--bins"])).await?;
    println!("{:16} {:>9}  {:10}  shared libraries", "function", "bytes", "GLIBC");
    for name in function_names()? {
        let data = fs::read(target().join("release").join(&name))?;
        let needs = Needs::read(&data).with_context(|| format!("{name} is not a program of Linux"))?;
        let (major, minor) = needs.glibc;
        println!("{name:16} {:>9}  {:10}  {}", data.len(), format!("{major}.{minor}"), needs.libraries.join(" "));
        if needs.glibc > GLIBC_OF_LAMBDA {
            bail!("{name} needs GLIBC {major}.{minor}, and Lambda has {}.{}", GLIBC_OF_LAMBDA.0, GLIBC_OF_LAMBDA.1);
        }
        if let Some(library) = needs.libraries.iter().find(|library| !ALLOWED_LIBRARIES.contains(&library.as_str())) {
            bail!("{name} needs {library}, which Lambda's runtime may not have");
        }
    }
    Ok(())
}

/// What a program asks of the dynamic linker.
struct Needs {
    glibc: (u32, u32),
    libraries: Vec<String>,
}

impl Needs {
    fn read(data: &[u8]) -> Result<Self> {
        let elf = Elf::parse(data)?;
        let mut glibc = (0, 0);
        for version in
            elf.verneed.iter().flat_map(|needed| needed.iter()).flat_map(|library| library.iter().collect::<Vec<_>>())
        {
            let name = elf.dynstrtab.get_at(version.vna_name).unwrap_or_default();
            if let Some((major, minor)) = name.strip_prefix("GLIBC_").and_then(|version| version.split_once('.')) {
                let minor = minor.split('.').next().unwrap_or_default();
                glibc = glibc.max((major.parse()?, minor.parse()?));
            }
        }
        Ok(Self { glibc, libraries: elf.libraries.iter().map(|library| (*library).to_owned()).collect() })
    }
}
