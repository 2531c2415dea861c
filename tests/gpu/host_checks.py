"""Ask every GPU check its question on this machine's own torch, sound first, then damaged in each way that must show.

    python3 tests/gpu/host_checks.py --wheelhouse DIR --out DIR

Needs a GPU, a python3 with torch, and no Docker engine: the checks' own runner is started directly, as in a container.
The wheelhouse holds flash-attn 2.8.3 for this Python and torch and, for the damaged ones, the wheels that
`examples/gpu-host/build_variants.py` makes. `host_scenarios.py` lists what is damaged, and what must be said of it.
Writes OUT/host-checks.json; exit code 0 when every scenario came out as expected. Prints a line a scenario, and what is
not as expected. Standard library only; how long it takes, README.md says.
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from host_scenarios import ROOT, SCENARIOS, Scenario, table

RUNNER = ROOT / "docker/checks/run.py"
# Another tenant of the GPU, whose queue of products is never empty for long. Prints a line when it has begun.
TENANT = """
import torch
a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
def work():
    for _ in range(50):
        a @ a
    torch.cuda.synchronize()
work()
print("at work", flush=True)
while True:
    work()
"""


def main() -> int:
    """Run the scenarios that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO")
    parser.add_argument("--wheelhouse", type=Path, required=True, action="append")
    parser.add_argument("--out", type=Path, default=Path("build"))
    options = parser.parse_args()
    known = [scenario.name for scenario in SCENARIOS]
    if unknown := [name for name in options.scenarios if name not in known]:
        parser.error(f"no scenario {', '.join(unknown)}; choose from {', '.join(known)}")
    chosen = [scenario for scenario in SCENARIOS if not options.scenarios or scenario.name in options.scenarios]
    facts = machine()
    print(json.dumps(facts), flush=True)
    results = []
    for group in (*([one] for one in chosen if one.alone), [one for one in chosen if not one.alone]):
        with ThreadPoolExecutor(max(1, len(group))) as pool:
            for result in pool.map(lambda scenario: run(scenario, options.wheelhouse, facts), group):
                results.append(result)
                print_result(result)
    options.out.mkdir(parents=True, exist_ok=True)
    report = {"machine": facts, "command": sys.argv, "scenarios": results}
    (options.out / "host-checks.json").write_text(json.dumps(report, indent=1) + "\n")
    if all(result["as_expected"] for result in results):
        return 0
    print("in short:", *map(summary, results), sep="\n")
    return 1


def run(scenario: Scenario, wheelhouses: list[Path], facts: dict[str, Any]) -> dict[str, Any]:
    """Unpack the wheel, damage what the scenario damages, ask the checks and compare."""
    wheel = next((path for house in wheelhouses for path in sorted(house.glob(f"{scenario.wheel}.whl"))
                  if facts["tag"] in path.name), None)  # fmt: skip
    if wheel is None:
        raise SystemExit(f"{scenario.name}: no wheel {scenario.wheel} for {facts['tag']} in {wheelhouses}")
    with tempfile.TemporaryDirectory(prefix="host-checks-") as folder:
        site = Path(folder) / "site"
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
        expect = expectation(scenario, facts)
        # Of several GPUs a container would be given one; here the variable does that.
        given = {"PYTHONPATH": str(site), "ASSAY_TOKEN": "token", "CUDA_VISIBLE_DEVICES": facts["gpu"]["uuid"]}
        environment = {**os.environ, **given, **scenario.prepare(site, expect)}
        (Path(folder) / "expect.json").write_text(json.dumps(expect))
        command = [sys.executable, str(RUNNER), "--expect", f"{folder}/expect.json"]
        command += [part for check in scenario.checks for part in ("--only", check)]
        with tenants(scenario.others, given["CUDA_VISIBLE_DEVICES"]):
            started = time.monotonic()
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    events = [json.loads(line[6:]) for line in done.stdout.splitlines() if line.startswith("token ")]
    findings = [event["finding"] for event in events if "finding" in event]
    result = {
        "scenario": scenario.name,
        "wheel": wheel.name,
        "seconds": round(time.monotonic() - started, 1),
        "findings": findings,
        "expected_failures": scenario.failures,
        "expected_errors": scenario.errors,
        "problems": problems(scenario, findings),
    }
    if not any("finished" in event for event in events):
        result["problems"].append(
            f"the runner did not finish: exit {done.returncode}: {(done.stderr or done.stdout)[-800:]}"
        )
    result["problems"] += [f"broken: {event['broken']}" for event in events if "broken" in event]
    result["as_expected"] = not result["problems"]
    return result


