//! What a program of Linux needs of the machine that runs it, and whether Lambda has that.
use anyhow::{Context as _, Result};
use goblin::elf::Elf;
use std::fmt;

/// The newest GLIBC that Amazon Linux 2023 (provided.al2023) has.
const GLIBC_OF_LAMBDA: (u32, u32) = (2, 34);
/// The libraries that every Linux with GLIBC has.
const ALLOWED_LIBRARIES: [&str; 7] = [
    "libc.so.6",
    "libm.so.6",
    "libdl.so.2",
    "libpthread.so.0",
    "libgcc_s.so.1",
    "ld-linux-x86-64.so.2",
    "ld-linux-aarch64.so.1",
];

/// A reason why a program does not run on Lambda.
#[derive(Debug, PartialEq, Eq)]
pub enum Unfit {
    /// The program was linked with a newer GLIBC.
    Glibc((u32, u32)),
    /// The program needs a library that Lambda may not have.
    Library(String),
}

impl fmt::Display for Unfit {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Glibc((major, minor)) => {
                let (newest_major, newest_minor) = GLIBC_OF_LAMBDA;
                write!(formatter, "needs GLIBC_{major}.{minor}, and Lambda has GLIBC_{newest_major}.{newest_minor}")
            }
            Self::Library(name) => write!(formatter, "needs {name}, which Lambda's runtime may not have"),
        }
    }
}

/// What a program asks of the dynamic linker.
pub struct Program {
    /// The newest version of GLIBC that it needs; 0.0 without one.
    pub glibc: (u32, u32),
    /// The shared libraries that it is linked with.
    pub libraries: Vec<String>,
}

impl Program {
    /// Reads a program's file.
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
        Ok(Self { glibc, libraries: elf.libraries.iter().map(|library| (*library).to_owned()).collect() })
    }

    /// Says why Lambda cannot run the program, if that is so.
    pub fn unfit(&self) -> Option<Unfit> {
        if self.glibc > GLIBC_OF_LAMBDA {
            return Some(Unfit::Glibc(self.glibc));
        }
        let library = self.libraries.iter().find(|library| !ALLOWED_LIBRARIES.contains(&library.as_str()));
        library.map(|library| Unfit::Library(library.clone()))
    }
}
