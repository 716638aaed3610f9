#!/usr/bin/env bash
# build.sh FOLDER: lays out FOLDER/package (code and dependencies, as it would be zipped for Lambda) and FOLDER/runtime, an
# environment with AWS's runtime client alone: Lambda's own runtime brings that, and the package leaves it out.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
package="$1/package" runtime="$1/runtime"
rm -rf "$package"
mkdir -p "$package"
[ -x "$runtime/bin/python" ] || python3 -m venv "$runtime"
pip() { "$runtime/bin/pip" --disable-pip-version-check --quiet "$@"; }
pip install --no-deps -r "$here/runtime.lock"
pip install --no-deps --target "$package" -r "$here/requirements.lock"
cp "$here/app.py" "$package/"
rm -rf "$package/bin"
# A package without byte code would pay for compiling at every cold start.
"$runtime/bin/python" -m compileall -q "$package"