@contextmanager
def tenants(count: int, gpu: str) -> Iterator[None]:
    """Let other processes keep a GPU (its UUID) at work, from their first products on."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": gpu}
    command = [sys.executable, "-u", "-c", TENANT]
    others = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    try:
        for other in others:
            if not other.stdout or not other.stdout.readline():
                raise SystemExit(f"another tenant of the GPU ended with exit code {other.wait()}")
        yield
    finally:
        for other in others:
            other.kill()
            other.communicate()


def problems(scenario: Scenario, findings: list[dict[str, Any]]) -> list[str]:
    """Return how the findings differ from what the scenario must show, causes before their consequences."""
    found = []
    for one in findings:
        check, status = one["check"], one["status"]
        pattern, no_verdict = scenario.failures.get(check), scenario.errors.get(check)
        if no_verdict:
            if status != "error" or not re.search(no_verdict, one["measured"]):
                found.append(f"{check} must give no verdict ({no_verdict!r}); it is {status}: {account(one)}")
        elif status in ("failed", "error") and not (status == "failed" and pattern):
            found.append(f"{check} answers {status}, which is not what this scenario does to it: {account(one)}")
        elif status == "failed" and not re.search(pattern, one["evidence"], re.DOTALL):
            found.append(f"{check} failed for another reason than {pattern!r}: {account(one)}")
        elif pattern and status != "failed":
            found.append(f"{check} must fail with {pattern!r}; it is {status}: {one['measured'][:200]}")
        elif not (scenario.failures or scenario.errors) and status != "passed":
            found.append(f"{check} must pass; it is {status}: {one['measured'][:200]}")
        elif not re.search(scenario.says.get(check, ""), one["measured"]):
            found.append(f"{check} must say {scenario.says[check]!r}; it says: {one['measured'][:200]}")
    asked = {one["check"] for one in findings}
    return found + [f"{check} was not asked" for check in scenario.checks if check not in asked]


def account(finding: dict[str, Any]) -> str:
    """Return what a finding says for itself: its measurement, and the last line of its evidence where that is more."""
    last = (finding["evidence"].strip().splitlines() or [""])[-1]
    measured = finding["measured"][:300]
    return measured if last in measured else f"{measured} ({last[:300]})"


def print_result(result: dict[str, Any]) -> None:
    """Print a scenario in one line, and below it what is not as expected."""
    print(summary(result), flush=True)
    for problem in result["problems"][:3]:
        print(f"  ! {problem[:400]}", flush=True)


def summary(result: dict[str, Any]) -> str:
    """Return a scenario in one line: whether it came out as expected, how many answers of each kind, what failed."""
    counts = Counter(finding["status"] for finding in result["findings"])
    roots = ", ".join(one["check"] for one in result["findings"] if one["status"] in ("failed", "error"))
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    verdict = "as expected" if result["as_expected"] else "NOT AS EXPECTED"
    return f"{verdict}: {result['scenario']}, {result['seconds']} s: {told}{f' ({roots})' if roots else ''}"


def expectation(scenario: Scenario, facts: dict[str, Any]) -> dict[str, Any]:
    """Return expect.json for this machine's own torch, from the releases tables."""
    version = facts["torch"]
    build = next(one for one in table("torch", "build") if one["version"] == version)
    cuda = next(one for one in table("cuda", "release") if one["name"] == build["cuda-release"])
    model = next((one for one in table("gpus", "gpu") if re.search(one["device"], facts["gpu"]["name"])), None)
    model = {key.replace("-", "_"): value for key, value in model.items()} if model else None
    return {
        "row": "host", "level": "gpu", "seed": 20261123, "sample": {"prompts": 0, "soak": 0},
        "cuda": {
            "release": cuda["name"], "components": cuda["components"],
            "driver": {"shipped": cuda["driver-shipped"], "minimum": cuda["driver-minimum"]},
        },
        "toolkit": "base", "library_path": "none",
        "torch": {"version": version, "cuda": build["cuda"], "locked": {}},
        "flash_attn": {
            "version": "2.8.3", "source": "wheelhouse", "wheel": None,
            "head_dims": list(scenario.head_dims), "dtypes": list(scenario.dtypes),
        },
        "gpus": [model] if model else [], "gpu": {**facts["gpu"], "model": model}, "runtime": "none", "libraries": {},
    }  # fmt: skip


def machine() -> dict[str, Any]:
    """Return what this machine is: its GPU, driver, Python and torch."""
    query = ["nvidia-smi", "--query-gpu=index,name,uuid,driver_version", "--format=csv,noheader"]
    smi = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    index, name, uuid, driver = smi.splitlines()[0].split(", ")
    code = "import torch; print(torch.__version__)"
    torch = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    return {
        "gpu": {"index": int(index), "name": name, "uuid": uuid}, "driver": driver, "torch": torch,
        "python": platform.python_version(), "tag": f"cp{sys.version_info[0]}{sys.version_info[1]}",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
