#!/usr/bin/env bash
# build.sh FOLDER: creates FOLDER/package (code and dependencies, laid out as in a zip for Lambda) and FOLDER/runtime, a
# virtual environment with AWS's runtime client and boto3. Lambda's managed runtime includes both, so the package does
# not.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
package="$1/package" runtime="$1/runtime"
rm -rf "$package"
mkdir -p "$package"
[ -x "$runtime/bin/python" ] || python3 -m venv "$runtime"
pip() { "$runtime/bin/pip" --disable-pip-version-check --quiet "$@"; }
pip install --no-deps --require-hashes -r "$here/runtime.lock"
pip install --no-deps --require-hashes --target "$package" -r "$here/requirements.lock"
cp "$here/app.py" "$package/"
rm -rf "$package/bin"
# Without bytecode, every cold start would spend time compiling.
"$runtime/bin/python" -m compileall -q "$package"
