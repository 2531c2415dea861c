#!/usr/bin/env bash
# Run the GPU level on a host that has a GPU, CUDA and torch, but no network and no Docker engine.
#
#     BUNDLE=DIR WHEELHOUSE=DIR OUT=DIR tests/gpu/host_run.sh STEP...
#
# Each step can be a call of its own, on the same machine:
#
#   facts   print what the host is: GPU, driver, toolkit, torch
#   checks  ask every GPU check on the host's own torch, sound and damaged (tests/gpu/host_checks.py)
#   engine  unpack and start the engine of BUNDLE/engine.tar.xz, and tell it of the GPUs (cdi_specification.py)
#   images  make the images that matrix.gpu-host.toml names (examples/gpu-host/make_images.sh)
#   matrix  run matrix.gpu-host.toml (or its one row ROW) at level gpu, with the Python packages of BUNDLE/site.tar.xz
#   load    give the engine images that were saved elsewhere: BUNDLE/image.part000 and so on, which are deleted as they
#           are read (receive_image.sh, which does it while the parts arrive, too)
#   check   judge images as rows: CHECK="TAG=ROW ..." MATRIX=FILE
#   second  the first row of matrix.gpu-host.toml once more, on the host's second GPU
#   access  containers get at each GPU, in each way there is (test_engine_gpu_access.py)
#   draw    time pictures of IMAGE (scripts/benchmark_drawing.py, with the options DRAW)
#   measure the sample model's grades and bf16 against fp32 in IMAGE (scripts/measure_sample_model.py)
#   stop    stop the engine
#
# GPU: forced on `matrix` and `check`, as --gpu; found out where it is not set.
# A step that fails keeps no later one from running; the exit code is the first failure's.
# What a step prints is in OUT/host-run.log in full; here come its last lines only.
#
# BUNDLE: what examples/gpu-host/pack.sh packs. WHEELHOUSE, if not in BUNDLE: flash-attn 2.8.3 for the host's Python,
# the wheels of examples/gpu-host/build_variants.py, and einops.
# OUT gets host-run.log, host-checks.json, and of each run its report.json and an archive with everything. `assay claims`
# over the report needs the package index: run it where there is one, on what came back.
# shellcheck disable=SC2329  # the steps are called by their names
set -euo pipefail
cd "$(dirname "$0")/../.."
engine=${ENGINE_DIR:-/tmp/assay-engine}
site=/tmp/assay-site
export DOCKER_HOST=unix://$engine/docker.sock
out=${OUT:-build}
mkdir -p "$out"

unpack() { # NAME FOLDER: BUNDLE/NAME.tar.xz, once
  [ -d "$2" ] && return
  mkdir -p "$2.new"
  tar -C "$2.new" -xf "$BUNDLE/$1.tar.xz"
  mv "$2.new" "$2"
}

find_wheels() {
  [ -n "${WHEELHOUSE:-}" ] || { unpack wheelhouse /tmp/assay-wheelhouse; WHEELHOUSE=/tmp/assay-wheelhouse; }
}

facts() {
  nvidia-smi --query-gpu=name,uuid,driver_version,memory.total --format=csv,noheader
  ls -ld /usr/local/cuda /usr/local/cuda-* /usr/local/nvidia || true
  (cd /usr/local/cuda && ls -d lib64/lib{cudart,cublas,nvrtc,nvJitLink}.so.* nvvm/lib64/libnvvm.so* 2>/dev/null) || true
  ls /usr/local/cuda/version.json 2>/dev/null || echo "the toolkit has no version.json"
  /usr/local/cuda/bin/nvcc --version | tail -2 || true
  python3 -c 'import sys, torch; print(sys.version, sys.base_prefix, torch.__version__, torch.version.cuda)'
  nproc; df -h / /tmp | tail -2; free -g | head -2
}

checks() {
  find_wheels
  python3 tests/gpu/host_checks.py --wheelhouse "$WHEELHOUSE" --out "$out"
}

start_engine() {
  if [ ! -S "$engine/docker.sock" ]; then
    unpack engine "$engine"
    # Engines from 25 on know CDI where it is switched on; older ones would not start with the option.
    mkdir -p "$engine/cdi"
    use_host_package
    python3 tests/gpu/cdi_specification.py >"$engine/cdi/nvidia.json"
    local options=()
    if LD_LIBRARY_PATH=$engine/lib "$engine/bin/dockerd" --help | grep -q -e --cdi-spec-dir; then
      printf '{"features": {"cdi": true}}\n' >"$engine/daemon.json"
      options=(--config-file "$engine/daemon.json" --cdi-spec-dir "$engine/cdi")
    fi
    # The engine alone gets the bundled libraries: containers and Python do not.
    LD_LIBRARY_PATH=$engine/lib PATH=$engine/bin:$PATH setsid dockerd --data-root "$engine/data" \
      --exec-root "$engine/exec" --host "$DOCKER_HOST" --pidfile "$engine/pid" --iptables=false --ip6tables=false \
      --bridge=none --userland-proxy=false "${options[@]}" >"$engine/log" 2>&1 </dev/null &
    for _ in $(seq 120); do grep -q 'API listen' "$engine/log" 2>/dev/null && break; sleep 0.5; done
  fi
  curl -fsS --unix-socket "$engine/docker.sock" http://engine/version | python3 -c '
import json, sys
print("Docker Engine", json.load(sys.stdin)["Version"])' || { tail -20 "$engine/log"; return 1; }
}

