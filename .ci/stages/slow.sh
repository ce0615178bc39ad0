#!/usr/bin/env bash
# The slow tests, with real data where JAXDEBIAS_DATA has them, and timings with nothing beside them. Pages, experiments and
# notebooks have stages of their own.
. "$(dirname "$0")/../environment.sh"
environment test
# Weights, losses, optimisers and schedules are compared with PyTorch. A CPU build is used where pip has one; where it
# has none, those tests skip and say so.
pip install -qq "torch==2.13.0" || echo "no CPU build of PyTorch here: these tests will skip"

say "pytest, slow"
pytest -q -rs -m "(slow or torch) and not alone" --ignore=tests/notebooks --ignore=tests/docs \
  --ignore=tests/test_readme.py --durations=10

say "pytest, timings"
pytest -q -m alone --numprocesses=0 $(grep -rl "mark.alone" tests)
