//! Checks whether a Linux program can run on Lambda: processor, GLIBC version and shared libraries.
use anyhow::{Context as _, Result, bail};
use goblin::elf::{
    Elf,
    header::{EM_AARCH64, EM_X86_64},
};
use std::{fmt, fs, path::PathBuf};

/// The GLIBC version of Amazon Linux 2023 (provided.al2023).
const GLIBC_OF_LAMBDA: (u32, u32) = (2, 34);
/// Libraries that every Linux with GLIBC has.
const ALLOWED_LIBRARIES: [&str; 7] = [
    "libc.so.6",
    "libm.so.6",
    "libdl.so.2",
    "libpthread.so.0",
    "libgcc_s.so.1",
    "ld-linux-x86-64.so.2",
    "ld-linux-aarch64.so.1",
];

/// A processor architecture of Lambda.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    X86_64,
    Arm64,
}

impl Architecture {
    /// Parses a value of the template's parameter `Architecture`.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "x86_64" => Some(Self::X86_64),
            "arm64" => Some(Self::Arm64),
            _ => None,
        }
    }

    /// Whether this machine builds Linux programs for this processor without a cross-compiler.
    pub fn is_native(self) -> bool {
        let here = if self == Self::X86_64 { "x86_64" } else { "aarch64" };
        std::env::consts::OS == "linux" && std::env::consts::ARCH == here
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(if *self == Self::X86_64 { "x86_64" } else { "arm64" })
    }
}

/// Why a program cannot run on Lambda.
#[derive(Debug, PartialEq, Eq)]
pub enum Unfit {
    /// The program is for another processor; `None` if Lambda does not have it.
    Architecture { is: Option<Architecture>, wanted: Architecture },
    /// The program needs this newer GLIBC.
    Glibc((u32, u32)),
    /// The program needs a library that Lambda may not have.
    Library(String),
}

impl fmt::Display for Unfit {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Architecture { is: Some(is), wanted } => {
                write!(formatter, "is built for {is}, and the stack's Architecture is {wanted}")
            }
            Self::Architecture { is: None, wanted } => {
                write!(formatter, "is built for a processor that Lambda does not have, and not for {wanted}")
            }
            Self::Glibc((major, minor)) => {
                let (newest_major, newest_minor) = GLIBC_OF_LAMBDA;
                write!(formatter, "needs GLIBC_{major}.{minor}, and Lambda has GLIBC_{newest_major}.{newest_minor}")
            }
            Self::Library(name) => write!(formatter, "needs {name}, which Lambda's runtime may not have"),
        }
    }
}

/// What a program needs from the machine and the dynamic linker.
pub struct Program {
    /// `None` if Lambda does not have the processor.
    architecture: Option<Architecture>,
    /// The newest GLIBC version that the program needs; (0, 0) if none.
    glibc: (u32, u32),
    /// Shared libraries that the program is linked with.
    libraries: Vec<String>,
}

impl Program {
    /// Parses an ELF file.
    pub fn read(data: &[u8]) -> Result<Self> {
        let elf = Elf::parse(data).context("it is not a program of Linux")?;
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
        let architecture = match elf.header.e_machine {
            EM_X86_64 => Some(Architecture::X86_64),
            EM_AARCH64 => Some(Architecture::Arm64),
            _ => None,
        };
        Ok(Self { architecture, glibc, libraries: elf.libraries.iter().map(|library| (*library).to_owned()).collect() })
    }

    /// Returns why Lambda cannot run the program on this processor, or `None` if it can.
    pub fn unfit_for(&self, wanted: Architecture) -> Option<Unfit> {
        if self.architecture != Some(wanted) {
            return Some(Unfit::Architecture { is: self.architecture, wanted });
        }
        self.unfit()
    }

    /// Like [`Self::unfit_for`], but for any processor.
    fn unfit(&self) -> Option<Unfit> {
        if self.glibc > GLIBC_OF_LAMBDA {
            return Some(Unfit::Glibc(self.glibc));
        }
        let library = self.libraries.iter().find(|library| !ALLOWED_LIBRARIES.contains(&library.as_str()));
        library.map(|library| Unfit::Library(library.clone()))
    }
}

/// Prints a line for each program: its size, GLIBC version and libraries. Fails if Lambda cannot run one, on this
/// processor if one is given.
pub fn check_all<'n>(programs: impl Iterator<Item = (&'n str, PathBuf)>, wanted: Option<Architecture>) -> Result<()> {
    println!("{:16} {:>9}  {:10}  shared libraries", "function", "bytes", "GLIBC");
    for (name, file) in programs {
        let data = fs::read(&file).with_context(|| format!("{} cannot be read", file.display()))?;
        let program = Program::read(&data).with_context(|| format!("{name} cannot be deployed"))?;
        let (major, minor) = program.glibc;
        println!("{name:16} {:>9}  {:10}  {}", data.len(), format!("{major}.{minor}"), program.libraries.join(" "));
        if let Some(reason) = wanted.map_or_else(|| program.unfit(), |wanted| program.unfit_for(wanted)) {
            bail!("{name} {reason}");
        }
    }
    Ok(())
}
