"""Measure the sample model for the limits of its checks: grades over unseen prompts, bf16 against fp32, seconds.

    python scripts/measure_sample_model.py --out FILE [--device cuda] [--prompts 200] [--model DIR]

Draws every prompt in fp32 with SDPA and in bf16 (with flash-attn on a GPU). FILE gets, for each, the table of grades
and how many attributes of each picture were wrong, and the PSNR of bf16 against fp32 for each picture.
`docker/checks/sample.py` says how its limits follow from these numbers; run this again after training.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
SEED = 5000
"""Neither the seed that chose the sampling nor the one that graded it while training."""


def main() -> int:
    """Draw, compare, write."""
    from sample_model import checkout

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=checkout.ROOT / "docker/runtime/sample-model")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--batch", type=int, default=1)
    options = parser.parse_args()

    import torch
    from assay_checks import sample

    from sample_model import evaluate
    from sample_model.schedule import say

    torch.backends.cudnn.allow_tf32 = False
    gpu = options.device.startswith("cuda")
    measured: dict[str, object] = {"torch": torch.__version__, "threads": torch.get_num_threads()}
    pictures = {}
    for dtype, attention in (("fp32", "sdpa"), ("bf16", "flash" if gpu else "sdpa")):
        drawer = evaluate.pipeline(options.model, options.device, dtype, attention)
        found = evaluate.evaluate(drawer, options.prompts, SEED, batch=options.batch)
        pictures[dtype] = found.pictures
        wrong = [len(grade.wrong) for grade in found.grades]
        measured[dtype] = {**found.to_json(), "wrong_per_picture": wrong, "worst": max(wrong)}
        say(f"{dtype}: {json.dumps({**found.to_json(), 'worst': max(wrong)})}")
    ratios = [sample.psnr(one, other) for one, other in zip(pictures["fp32"], pictures["bf16"], strict=True)]
    measured["psnr_db"] = [round(ratio, 2) for ratio in ratios]
    ordered = sorted(ratios)
    say(f"PSNR: least {ordered[0]:.1f}, median {ordered[len(ordered) // 2]:.1f}, most {ordered[-1]:.1f} dB")
    options.out.write_text(json.dumps(measured, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
