#!/usr/bin/env bash
# Every experiment and every benchmark in miniature: do they still run from the first line to the last?
. "$(dirname "$0")/../environment.sh"
environment test
peer_torch
export JAX_DISABLE_MOST_OPTIMIZATIONS=1  # most of a trial is compiling programs that then run for milliseconds

passed=0
trial() {
  say "$*"
  local started=$SECONDS
  python "$@" > "$work/trial.log" 2>&1 || { tail -n 30 "$work/trial.log"; exit 1; }
  tail -n 1 "$work/trial.log"
  echo "$((SECONDS - started)) s"
  passed=$((passed + 1))
}

# The command of the registry; the slow tests run every table and figure in miniature.
trial -m jaxdebias reproduce fmd-digits --trial
# What has a trial says so in its options; some read the real data.
for script in $(grep -l '"--trial"' benchmarks/*/*.py); do
  if [ -z "${JAXDEBIAS_DATA:-}" ] && grep -q '"--data-dir"' "$script"; then
    echo "SKIPPED $script: JAXDEBIAS_DATA is not set"
  elif grep -q '^import torch' "$script" && ! python -c "import torch" 2> /dev/null; then
    echo "SKIPPED $script: no CPU build of PyTorch here"
  elif grep -q '"--data-dir", type=Path, required=True' "$script"; then
    trial "$script" --trial --data-dir "$JAXDEBIAS_DATA"
  else
    trial "$script" --trial
  fi
done
echo "$passed passed, 0 failed"
