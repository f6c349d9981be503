#!/usr/bin/env bash
# Build the sdists and wheels of cosd and of the two distributions that install it with an extra, into dist/.
set -euo pipefail
cd "$(dirname "$0")/.."

rm -rf dist
for project in . packaging/*/; do
  "${PYTHON:-python3}" -m build --outdir dist "$project" >/dev/null
done
"${PYTHON:-python3}" scripts/check_metadata.py dist/*
ls -l dist
