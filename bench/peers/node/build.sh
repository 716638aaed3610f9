#!/usr/bin/env bash
# build.sh FOLDER: bundles the program with esbuild into FOLDER/package, as SAM, CDK and SST do, and compiles AWS's
# runtime client in FOLDER/ric. Lambda's managed runtime includes that client, so the package does not. With --splitting,
# AWS's SDK is in files of its own, which are loaded only if the settings are in a secret.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
package="$1/package"
rm -rf "$package"
mkdir -p "$package" "$1/ric"
cp "$here/package.json" "$here/package-lock.json" "$here/app.mjs" "$1/"
cp "$here/ric/package.json" "$here/ric/package-lock.json" "$1/ric/"
cd "$1"
npm ci --silent --no-audit --no-fund
[ -f ric/node_modules/aws-lambda-ric/rapid-client.node ] || (cd ric && npm ci --silent --no-audit --no-fund)
npx esbuild app.mjs --bundle --minify --platform=node --target=node20 --format=esm --splitting --main-fields=module,main --out-extension:.js=.mjs --external:pg-native \
  --banner:js="import{createRequire}from'node:module';const require=createRequire(import.meta.url);" \
  --log-level=warning --outdir="$package"
