#!/usr/bin/env bash
# Sets hwdiff up and runs it.
#   ./run_all.sh [options]   set up; then run the notebooks in order, in small -> results/runs/
#       --profile paper      trains a network of the paper's size and measures it; requires IAM and a GPU
#       --profile paper-on-cpu  measures the bundled one without a GPU; requires IAM and many hours
#       --only 03, --from 04, --param NAME=VALUE, --out DIR; all are those of hwdiff reproduce --help
#   ./run_all.sh lab         set up; then open JupyterLab on the notebooks
#   ./run_all.sh test        set up; then run the tests; with --fast only those that take no minutes
# IAM=DIR   for the first: the folder with the IAM On-Line archives, instead of the built-in writers
# After the set-up nothing needs internet access, but for Inception's weights (--profile paper).
# An active environment in which this clone is installed, with its notebooks' packages, is used as it is;
# otherwise .venv is made here.
set -euo pipefail
here=$PWD
cd "$(dirname "$0")"
export PYTHONUNBUFFERED=1

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

find_python() {
  for python in "${PYTHON:-python3}" python3.13 python3.12 python3.11 python3.14; do
    "$python" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$python"; return; }
  done
  fail "Python 3.11 or later is needed; install one, or name it with PYTHON=..."
}

has_this_clone='import importlib.util, os, sys; found = importlib.util.find_spec("hwdiff"); sys.exit(not (found and os.path.samefile(os.path.dirname(found.origin), sys.argv[1] + "/hwdiff")))'
# An environment will do if this clone is installed in it, with all that the notebooks need, and for `test` the tests.
will_do='import sys, jupyterlab, papermill, ipywidgets; sys.argv[2:] == ["test"] and (__import__("pytest"), __import__("xdist")); '$has_this_clone

# As hwdiff/utils/memory.py.
keep_freed_memory() {
  export MALLOC_MMAP_THRESHOLD_=${MALLOC_MMAP_THRESHOLD_:-33554432}
  export MALLOC_TRIM_THRESHOLD_=${MALLOC_TRIM_THRESHOLD_:-268435456} MALLOC_TOP_PAD_=${MALLOC_TOP_PAD_:-16777216}
}

set_up() {
  if [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && (cd / && python -c "$will_do" "$OLDPWD" "$@") 2>/dev/null; then
    say "using the active environment ${VIRTUAL_ENV:-$CONDA_PREFIX}"
    return
  fi
  local stamp wanted
  stamp=.venv/.installed
  if [ -e $stamp ] && ! (cd / && "$OLDPWD/.venv/bin/python" -c "$has_this_clone" "$OLDPWD") 2>/dev/null; then
    say "making .venv anew: it is broken, or of another clone"
    rm -rf .venv
  fi
  wanted=$(cat requirements.txt pyproject.toml | cksum)
  if [ "$(cat $stamp 2>/dev/null)" != "$wanted" ]; then
    say "setting up .venv with the versions of requirements.txt (about 6 GB, most of it PyTorch)"
    if [ ! -x .venv/bin/python ]; then
      python=$(find_python) || exit 1
      "$python" -m venv .venv || fail "the environment .venv could not be made"
    fi
    .venv/bin/python -m pip --version > /dev/null 2>&1 || .venv/bin/python -m ensurepip > /dev/null  # environments that uv makes have no pip
    .venv/bin/python -m pip install --quiet --disable-pip-version-check uv || fail "uv could not be installed from PyPI; is there a network?"
    .venv/bin/uv pip install --python .venv/bin/python --compile-bytecode --requirement requirements.txt --editable . ||
      fail "the packages could not be installed; see above"
    echo "$wanted" > $stamp
  else
    say "using .venv, which is up to date"
  fi
  export VIRTUAL_ENV=$PWD/.venv PATH=$PWD/.venv/bin:$PATH
}

case "${1:-}" in
  # Kernels load torch before hwdiff can say what hwdiff/cli says of threads and memory.
  lab) set_up; export GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-3000}; keep_freed_memory; exec jupyter lab notebooks "${@:2}" ;;
  test)
    set_up test
    say "running the tests"
    options=()
    if [ "${2:-}" = --fast ]; then options=(-m "not slow"); set -- test "${@:3}"; fi
    keep_freed_memory
    # Processes of one thread each: threads of several would wait for one another. The third works while one waits.
    OMP_NUM_THREADS=1 exec python -m pytest -n 3 --dist loadfile --no-loadscope-reorder ${options[@]+"${options[@]}"} "${@:2}" ;;
  -h | --help) sed -n '2,12s/^# \{0,1\}//p' "${0##*/}" ;;
  "" | -*) set_up; cd "$here"; exec hwdiff reproduce ${IAM:+--param "source=$IAM"} "$@" ;;
  *) fail "no such command as '$1'; see ./run_all.sh --help" ;;
esac
