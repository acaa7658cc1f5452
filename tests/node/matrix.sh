#!/usr/bin/env bash
# The tests with Node workers on each version of Node that is supported: matrix.sh [TEST...]
set -euo pipefail
cd "$(dirname "$0")/../.."
cache=$(tests/node/cache/fetch | tail -1)
failed=
for version in 18 20 22 24 26; do
    export NODE=$cache/versions/node_modules/node-$version/bin/node
    echo "== Node $("$NODE" --version)"
    cargo build -q --bin roundel
    ROUNDEL_NO_SKIP=1 cargo test -q -p roundel-tests --test node -- "$@" || failed="$failed $version"
done
[ -z "$failed" ] || { echo "failed on Node$failed" >&2; exit 1; }
