#!/usr/bin/env bash
# Style, types, and the rules of which module may import which.
. "$(dirname "$0")/../environment.sh"
environment test,lint

say "ruff"
ruff check .
ruff format --check .

say "pyright"
pyright

say "lint-imports"
lint-imports
