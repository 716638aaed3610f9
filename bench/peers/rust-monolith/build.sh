#!/usr/bin/env bash
# build.sh FOLDER: builds the release binary to FOLDER/package/bootstrap.
set -euo pipefail
cd "$(dirname "$0")"
CARGO_TARGET_DIR="$1/target" cargo build --release --locked
mkdir -p "$1/package"
cp "$1/target/release/rust-monolith" "$1/package/bootstrap"
