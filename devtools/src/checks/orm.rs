//! Drizzle's and Prisma's command lines, which the tests of the part `databases` run.
use crate::system::tools::copied_from_npm;
use anyhow::Result;

/// What is copied: the packages, and the files from docs/ that users copy.
const FILES: [&str; 7] = [
    "devtools/orm/package.json",
    "devtools/orm/package-lock.json",
    "devtools/orm/prisma.js-engine.config.ts",
    "docs/drizzle/drizzle.config.ts",
    "docs/drizzle/schema.ts",
    "docs/prisma/prisma.config.ts",
    "docs/prisma/schema.prisma",
];

/// Installs both into a folder under target/, unless they are there already.
pub async fn install() -> Result<()> {
    copied_from_npm("Drizzle and Prisma", "orm", &FILES).await.map(drop)
}
