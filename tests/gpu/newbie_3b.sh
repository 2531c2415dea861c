#!/usr/bin/env bash
# Measure the full-size model with random weights on this machine's GPU: seconds per picture and peak memory at 1024 x 1024,
# with flash-attn and with SDPA, inside a certified image; and the sample model in the same way.
#
#     IMAGE=assay/cu121:latest OUT=build/newbie-3b tests/gpu/newbie_3b.sh
#     RUNNER="python3 docker/runtime/test.py" OUT=... tests/gpu/newbie_3b.sh     without a container, on the host's own torch
#
# IMAGE: an image that the engine has. GPU: options that give a container the GPU, `--gpus all` by default. RUNNER: what to
# run in place of the container. PICTURES: drawn one after another for each line, the first one warms up; 3 by default.
# OUT gets one PNG and one JSON report per line, and summary.json. Takes about 5 minutes and 20 GB of host memory.
set -euo pipefail
out=$(realpath -m "${OUT:-build/newbie-3b}")
pictures=${PICTURES:-3}
mkdir -p "$out"

draw() { # NAME OPTION...
  local name=$1
  shift
  echo "== $name: $*"
  if [ -n "${RUNNER:-}" ]; then
    $RUNNER "$@" --pictures "$pictures" --output "$out/$name.png" --report "$out/$name.json"
  else
    # shellcheck disable=SC2086 # GPU holds several options
    docker run --rm --network none --read-only --tmpfs /tmp ${GPU:---gpus all} -v "$out:/out" -e HOME=/tmp "$IMAGE" \
      python test.py "$@" --pictures "$pictures" --output "/out/$name.png" --report "/out/$name.json"
  fi
}

for attention in flash sdpa; do
  # Text encoders resident, then moved off the GPU in between: the 16 GiB of the default budget.
  draw "3b-$attention" --random-weights newbie-3b --gpu-profile H100 --attention "$attention"
  draw "3b-$attention-16gib" --random-weights newbie-3b --gpu-profile H100 --memory-budget 16 --attention "$attention"
  draw "sample-$attention" --attention "$attention"
done
draw "3b-flash-unguided" --random-weights newbie-3b --gpu-profile H100 --attention flash --guidance 1

python3 - "$out" <<'PYTHON'
import json
import pathlib
import sys

folder = pathlib.Path(sys.argv[1])
rows = []
for path in sorted(folder.glob("*.json")):
    if path.name == "summary.json":
        continue
    facts = json.loads(path.read_text())
    best = min(facts["seconds"][1:] or facts["seconds"])
    rows.append({"run": path.stem, "seconds": best, "peak_gib": round(facts["peak_bytes"] / 2**30, 2), **{
        name: facts[name] for name in ("device", "dtype", "attention", "attention_calls", "size", "steps", "guidance")}})
    print(f"{path.stem:20} {best:8.2f} s  {rows[-1]['peak_gib']:6.2f} GiB  {facts['attention_calls']}")
(folder / "summary.json").write_text(json.dumps(rows, indent=2) + "\n")
PYTHON
