# Sourced by the stages. `environment EXTRAS` gives the stage a copy of the commit, so that nothing is built in the
# checkout, and a virtual environment with the package and these extras. `.ci/run` names one folder for all stages in
# JAXDEBIAS_CI_WORK; a stage that is called by itself makes its own and removes it.
set -euo pipefail
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

if [ -z "${JAXDEBIAS_CI_WORK:-}" ]; then
  JAXDEBIAS_CI_WORK=$(mktemp -d)
  trap 'rm -rf "$JAXDEBIAS_CI_WORK"' EXIT
fi
work=$JAXDEBIAS_CI_WORK

if [ -z "${JAXDEBIAS_DATA:-}" ] && [ -d "$checkout/../shared/data" ]; then
  JAXDEBIAS_DATA=$(cd "$checkout/../shared/data" && pwd)
  export JAXDEBIAS_DATA
fi

say() { printf '\n=== %s\n' "$*"; }

copy() {
  [ -d "$work/copy" ] || git clone -q "$checkout" "$work/copy"
  cd "$work/copy"
}

environment() {
  copy
  [ -d "$work/venv" ] || python3 -m venv "$work/venv"
  . "$work/venv/bin/activate"
  say "pip install \".[$1]\""
  pip install -qq ".[$1]"
}

# PyTorch to compare with, where pip has a CPU build.
peer_torch() {
  pip install -qq "torch==2.13.0" || echo "no CPU build of PyTorch here"
}

versions() {
  python - <<'PYTHON'
import importlib.metadata as m, sys
print("python", sys.version.split()[0], *(f"{p} {m.version(p)}" for p in ("jax", "flax", "optax", "orbax-checkpoint", "numpy")))
PYTHON
}
