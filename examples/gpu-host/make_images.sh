#!/usr/bin/env bash
# Make the base images that matrix.gpu-host.toml names, from a GPU host's own system, CUDA toolkit and torch.
#
#     DOCKER_HOST=unix:///... make_images.sh WHEELHOUSE
#
# The engine needs no network and the host no docker command: everything goes through the engine's API by curl. The host
# brings /usr/local/cuda-X.Y and a python3 with torch; WHEELHOUSE holds flash-attn 2.8.3 for it, the variants that
# build_variants.py makes, and einops. What is made: gpu-host:torch, on it one image a flash-attn wheel, and
# gpu-host:stub-driver.
# Prints a line a step, with the seconds since the start; what the engine answers is shown only when it is an error.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
wheelhouse=$(cd "${1:?usage: make_images.sh WHEELHOUSE}" && pwd)
socket=${DOCKER_HOST#unix://}
venv=/opt/venv
site=$(python3 -c 'import sys; print(f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages")')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say() { printf '%4d s  %s\n' "$SECONDS" "$*"; }

post() { # PATH SIGN: send stdin to the engine. It reports its own trouble with status 200 too: SIGN is in a good answer
  if ! curl -sS --fail-with-body --unix-socket "$socket" -X POST -H 'Content-Type: application/x-tar' -T - \
    -o "$work/answer" "http://engine/$1" || ! grep -q "$2" "$work/answer"; then
    echo "make_images.sh: the engine did not do ${1%%\?*}; the end of its answer:" >&2
    tail -c 2000 "$work/answer" >&2
    return 1
  fi
}

say "the environment $venv from the host's torch"
[ -x $venv/bin/python ] || python3 "$here/torch_environment.py" $venv

# The host's system without its own /usr/local and /opt, the toolkit without its static libraries, and the environment.
say "gpu-host:torch"
cuda=$(readlink -f /usr/local/cuda)
path=$venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
query=$(python3 -c 'import sys, urllib.parse as url
print(url.urlencode({"fromSrc": "-", "repo": "gpu-host", "tag": "torch", "changes": f"ENV PATH={sys.argv[1]}"}))' "$path")
python=$(python3 -c 'import sys; print(sys.base_prefix)')
parts=(bin sbin lib lib64 etc usr/bin usr/sbin usr/lib usr/lib64 usr/share usr/include usr/libexec
       usr/local/cuda "${cuda#/}" "${venv#/}")
[ "$python" = /usr ] || parts+=("${python#/}")
mapfile -t parts < <(cd / && ls -d "${parts[@]}" 2>/dev/null || true)
# What the host's own settings may hold of passwords and private keys is no part of an image.
private=(pip.conf uv xdg/pip apt netrc environment 'ssh/*_key' ssl/private '*shadow*' docker krb5.keytab)
pack() { # tar's exit code 1: a file changed while it was read, as logs do
  local status=0
  tar -C / --exclude=usr/share/doc --exclude=usr/lib/modules --exclude='usr/local/*.a' --exclude='*/nsight*' \
    --exclude=__pycache__ "${private[@]/#/--exclude=etc/}" -cf - "${parts[@]}" 2>"$work/tar" || status=$?
  [ $status -le 1 ] || { tail -5 "$work/tar" >&2; return $status; }
}
pack | post "images/create?$query" '"status":"sha256:'

# One image a wheel: unpacked as it is, so that the wheel's own RECORD tells whether a file was changed.
add() { # TAG WHEEL...
  say "gpu-host:$1"
  local context; context=$(mktemp -d -p "$work")
  mkdir "$context/site"
  local wheel; for wheel in "${@:2}"; do python3 -m zipfile -e "$wheel" "$context/site"; done
  chmod -R a+rX "$context/site"
  printf 'FROM gpu-host:torch\nCOPY site %s/%s\n' $venv "$site" >"$context/Dockerfile"
  tar -C "$context" --format=gnu -cf - . | post "build?t=gpu-host:$1" 'Successfully tagged'
}
einops=("$wheelhouse"/einops-*.whl)
add base "$wheelhouse"/flash_attn-2.8.3-cp3*.whl "${einops[@]}"
add flash-attn-sm80-only "$wheelhouse"/flash_attn-2.8.3+sm80.only-*.whl "${einops[@]}"
add flash-attn-scaled "$wheelhouse"/flash_attn-2.8.3+scaled-*.whl "${einops[@]}"
add flash-attn-empty-backward "$wheelhouse"/flash_attn-2.8.3+empty.backward-*.whl "${einops[@]}"

# The stubs are for linking on a machine without a driver; here the loader is told of them.
say "gpu-host:stub-driver"
mkdir "$work/stub"
cat >"$work/stub/Dockerfile" <<'DOCKERFILE'
FROM gpu-host:base
RUN echo /usr/local/cuda/lib64/stubs > /etc/ld.so.conf.d/stubs.conf && ldconfig
DOCKERFILE
tar -C "$work/stub" --format=gnu -cf - . | post "build?t=gpu-host:stub-driver&networkmode=none" 'Successfully tagged'
say "done"
