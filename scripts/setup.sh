#!/bin/sh
# Installs what Bregman needs: Debian packages for the C side, a Python virtual environment for scripts/.
#
#   scripts/setup.sh            both; only what is missing is installed
#   scripts/setup.sh --check    install nothing; say what is missing, exit 1 if anything is
#   scripts/setup.sh --python   only the Python environment: the libraries are from modules or Spack
#
# BREGMAN_VENV  where the virtual environment is made (build/venv, of what is installed too)
# PYTHON        the interpreter it is made with (python3; 3.11 or newer)
# Without root or sudo the script prints what is missing and stops. On a system that is not Debian
# the packages are the user's affair: only the Python part is done.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
venv=${BREGMAN_VENV:-$root/build/venv}
python=${PYTHON:-python3}
requirements=$root/scripts/requirements.txt
stamp=$venv/bregman-requirements.txt
check_only=no
python_only=no

# libopenblas-openmp-dev, not -pthread-dev: called from inside an OpenMP region it stays serial,
# where the pthread flavour would start a second set of threads. The Makefile links it, whichever the
# machine's alternatives select.
packages="openmpi-bin libopenmpi-dev libhdf5-dev hdf5-tools libopenblas-openmp-dev liblapacke-dev
libscalapack-openmpi-dev libjansson-dev libxxhash-dev libcmocka-dev pkg-config gcc make python3 python3-venv zstd"

say() { echo "setup: $*" >&2; }
die() { say "$*"; exit 1; }

case "${1:-}" in
  '') ;;
  --check) check_only=yes ;;
  --python) python_only=yes ;;
  -h|--help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0"; exit 0 ;;
  *) say "unknown argument \"$1\"; usage: setup.sh [--check | --python]"; exit 2 ;;
esac

# run COMMAND as root: directly, or through sudo where that needs no password
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

can_be_root() {
  [ "$(id -u)" = 0 ] || { command -v sudo && sudo -n true; } >/dev/null 2>&1
}

missing_packages() {
  # one dpkg-query for all: it prints a line for each package it knows, and nothing for the others
  # shellcheck disable=SC2086
  have=" $(dpkg-query -W -f '${db:Status-Abbrev}${Package}\n' $packages 2>/dev/null |
           sed -n 's/^ii *//p' | tr '\n' ' ')"
  for package in $packages; do
    case "$have" in *" $package "*) ;; *) printf '%s ' "$package" ;; esac
  done
}

setup_debian() {
  missing=$(missing_packages)
  if [ -n "$missing" ]; then
    if [ $check_only = yes ] || ! can_be_root; then
      die "missing Debian packages: ${missing% }; install them as root: apt-get install ${missing% }"
    fi
    say "installing ${missing% }"
    as_root apt-get update -qq || die "apt-get update failed"
    # shellcheck disable=SC2086
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >&2 ||
      die "apt-get install ${missing% } failed"
  fi
}

venv_is_current() {
  [ -x "$venv/bin/python" ] && cmp -s "$requirements" "$stamp" && "$venv/bin/python" -c '' 2>/dev/null
}

setup_venv() {
  if venv_is_current; then return; fi
  if [ $check_only = yes ]; then die "\"$venv\" is missing or out of date; run scripts/setup.sh"; fi
  command -v "$python" >/dev/null || die "no \"$python\" on PATH; install Python 3.11 or newer, or set PYTHON"
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    die "\"$python\" is $("$python" -V); Python 3.11 or newer is needed, set PYTHON"
  "$python" -c 'import venv, ensurepip' 2>/dev/null ||
    die "\"$python\" has no venv or ensurepip module; on Debian: apt-get install python3-venv"
  [ -e "$venv" ] || rm -f "$venv"                  # an installed link to the environment of a build that is gone
  mkdir -p "$(dirname "$venv")" 2>/dev/null && [ -w "$(dirname "$venv")" ] ||
    die "cannot write to \"$(dirname "$venv")\"; set BREGMAN_VENV to where the environment may be"
  if command -v flock >/dev/null; then             # two runs at once: the second waits, then has nothing to do
    exec 9>"$venv.lock"
    flock 9
    if venv_is_current; then return; fi
  fi
  say "making the Python environment \"$venv\""
  "$python" -m venv --clear "$venv" || die "cannot make the virtual environment \"$venv\""
  "$venv/bin/python" -m pip install -q --disable-pip-version-check -r "$requirements" >&2 ||
    die "pip could not install the packages in \"$requirements\""
  cp "$requirements" "$stamp"
}

if [ $python_only = yes ]; then
  :
elif command -v dpkg-query >/dev/null && command -v apt-get >/dev/null; then
  setup_debian
else
  say "not a Debian system: MPI, HDF5, BLAS, LAPACKE, jansson and xxhash are expected from the environment"
fi
setup_venv
