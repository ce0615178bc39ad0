#!/usr/bin/env bash
# Three notebooks from top to bottom, or those that are named: `.ci/stages/notebooks.sh dbvae_faces`; `all` for all.
. "$(dirname "$0")/../environment.sh"
environment test
names=${*:-find_and_repair where_it_looks where_the_bias_is}
[ "$names" = all ] && names=notebook

say "pytest, notebooks: $names"
pytest -q -m slow tests/notebooks -k "${names// / or }" --durations=6
