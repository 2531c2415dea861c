#!/usr/bin/env bash
# Pack what a GPU host without network needs to run assay, as small as it goes: three archives below 45 MB.
#
#     pack.sh OUT ENGINE WHEELS WHEELHOUSE
#
# ENGINE      folder with a Docker engine: bin/ (dockerd, containerd, containerd-shim-runc-v2, runc) and lib/ (what they
#             link with, but for the C library)
# WHEELS      folder with the wheels of what assay imports, for the host's Python; they become one folder for PYTHONPATH
# WHEELHOUSE  folder with flash-attn's wheels and einops. Their files are kept to the byte, but not compressed inside
#             the wheels: packed together they take a third. The wheels' own hashes are therefore others.
#
# tests/gpu/host_run.sh unpacks OUT on the host. Takes some minutes, nearly all of them for the engine, whose archive is
# kept when it is newer than what it is made of.
set -euo pipefail
out=${1:?usage: pack.sh OUT ENGINE WHEELS WHEELHOUSE}
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

pack() { # FOLDER NAME: machine code shrinks a fifth further by xz's x86 filter
  tar -C "$1" --owner=0 --group=0 --sort=name --mtime=@0 -cf - . |
    xz --x86 --lzma2=preset=9,dict=192MiB,nice=273 >"$out/$2.tar.xz"
  du -b "$out/$2.tar.xz"
}

[ "$out/engine.tar.xz" -nt "$2/bin" ] || pack "$2" engine

mkdir "$work/site" "$work/wheelhouse"
for wheel in "$3"/*.whl; do python3 -m zipfile -e "$wheel" "$work/site"; done
pack "$work/site" site

python3 - "$work/wheelhouse" "$4"/*.whl <<'PYTHON'
import sys, zipfile
from pathlib import Path

for wheel in map(Path, sys.argv[2:]):
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(Path(sys.argv[1]) / wheel.name, "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            entry.compress_type = zipfile.ZIP_STORED
            new.writestr(entry, data)
PYTHON
pack "$work/wheelhouse" wheelhouse
