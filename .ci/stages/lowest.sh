#!/usr/bin/env bash
# The oldest versions that pyproject.toml admits: import, quickstart, and a subset of the tests that takes two minutes and
# touches each dependency (jax, flax, optax, orbax, scipy, narwhals, msgspec, tyro, rich, matplotlib, jinja2, pillow).
. "$(dirname "$0")/../environment.sh"
copy
python3 -m venv "$work/lowest"
. "$work/lowest/bin/activate"
say 'uv pip install --resolution lowest-direct ".[test]"'
pip install -qq uv
uv pip install -qq --resolution lowest-direct ".[test]"
versions

say "import, quickstart"
python -c "import jaxdebias, jaxdebias.language, jaxdebias.reproduce, jaxdebias.report"
jaxdebias quickstart --out "$work/lowest-quickstart"
test -s "$work/lowest-quickstart/results.json"

say "pytest, a subset"
pytest -q tests/test_core.py tests/test_contracts.py tests/train/test_checkpoint.py tests/train/test_optimizer.py \
  tests/measure/test_groups.py tests/measure/test_attention_iou.py tests/mitigate/_fmd tests/mitigate/test_dfr.py \
  tests/explain/influence/test_objective.py tests/explain/test_cam.py tests/data/test_folder.py tests/report \
  tests/results tests/app/test_predictions.py
