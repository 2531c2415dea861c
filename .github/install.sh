#!/usr/bin/env bash
# Install nox and what its sessions need, and nothing that is not in .github/requirements/sessions.txt with its hash.
#
#     .github/install.sh SESSION...    then `nox -R -s SESSION` runs it, and installs nothing more
#
# The sessions themselves say what they need as people do, by name. So everything is fetched first, each file held to its
# hash, and what a session installs it then gets from that folder alone. `nox -s lock -- sessions.txt` writes the list
# again when pyproject.toml changes; with `--upgrade`, the newest of everything.
set -euo pipefail
: "${RUNNER_TEMP:?is the folder for what lasts as long as a job; GitHub sets it}" "${GITHUB_PATH:?GitHub sets it}"
[ $# -gt 0 ] || { echo "$0: name the sessions" >&2; exit 2; }
cd "$(dirname "$0")/.."

if ! python3 -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
  echo "::error::$(command -v python3 || echo 'no python3'): this runner needs Python 3.10 or newer with the module" \
    "venv: on Debian and Ubuntu, \`sudo apt-get install python3-venv\`"
  exit 1
fi

# An environment of its own: a runner that lasts may have a nox of another day, and its Python may be its system's.
python3 -m venv "$RUNNER_TEMP/nox"
export PATH="$RUNNER_TEMP/nox/bin:$PATH"
echo "$RUNNER_TEMP/nox/bin" >> "$GITHUB_PATH"

python -m pip download --quiet --no-deps --only-binary :all: --require-hashes \
  --dest "$RUNNER_TEMP/packages" --requirement .github/requirements/sessions.txt
# Only here: what a session runs later has this machine's own settings, which builds of images take over.
export PIP_NO_INDEX=1 PIP_FIND_LINKS="$RUNNER_TEMP/packages" NOX_DEFAULT_VENV_BACKEND=virtualenv
python -m pip install --quiet nox
for session in "$@"; do
  nox --install-only --session "$session"
done
