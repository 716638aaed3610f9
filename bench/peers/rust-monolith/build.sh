#!/usr/bin/env bash
# build.sh FOLDER: builds the release binaries to FOLDER/package/bootstrap and, with AWS's SDK for the settings in a secret,
# FOLDER/with-secret/bootstrap.
set -euo pipefail
cd "$(dirname "$0")"
CARGO_TARGET_DIR="$1/target" cargo build --release --locked
mkdir -p "$1/package" "$1/with-secret"
cp "$1/target/release/rust-monolith" "$1/package/bootstrap"
cp "$1/target/release/with-secret" "$1/with-secret/bootstrap"
