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

post() { # PATH: send stdin to the engine, show its answer and pass it on
  curl -fsS --unix-socket "$socket" -X POST -H 'Content-Type: application/x-tar' -T - "http://engine/$1" | tee /dev/stderr
}

[ -x $venv/bin/python ] || python3 "$here/torch_environment.py" $venv

# The host's system without its own /usr/local and /opt, the CUDA toolkit without its static libraries, and the environment.
cuda=$(readlink -f /usr/local/cuda)
path=$venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
query=$(python3 -c 'import sys, urllib.parse as url
print(url.urlencode({"fromSrc": "-", "repo": "gpu-host", "tag": "torch", "changes": f"ENV PATH={sys.argv[1]}"}))' "$path")
python=$(python3 -c 'import sys; print(sys.base_prefix)')
parts=(bin sbin lib lib64 etc usr/bin usr/sbin usr/lib usr/lib64 usr/share usr/include usr/libexec
       usr/local/cuda "${cuda#/}" "${venv#/}")
[ "$python" = /usr ] || parts+=("${python#/}")
mapfile -t parts < <(cd / && ls -d "${parts[@]}" 2>/dev/null || true)
# Exit code 1 of tar: a file changed while it was read, as logs do. The engine reports its own trouble with status 200 too.
{ tar -C / --exclude=usr/share/doc --exclude=usr/lib/modules --exclude='*.a' --exclude='*/nsight*' \
    --exclude=__pycache__ -cf - "${parts[@]}" 2>/dev/null || [ $? -eq 1 ]; } |
  post "images/create?$query" | grep '"status":"sha256:' >/dev/null

# One image a wheel: unpacked as it is, so that the wheel's own RECORD tells whether a file was changed.
add() { # TAG WHEEL...
  local context; context=$(mktemp -d)
  mkdir "$context/site"
  local wheel; for wheel in "${@:2}"; do python3 -m zipfile -e "$wheel" "$context/site"; done
  chmod -R a+rX "$context/site"
  printf 'FROM gpu-host:torch\nCOPY site %s/%s\n' $venv "$site" >"$context/Dockerfile"
  tar -C "$context" --format=gnu -cf - . | post "build?t=gpu-host:$1" | grep 'Successfully tagged' >/dev/null
  rm -rf "$context"
}
einops=("$wheelhouse"/einops-*.whl)
add base "$wheelhouse"/flash_attn-2.8.3-cp3*.whl "${einops[@]}"
add flash-attn-sm80-only "$wheelhouse"/flash_attn-2.8.3+sm80.only-*.whl "${einops[@]}"
add flash-attn-scaled "$wheelhouse"/flash_attn-2.8.3+scaled-*.whl "${einops[@]}"
