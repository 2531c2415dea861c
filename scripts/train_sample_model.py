"""Train the sample model that every image carries: draw pictures, train, export, grade.

    python scripts/train_sample_model.py --out DIR                       on a GPU, about 8 minutes on an H100
    python scripts/train_sample_model.py --out DIR --vae-steps 50 ...    a quick try on a CPU

DIR gets `sample-model.tar` (the model folder; checkpoints replace it while training runs), `metrics.json` and previews.
Unpack it with `tar -x -f DIR/sample-model.tar -C docker/runtime`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def main() -> int:
    """Run all stages."""
    options = _parse()
    import torch

    from sample_model import checkout, dataset, drawing, export, networks, tokenizer, train_flow, train_vae
    from sample_model.schedule import say

    started = time.monotonic()
    torch.manual_seed(options.seed)
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    device = torch.device(options.device)
    options.out.mkdir(parents=True, exist_ok=True)
    say(f"torch {torch.__version__} on {device}, {os.cpu_count()} cores, checkout {checkout.ROOT}")
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        words = tokenizer.train(options.seed)
        say(f"tokenizer: {words.get_vocab_size()} tokens after {time.monotonic() - started:.0f} s")
        data = dataset.Dataset(Path(scratch) / "data", options.pictures, options.seed, words, options.workers)
        vae, learners = networks.vae(), networks.networks()
        say(f"weights: {networks.parameters(vae, *learners.modules()) / 1e6:.2f} million")
        if options.resume:
            export.restore(options.resume, vae, learners)
            vae.to(device)
            data.wait()
            say(f"resumed from {options.resume} after {time.monotonic() - started:.0f} s")
        else:
            train_vae.train(vae, data, device, options.vae_seconds, options.vae_steps, options.vae_batch)
        latents = train_vae.encode_all(vae, data, device)
        _preview_vae(vae, data, device, options.out / "preview-vae.png", drawing)
        say(f"{len(latents)} latents after {time.monotonic() - started:.0f} s")

        folder = Path(scratch) / "sample-model"

        def checkpoint() -> None:
            export.export(folder, vae, learners, words, export.SAMPLING)
            export.pack(folder, options.out / "sample-model.tar")

        train_flow.train(
            learners,
            latents,
            data,
            device,
            options.flow_seconds,
            max_steps=options.flow_steps,
            batch=options.flow_batch,
            peak_rate=options.flow_rate,
            compiled=options.compile,
            checkpoint=checkpoint,
        )
        checkpoint()
        say(f"trained after {time.monotonic() - started:.0f} s")
        del latents
        _grade(folder, options, started)
    return 0


def _parse() -> argparse.Namespace:
    import torch

    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--device", default="cuda" if gpu else "cpu")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pictures", type=int, default=120_000)
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument("--vae-seconds", type=float, default=120.0)
    parser.add_argument("--flow-seconds", type=float, default=260.0)
    parser.add_argument("--flow-rate", type=float, default=1.2e-3, help="peak learning rate (default: %(default)s)")
    parser.add_argument(
        "--resume", type=Path, metavar="DIR", help="go on from this model folder; its VAE is kept as it is"
    )
    parser.add_argument("--vae-steps", type=int)
    parser.add_argument("--flow-steps", type=int)
    parser.add_argument("--vae-batch", type=int, default=64)
    parser.add_argument("--flow-batch", type=int, default=512)
    parser.add_argument("--prompts", type=int, default=200, help="held-out prompts to grade")
    parser.add_argument("--scratch", type=Path, help="folder for the drawn pictures (6 GB); default: the system's")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=gpu)
    return parser.parse_args()


def _preview_vae(vae: Any, data: Any, device: Any, path: Path, drawing: ModuleType) -> None:
    """Write pictures above their reconstructions."""
    import torch

    from sample_model import train_vae

    originals = data.pictures[:8]
    pictures = train_vae.normalised(torch.from_numpy(originals).to(device))
    with torch.no_grad():
        rebuilt = vae.decode(vae.encode(pictures).latent_dist.mean).sample
    shown = ((rebuilt / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    drawing.grid([*originals, *shown], 8, 2).save(path)


def _grade(folder: Path, options: argparse.Namespace, started: float) -> None:
    """Choose the sampling by grades on one set of held-out prompts, then grade another in every way that runs here."""
    from newbie.attention import AttentionError
    from newbie.sampler import Sampling

    from sample_model import drawing, evaluate, export
    from sample_model.schedule import say

    gpu = options.device.startswith("cuda")
    dtype = "bf16" if gpu else "fp32"
    drawer = evaluate.pipeline(folder, options.device, dtype, "sdpa")
    tried = []
    candidates = [
        Sampling(steps=steps, solver=solver, shift=shift, guidance=guidance)
        for steps, solver in ((8, "midpoint"), (16, "euler"))
        for shift in (1.0, 2.0)
        for guidance in (1.5, 2.5, 4.0)
    ]
    for sampling in candidates if gpu else candidates[:1]:
        found = evaluate.evaluate(drawer, min(100, options.prompts), 1000, sampling, batch=100)
        tried.append((found.share, sampling))
        say(f"{sampling.to_json()}: {found.share:.4f} right after {time.monotonic() - started:.0f} s")
    best = max(tried, key=lambda pair: pair[0])[1]
    export.write_index(folder, best)
    export.pack(folder, options.out / "sample-model.tar")
    metrics = {
        "sampling": best.to_json(),
        "tried": [(round(share, 4), sampling.to_json()) for share, sampling in tried],
    }
    runs = [("flash", "bf16"), ("flash", "fp16"), ("sdpa", "bf16"), ("sdpa", "fp32")] if gpu else [("sdpa", "fp32")]
    for attention, dtype in runs:
        try:
            found = evaluate.evaluate(
                evaluate.pipeline(folder, options.device, dtype, attention), options.prompts, 2000
            )
        except AttentionError as error:
            metrics[f"{attention}/{dtype}"] = {"not-run": str(error)}
            say(f"{attention} {dtype}: {error}")
            continue
        metrics[f"{attention}/{dtype}"] = found.to_json()
        say(f"{attention} {dtype}: {json.dumps(found.to_json())}")
        wrong = [picture for picture, grade in zip(found.pictures, found.grades, strict=True) if grade.wrong][:16]
        drawing.grid(found.pictures[:40], 8, 2).save(options.out / "preview.png")
        if wrong:
            drawing.grid(wrong, 8, 2).save(options.out / "preview-wrong.png")
        metrics["seconds"] = round(time.monotonic() - started, 1)
        (options.out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
