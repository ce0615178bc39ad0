#!/usr/bin/env bash
# The pages from the docstrings, where a warning is an error, and the tests that hold pages to their sources.
. "$(dirname "$0")/../environment.sh"
environment test,docs

say "docs/build.py"
python docs/build.py "$work/docs"

say "pytest, pages"
pytest -q -m "slow or not slow" tests/docs tests/test_readme.py
