//! Drizzle's and Prisma's command lines, which the tests of the part `databases` run.
use crate::system::tools::{from_npm, lock};
use anyhow::Result;
use std::fs;
use xtask::place::{root, target};

/// Installs the packages of devtools/orm/package-lock.json into a folder under target/, unless they are there already, with the
/// files from docs/ that users copy.
pub async fn install() -> Result<()> {
    let folder = target().join("tools/orm");
    fs::create_dir_all(&folder)?;
    let _lock = lock("orm")?;
    for file in [
        "devtools/orm/package.json",
        "devtools/orm/package-lock.json",
        "devtools/orm/prisma.js-engine.config.ts",
        "docs/drizzle/drizzle.config.ts",
        "docs/drizzle/schema.ts",
        "docs/prisma/prisma.config.ts",
        "docs/prisma/schema.prisma",
    ] {
        let source = root().join(file);
        fs::copy(&source, folder.join(source.file_name().unwrap_or_default()))?;
    }
    from_npm("Drizzle and Prisma", &folder).await
}
