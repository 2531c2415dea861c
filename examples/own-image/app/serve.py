"""Draws what is asked for: http://localhost:8080/?prompt=a+red+circle answers with a picture."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import bottle

RUNTIME = Path("/opt/newbie")


@bottle.get("/")
def draw() -> bytes:
    """Draw one picture with the pipeline that the image carries."""
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder, "picture.png")
        command = [sys.executable, "test.py", f"--output={picture}"]
        if prompt := bottle.request.query.getunicode("prompt"):
            command.append(f"--prompt={prompt}")
        done = subprocess.run(command, cwd=RUNTIME, capture_output=True, text=True, check=False)
        if done.returncode:
            # test.py's exit code 2: the prompt or an option is wrong.
            raise bottle.HTTPError(400 if done.returncode == 2 else 500, done.stderr)
        bottle.response.content_type = "image/png"
        return picture.read_bytes()


if __name__ == "__main__":
    bottle.run(host="0.0.0.0", port=8080)  # noqa: S104 - from inside a container
