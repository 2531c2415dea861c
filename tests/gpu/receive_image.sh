#!/usr/bin/env bash
# Give the engine an image that arrives in parts, while later parts are still under way.
#
#     receive_image.sh FOLDER COUNT [DECOMPRESS...]
#
# On the machine that has the image, for COUNT parts in all:
#
#     docker save IMAGE... | zstd | split -d -a 3 -b 40M - image.part
#
# Move each part into FOLDER when it is complete, in any order; each is deleted once it is read. DECOMPRESS is a command,
# such as `zstd -dc`; without one the engine gets the bytes as they are (it knows gzip). Waits as long as it takes, so
# start it in the background. The engine's last word goes to FOLDER/answer, and the exit code to FOLDER/exit-code.
set -uo pipefail
folder=${1:?usage: receive_image.sh FOLDER COUNT [DECOMPRESS...]}
count=${2:?usage: receive_image.sh FOLDER COUNT [DECOMPRESS...]}
decompress=("${@:3}")
[ ${#decompress[@]} -gt 0 ] || decompress=(cat)
socket=${DOCKER_HOST:?DOCKER_HOST must name the engine\'s socket: unix:///...}
mkdir -p "$folder"

parts() {
  local number part
  for ((number = 0; number < count; number++)); do
    part=$(printf '%s/image.part%03d' "$folder" "$number")
    until [ -e "$part" ]; do sleep 0.2; done
    cat "$part"
    rm "$part"
  done
}

parts | "${decompress[@]}" | curl -sS --fail-with-body --unix-socket "${socket#unix://}" -X POST \
  -H 'Content-Type: application/x-tar' -T - http://engine/images/load 2>&1 | tail -c 1000 >"$folder/answer"
status=("${PIPESTATUS[@]}")
code=0
for one in "${status[@]}"; do [ "$one" -eq 0 ] || code=$one; done
# The engine reports trouble with status 200, too: the good end names what was loaded.
grep -q 'Loaded image' "$folder/answer" || code=${code/#0/1}
echo "$code" >"$folder/exit-code"
exit "$code"
