#!/usr/bin/env bash
# The fast stage on Python 3.13, for which pip chooses the newest JAX: in a Debian trixie of its own, because Debian's and
# Ubuntu's older releases have no such Python. The tree lies in JAXDEBIAS_TRIXIE and is used again if it is there.
# Needs root. Mounts live in a mount namespace of this process, so nothing is left mounted, whatever happens.
set -euo pipefail
tree=${JAXDEBIAS_TRIXIE:-/var/tmp/jaxdebias-trixie}
fail() { echo "newest: $1" >&2; exit 1; }

if [ -z "${JAXDEBIAS_IN_NAMESPACE:-}" ]; then
  [ "$(id -u)" = 0 ] || fail "making a chroot needs root"
  JAXDEBIAS_IN_NAMESPACE=1 exec unshare --mount bash "$0"
fi
checkout=$(cd "$(dirname "$0")/../.." && pwd)

usable() { chroot "$1" python3 -c 'import sys, ensurepip; assert sys.version_info >= (3, 13)' 2>/dev/null; }

if ! usable "$tree"; then
  echo "making $tree"
  if ! command -v debootstrap > /dev/null; then
    { apt-get update -q && apt-get install -qy debootstrap; } > /dev/null 2>&1 || fail "debootstrap cannot be installed"
  fi
  log=$(mktemp)
  rm -rf "$tree.part"
  debootstrap --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates trixie "$tree.part" > "$log" 2>&1 \
    || fail "debootstrap failed: $(tail -n 1 "$log")"
  usable "$tree.part" || fail "no Python 3.13 in $tree.part"
  rm -rf "$tree" "$log"
  mv "$tree.part" "$tree"
fi

mount -t proc proc "$tree/proc" || fail "cannot mount $tree/proc"
mount --rbind /dev "$tree/dev" || fail "cannot mount $tree/dev"
cp -L /etc/resolv.conf "$tree/etc/resolv.conf"
cp -L /etc/hosts "$tree/etc/hosts"

# pip inside as outside: its settings, its variables, and the files and folders that they name.
variables=$(env | grep -E '^(PIP|UV|SSL|REQUESTS|CURL|OPENBLAS|CI|JAXDEBIAS_DATA|[A-Za-z]+_[Pp][Rr][Oo][Xx][Yy])[A-Z_]*=' || true)
settings=$(python3 -m pip config list)
python3 - "$settings" > "$tree/etc/pip.conf" <<'PYTHON'
import ast, configparser, sys
conf = configparser.RawConfigParser()
for line in sys.argv[1].splitlines():
    name, value = line.split("=", 1)
    section, key = name.rsplit(".", 1)
    if not section.startswith(":"):  # :env: are the variables
        conf.has_section(section) or conf.add_section(section)
        conf.set(section, key, ast.literal_eval(value).replace("\n", "\n  "))
conf.write(sys.stdout)
PYTHON

bind() {
  if [ -d "$1" ]; then
    mkdir -p "$tree$1"
  elif [ -f "$1" ]; then
    mkdir -p "$(dirname "$tree$1")"
    [ -e "$tree$1" ] || touch "$tree$1"
  else
    return 0
  fi
  mount --bind "$1" "$tree$1" || fail "cannot mount $tree$1"
}
for word in $(printf '%s\n%s\n' "$variables" "$settings" | tr "='\"" '\n' | tr ' ' '\n' | sort -u); do
  case $word in
    file:///*) bind "$(dirname "${word#file://}")" ;;  # an index links to files beside its folder
    /*) bind "$word" ;;
  esac
done

# The commit, and what the tests read, in a folder of the tree that is new in each run.
inside=/var/tmp/jaxdebias-ci
rm -rf "$tree$inside"
mkdir -p "$tree$inside"
git clone -q "$checkout" "$tree$inside/copy"
if [ -z "${JAXDEBIAS_DATA:-}" ] && [ -d "$checkout/../shared/data" ]; then
  JAXDEBIAS_DATA=$(cd "$checkout/../shared/data" && pwd)
  bind "$JAXDEBIAS_DATA"
  variables=$variables$'\n'JAXDEBIAS_DATA=$JAXDEBIAS_DATA
fi

mapfile -t passed_on < <(printf '%s\n' "$variables" | grep . || true)
env -i HOME=/root LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  JAXDEBIAS_CI_WORK="$inside" "${passed_on[@]}" chroot "$tree" bash "$inside/copy/.ci/stages/fast.sh"
rm -rf "$tree$inside"
