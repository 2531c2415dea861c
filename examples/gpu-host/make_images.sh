#!/usr/bin/env bash
# Make the base images that matrix.gpu-host.toml names, from a GPU host's own system, CUDA toolkit and torch.
#
#     DOCKER_HOST=unix:///... make_images.sh WHEELHOUSE
#
# The engine needs no network and the host no docker command: everything goes through the engine's API by curl. The host
# brings /usr/local/cuda-X.Y and a python3 with torch; WHEELHOUSE holds flash-attn 2.8.3 for it, the variants that
# build_variants.py makes, and einops. What is made: gpu-host:torch, and on it one image a flash-attn wheel.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
wheelhouse=$(cd "${1:?usage: make_images.sh WHEELHOUSE}" && pwd)
socket=${DOCKER_HOST#unix://}
venv=/opt/venv
site=$(python3 -c 'import sys; print(f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages")')

[ -x $venv/bin/python ] || python3 "$here/torch_environment.py" $venv

# The host's system without its own /usr/local and /opt, the CUDA toolkit without its static libraries, and the environment.
# -f keeps curl from taking an error of the engine for an image.
cuda=$(readlink -f /usr/local/cuda)
tar -C / --exclude=usr/share/doc --exclude=usr/lib/modules --exclude='*.a' --exclude='*/nsight*' --exclude=__pycache__ -cf - \
    $(cd / && ls -d bin sbin lib lib64 etc usr/bin usr/sbin usr/lib usr/lib64 usr/share usr/include usr/libexec 2>/dev/null) \
    usr/local/cuda "${cuda#/}" "${venv#/}" 2>/dev/null |
  curl -fsS --unix-socket "$socket" -X POST -H 'Content-Type: application/x-tar' -T - --get \
    --data-urlencode "fromSrc=-" --data-urlencode "repo=gpu-host" --data-urlencode "tag=torch" \
    --data-urlencode "changes=ENV PATH=$venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
    http://engine/images/create | tail -1

# One image a wheel: unpacked as it is, so that the wheel's own RECORD tells whether a file was changed.
add() { # TAG WHEEL...
  local context; context=$(mktemp -d)
  mkdir "$context/site"
  local wheel; for wheel in "${@:2}"; do python3 -m zipfile -e "$wheel" "$context/site"; done
  chmod -R a+rX "$context/site"
  printf 'FROM gpu-host:torch\nCOPY site %s/%s\n' $venv "$site" >"$context/Dockerfile"
  tar -C "$context" --format=gnu -cf - . |
    curl -fsS --unix-socket "$socket" -X POST -H 'Content-Type: application/x-tar' -T - \
      "http://engine/build?t=gpu-host:$1" | tail -2 | tee /dev/stderr | grep -q 'Successfully tagged'
  rm -rf "$context"
}
einops=("$wheelhouse"/einops-*.whl)
add base "$wheelhouse"/flash_attn-2.8.3-cp3*.whl "${einops[@]}"
add flash-attn-sm80-only "$wheelhouse"/flash_attn-2.8.3+sm80.only-*.whl "${einops[@]}"
add flash-attn-scaled "$wheelhouse"/flash_attn-2.8.3+scaled-*.whl "${einops[@]}"