images() {
  find_wheels
  examples/gpu-host/make_images.sh "$WHEELHOUSE"
}

use_host_package() {
  unpack site "$site"
  export PYTHONPATH=$site:$PWD/scripts ASSAY_STATE=${ASSAY_STATE:-/tmp/assay-state}
}

keep() { # FOLDER: what comes back
  local name=${1##*/}
  cp "$1"/report.json "$out/$name.json" 2>/dev/null || true
  tar -C "$1" -czf "$out/$name.tar.gz" .
}

matrix() {
  use_host_package
  local status=0
  python3 -m assay matrix --matrix matrix.gpu-host.toml --level gpu --jobs "${JOBS:-4}" \
    ${GPU:+--gpu "$GPU"} ${ROW:+--row "$ROW"} --out "/tmp/assay-matrix${ROW:+-$ROW}" || status=$?
  keep "/tmp/assay-matrix${ROW:+-$ROW}"
  return "$status"
}

load() {
  local parts=("$BUNDLE"/image.part*)
  tests/gpu/receive_image.sh "$BUNDLE" ${#parts[@]} && cat "$BUNDLE/answer"
}

check() {
  use_host_package
  local status=0 pair
  for pair in ${CHECK:?CHECK="TAG=ROW ..."}; do
    local one=0
    python3 -m assay check "${pair%=*}" --row "${pair#*=}" --matrix "${MATRIX:-matrix.toml}" --level gpu \
      ${GPU:+--gpu "$GPU"} --out "/tmp/assay-check/${pair#*=}" || one=$?
    echo "${pair#*=}: exit code $one"
    [ "$one" -le 1 ] || status=$one # 1: rejected, which may be what is expected; the report says
  done
  keep /tmp/assay-check
  return "$status"
}

second() {
  use_host_package
  local status=0
  python3 -m assay matrix --matrix matrix.gpu-host.toml --row cu130 --level gpu --gpu 1 --out /tmp/assay-second ||
    status=$?
  keep /tmp/assay-second
  return "$status"
}

access() {
  use_host_package
  python3 -m pytest -q -p no:cacheprovider tests/gpu/test_engine_gpu_access.py
}

draw() {
  use_host_package
  # shellcheck disable=SC2086 # DRAW holds several options
  python3 scripts/benchmark_drawing.py --image "$IMAGE" --out /tmp/assay-draw ${DRAW:-}
  keep /tmp/assay-draw
}

measure() {
  use_host_package
  python3 - "$IMAGE" "$out" <<'PYTHON'
import sys
from pathlib import Path

from assay.engine import Engine, Mount

image, out = sys.argv[1:]
engine = Engine.connect(start=False)
mounts = [Mount(source=Path.cwd(), target="/checkout"), Mount(source=Path(out), target="/out", read_only=False)]
command = ["python", "/checkout/scripts/measure_sample_model.py", "--device", "cuda", "--batch", "20",
           "--out", "/out/sample-model.json"]
gpu = engine.gpu_access()
done = engine.run(image, command, mounts=mounts, gpu=gpu, memory_bytes=32 << 30, timeout=400, on_line=print)
sys.exit(done.exit_code)
PYTHON
}

stop() { kill "$(cat "$engine/pid")"; }

run() { # STEP FUNCTION: all it prints into the log, the end of it to stdout. A subshell, so that it stops itself alone
  local start=$SECONDS status=0 text; text=$(mktemp)
  set +e
  (set -e; "$2") >"$text" 2>&1
  status=$?
  set -e
  { echo "== $1"; cat "$text"; } >>"$out/host-run.log"
  echo "== $1: exit code $status after $((SECONDS - start)) s"
  tail -n "${LINES_A_STEP:-25}" "$text" | cut -c1-240 | tail -c 1500
  rm -f "$text"
  [ $first -ne 0 ] || first=$status
}

first=0
for step in "${@:?usage: host_run.sh STEP... (see the top of this file)}"; do
  case $step in
    facts | checks | images | matrix | load | check | second | access | draw | measure | stop) run "$step" "$step" ;;
    engine) run engine start_engine ;;
    *) echo "host_run.sh: unknown step '$step'" >&2; exit 2 ;;
  esac
done
exit $first
