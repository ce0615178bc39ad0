#!/usr/bin/env bash
# The README's two commands, from nothing, on the python3 that is called so: the tests that are not slow, the quickstart.
. "$(dirname "$0")/../environment.sh"
environment test
versions

say "pytest"
pytest -q --durations=10

say "jaxdebias quickstart"
jaxdebias quickstart --out "$work/quickstart"
test -s "$work/quickstart/results.json"
test -s "$work/quickstart/report.html"
jaxdebias check "$work/quickstart" --min-accuracy 0.5
jaxdebias show "$work/quickstart" > /dev/null
