#!/usr/bin/env bash
# Run the GPU level on a host that has a GPU, CUDA and torch, but no network and no Docker engine.
#
#     BUNDLE=DIR WHEELHOUSE=DIR OUT=DIR tests/gpu/host_run.sh STEP...
#
# Each step can be a call of its own, on the same machine:
#
#   facts   print what the host is: GPU, driver, toolkit, torch
#   checks  ask every GPU check on the host's own torch, sound and damaged (tests/gpu/host_checks.py)
#   engine  unpack and start the engine of BUNDLE/engine.tar.xz (bin/ and lib/ of a Docker engine)
#   images  make the images that matrix.gpu-host.toml names (examples/gpu-host/make_images.sh)
#   matrix  run matrix.gpu-host.toml at level gpu, with the Python packages of BUNDLE/wheels
#   load    give the engine an image that was saved elsewhere: BUNDLE/image.part*, in the order of their names
#   check   judge that image: IMAGE=TAG ROW=ID MATRIX=FILE
#   stop    stop the engine
#
# WHEELHOUSE: flash-attn 2.8.3 for the host's Python, the wheels of examples/gpu-host/build_variants.py, and einops.
# OUT gets host-checks.json, report.json, report.html and run.tar.gz with everything else.
set -euo pipefail
cd "$(dirname "$0")/../.."
engine=${ENGINE_DIR:-/tmp/assay-engine}
site=/tmp/assay-site
export DOCKER_HOST=unix://$engine/docker.sock
out=${OUT:-build}
mkdir -p "$out"

facts() {
  nvidia-smi --query-gpu=name,uuid,driver_version,memory.total --format=csv,noheader
  ls -ld /usr/local/cuda /usr/local/cuda-* /usr/local/nvidia || true
  cat /usr/local/cuda/version.json 2>/dev/null || echo "the toolkit has no version.json"
  python3 -c 'import sys, torch; print(sys.version, sys.base_prefix, torch.__version__, torch.version.cuda)'
  nproc; df -h / /tmp; free -g
}

checks() { python3 tests/gpu/host_checks.py --wheelhouse "$WHEELHOUSE" --out "$out"; }

start_engine() {
  if [ ! -S "$engine/docker.sock" ]; then
    mkdir -p "$engine"
    tar -C "$engine" -xf "$BUNDLE/engine.tar.xz"
    # The engine alone gets the bundled libraries: containers and Python do not.
    LD_LIBRARY_PATH=$engine/lib PATH=$engine/bin:$PATH setsid dockerd --data-root "$engine/data" \
      --exec-root "$engine/exec" --host "$DOCKER_HOST" --pidfile "$engine/pid" --iptables=false --ip6tables=false \
      --bridge=none >"$engine/log" 2>&1 </dev/null &
    for _ in $(seq 120); do grep -q 'API listen' "$engine/log" 2>/dev/null && break; sleep 0.5; done
  fi
  curl -fsS --unix-socket "$engine/docker.sock" http://engine/version || { tail -20 "$engine/log"; return 1; }
  echo
}

images() { time examples/gpu-host/make_images.sh "$WHEELHOUSE"; }

install_host_package() {
  [ -d "$site" ] || python3 -m pip install -q --no-index --no-deps --no-compile --target "$site" "$BUNDLE"/wheels/*.whl
  export PYTHONPATH=$site:$PWD/scripts ASSAY_STATE=${ASSAY_STATE:-/tmp/assay-state}
}

keep() { # FOLDER: what comes back
  cp "$1"/report.json "$1"/report.html "$out"/ 2>/dev/null || true
  tar -C "$1" -czf "$out/run.tar.gz" .
}

matrix() {
  install_host_package
  local status=0
  time python3 -m assay matrix --matrix matrix.gpu-host.toml --level gpu --out /tmp/assay-out || status=$?
  python3 -m assay claims --out /tmp/assay-out --wheelhouse "$WHEELHOUSE" || true
  keep /tmp/assay-out
  return $status
}

load() {
  time cat "$BUNDLE"/image.part* | curl -fsS --unix-socket "$engine/docker.sock" -X POST \
    -H 'Content-Type: application/x-tar' -T - http://engine/images/load
}

check() {
  install_host_package
  local status=0
  time python3 -m assay check "$IMAGE" --row "$ROW" --matrix "${MATRIX:-matrix.toml}" --level gpu \
    --out "/tmp/assay-check/$ROW" || status=$?
  keep "/tmp/assay-check/$ROW"
  return $status
}

stop() { kill "$(cat "$engine/pid")"; }

for step in "${@:?usage: host_run.sh STEP... (see the top of this file)}"; do
  case $step in
    facts | checks | images | matrix | load | check | stop) echo "== $step"; "$step" ;;
    engine) echo "== engine"; start_engine ;;
    *) echo "host_run.sh: unknown step '$step'" >&2; exit 2 ;;
  esac
done
