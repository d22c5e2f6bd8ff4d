#!/usr/bin/env bash
# Sets hwdiff up and runs it.
#   ./run_all.sh          set up; then prepare the built-in writers, train the smoke preset for a minute or two, write samples -> runs/smoke/
#   ./run_all.sh test     set up; then run the tests
# IAM=DIR   the folder with the IAM On-Line archives, to train on them instead of the built-in writers -> runs/smoke-iam/
# After the set-up nothing needs a network.
# An active environment in which hwdiff is installed is used as it is; otherwise .venv is made here.
set -euo pipefail
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

set_up() {
  if [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && (cd / && python -c 'import hwdiff') 2>/dev/null; then
    say "using the active environment ${VIRTUAL_ENV:-$CONDA_PREFIX}"
    return
  fi
  local stamp wanted
  stamp=.venv/.installed
  wanted=$(cat requirements.txt pyproject.toml | cksum)
  if [ "$(cat $stamp 2>/dev/null)" != "$wanted" ]; then
    say "setting up .venv with the versions of requirements.txt (about 6 GB, most of it PyTorch)"
    [ -x .venv/bin/python ] || "$(find_python)" -m venv .venv || fail "the environment .venv could not be made"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check uv || fail "uv could not be installed from PyPI; is there a network?"
    .venv/bin/uv pip install --python .venv/bin/python --compile-bytecode --requirement requirements.txt --editable . ||
      fail "the packages could not be installed; see above"
    echo "$wanted" > $stamp
  else
    say "using .venv, which is up to date"
  fi
  export VIRTUAL_ENV=$PWD/.venv PATH=$PWD/.venv/bin:$PATH
}

main_job() {
  local data=runs/writers.npz out=runs/smoke source=()
  if [ -n "${IAM:-}" ]; then data=runs/iam.npz out=runs/smoke-iam source=(--source "$IAM"); fi

  say "1/3 preparing ${IAM:-the built-in writers} -> $data"
  hwdiff prepare ${source[@]+"${source[@]}"} --out $data
  say "2/3 training the preset smoke -> $out"
  hwdiff train --data $data --out $out --preset smoke --resume
  say "3/3 writing -> $out/samples (after a hundred steps the ink is scribble: training has only begun)"
  hwdiff write "the quick brown fox jumps" --model $out/model.safetensors -o $out/samples/fox.svg
  hwdiff write "Samples from a diffusion model" --model $out/model.safetensors --sampler ddim --steps 20 -o $out/samples/samples.png
  say "done: look at $out/samples"
}

case "${1:-}" in
  "") set_up; main_job ;;
  test) set_up; say "running the tests"; python -m pytest "${@:2}" ;;
  -h | --help) sed -n '2,7s/^# \{0,1\}//p' "$0" ;;
  *) fail "no such command as '$1'; see ./run_all.sh --help" ;;
esac
