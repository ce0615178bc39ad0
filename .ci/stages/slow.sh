#!/usr/bin/env bash
# The slow tests, with real data where JAXDEBIAS_DATA has them, and timings with nothing beside them. Pages, experiments and
# notebooks have stages of their own.
. "$(dirname "$0")/../environment.sh"
environment test
peer_torch  # weights, losses, optimisers and schedules are compared with it; where there is none, tests skip and say so

say "pytest, slow"
pytest -q -rs -m "(slow or torch) and not alone" --ignore=tests/notebooks --ignore=tests/docs \
  --ignore=tests/test_readme.py --durations=10

say "pytest, timings"
pytest -q -m alone --numprocesses=0 $(grep -rl "mark.alone" tests)
