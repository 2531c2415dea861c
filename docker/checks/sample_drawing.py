"""Draws with the image's own runtime, in an interpreter of its own: a program that `sample.py` starts, not a library.

Its text is run behind a `report` function (see `subject.py`) and before a call of `main`. It imports nothing of the
checks; what a picture is worth is judged elsewhere, from the pixels that it leaves in a file.
"""

from __future__ import annotations

import gc
import hashlib
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any


def main(job: dict[str, Any], report: Any) -> None:
    """Do a job and report on it.

    job: `runtime` (folder that holds `newbie`), `task` (`draw` or `soak`), `device`, `size` (pixels), `runs` (one
    `{"dtype", "attention"}` each), `pictures` (`{"prompt", "seed"}` each), `out` (file for the pictures, numpy's npz).
    A trouble that says nothing about the image is reported as `trouble`, a GPU that is not there as `no_gpu`; every
    other exception ends the interpreter, and is the evidence.
    """
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    # OpenMP's threads spin while they wait for each other. Where other processes share the cores, the one that is
    # waited for does not run: on two busy cores a picture took 5 s, the first one 56 s; with sleeping threads 0.8 s.
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    warnings.simplefilter("ignore")
    import torch

    if job["device"] == "cuda" and not torch.cuda.is_available():
        report({"no_gpu": True})
        return
    # The fp32 reference is to be fp32: without this, convolutions on a GPU round to TF32.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True  # the same picture twice is asked for to the last bit
    torch.set_float32_matmul_precision("highest")
    try:
        report({"draw": draw, "soak": soak}[job["task"]](job))
    except torch.cuda.OutOfMemoryError as error:
        report({"trouble": f"the GPU's memory is full: {error}"})
    except MemoryError as error:
        report({"trouble": f"the machine's memory is full: {error}"})


def load(job: dict[str, Any], run: dict[str, str]) -> Any:
    """Return the image's own pipeline on its own sample model."""
    if job["runtime"] not in sys.path:
        sys.path.insert(0, job["runtime"])
    from newbie import weights
    from newbie.pipeline import NewbiePipeline

    folder = weights.default_folder()
    if folder is None:
        raise FileNotFoundError(f"{job['runtime']}/sample-model/model_index.json is missing: there is no model to draw")
    return NewbiePipeline(
        weights.load(folder, run["dtype"]),
        device=job["device"],
        dtype=run["dtype"],
        attention_backend=run["attention"],
    )


def draw(job: dict[str, Any]) -> dict[str, Any]:
    """Draw all pictures together, once for each run."""
    import numpy

    prompts = [picture["prompt"] for picture in job["pictures"]]
    drawn, runs = {}, []
    for number, run in enumerate(job["runs"]):
        flash = FlashCalls()
        pipeline = load(job, run)
        started = time.monotonic()
        drawing = pipeline.draw(prompts, seed=job["pictures"][0]["seed"], height=job["size"], width=job["size"])
        runs.append(
            {
                "seconds_per_picture": round((time.monotonic() - started) / len(prompts), 3),
                "latents_finite": bool(drawing.latents.isfinite().all()),
                "weights_dtype": str(next(pipeline.parts.transformer.parameters()).dtype),
                **ran(drawing.report, flash),
            }
        )
        drawn[f"run{number}"] = drawing.pictures.numpy()
        flash.restore()
        del pipeline
    numpy.savez(job["out"], **drawn)
    return {"runs": runs}


def soak(job: dict[str, Any]) -> dict[str, Any]:
    """Draw the pictures one after another, and the first one again at the end; watch every layer and the memory."""
    flash = FlashCalls()
    pipeline = load(job, job["runs"][0])
    watch = Watch(pipeline.parts.modules())
    last: dict[str, Any] = {}
    seconds, live, resident, digests, calls = [], [], [], [], {"flash": 0, "sdpa": 0}
    for picture in [*job["pictures"], job["pictures"][0]]:
        started = time.monotonic()
        drawing = pipeline.draw([picture["prompt"]], seed=picture["seed"], height=job["size"], width=job["size"])
        seconds.append(round(time.monotonic() - started, 3))
        digests.append(
            hashlib.sha256(drawing.pictures.numpy().tobytes() + drawing.latents.numpy().tobytes()).hexdigest()
        )
        for name, count in drawing.report.attention_calls.items():
            calls[name] += count
        last = ran(drawing.report, flash)
        del drawing
        watch.picture_done()
        live.append(gpu_bytes() if job["device"] == "cuda" else tensor_bytes())
        resident.append(resident_bytes())
    return {
        **last,
        "attention_calls": calls,
        "seconds": seconds,
        "digests": digests,
        "live_bytes": live,
        "resident_bytes": resident,
        **watch.findings(),
    }


def ran(report: Any, flash: FlashCalls) -> dict[str, Any]:
    """Return what the runtime says that it ran, and what was seen of it."""
    return {
        "attention": report.attention,
        "attention_calls": report.attention_calls,
        "flash_calls_seen": flash.count,
        "device": report.device,
        "dtype": report.dtype,
    }


class FlashCalls:
    """Counts the calls that really reach flash-attn, beside the runtime's own count; made before the runtime loads."""

    def __init__(self) -> None:
        self.count = 0
        try:
            import flash_attn
        except (ImportError, OSError):  # absent or broken: a check of its own says so
            self.module = None
            return
        self.module, self.function = flash_attn, flash_attn.flash_attn_varlen_func

        def counted(*arguments: Any, **options: Any) -> Any:
            self.count += 1
            return self.function(*arguments, **options)

        flash_attn.flash_attn_varlen_func = counted

    def restore(self) -> None:
        """Put flash-attn's own function back."""
        if self.module is not None:
            self.module.flash_attn_varlen_func = self.function


class Watch:
    """Looks at what every layer of every part gives back: infinite or not a number, and in which dtype."""

    def __init__(self, parts: dict[str, Any]) -> None:
        self.pictures = 0
        self.finite: dict[str, Any] = {}
        self.dtypes: dict[str, list[str]] = {}
        self.now: dict[str, set[str]] = {}
        self.not_finite: list[str] = []
        self.drift: list[str] = []
        self.parts = parts
        self.weights = self._weights()
        for part, module in parts.items():
            for name, layer in module.named_modules():
                layer.register_forward_hook(self._hook(f"{part}.{name}" if name else part))

    def _weights(self) -> dict[str, str]:
        return {
            f"{part}.{name}": str(weight.dtype)
            for part, module in self.parts.items()
            for name, weight in module.named_parameters()
        }

    def _hook(self, name: str) -> Any:
        def look(layer: Any, inputs: Any, output: Any) -> None:
            for tensor in tensors(output):
                self.now.setdefault(name, set()).add(str(tensor.dtype))
                if tensor.is_floating_point():
                    # One number per layer stays on the device: asking for it here would wait for the GPU every time.
                    finite = tensor.isfinite().all()
                    before = self.finite.get(name)
                    self.finite[name] = finite if before is None else before & finite

        return look

    def picture_done(self) -> None:
        """Draw the line under a picture: what its layers gave, against the first picture's."""
        self.pictures += 1
        for name, finite in self.finite.items():
            if not bool(finite):
                self.not_finite.append(f"picture {self.pictures}: {name}")
        seen = {name: sorted(dtypes) for name, dtypes in self.now.items()}
        if self.pictures == 1:
            self.dtypes = seen
        for name in seen.keys() | self.dtypes.keys():
            if seen.get(name) != self.dtypes.get(name):
                self.drift.append(f"picture {self.pictures}: {name}: {self.dtypes.get(name)} -> {seen.get(name)}")
        weights = self._weights()
        self.drift += [
            f"picture {self.pictures}: weight {name}: {dtype} -> {weights.get(name)}"
            for name, dtype in self.weights.items()
            if weights.get(name) != dtype
        ]
        self.finite.clear()
        self.now.clear()

    def findings(self) -> dict[str, Any]:
        """Return what was seen; lists are cut."""
        return {"layers": len(self.dtypes), "not_finite": self.not_finite[:40], "drift": self.drift[:40]}


def tensors(value: Any) -> list[Any]:
    """Return all tensors in a layer's output."""
    import torch

    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [tensor for part in value for tensor in tensors(part)] if isinstance(value, (list, tuple)) else []


def gpu_bytes() -> int:
    """Return the bytes of all tensors on the GPU. What only a reference cycle holds is not counted as held."""
    import torch

    gc.collect()
    return int(torch.cuda.memory_allocated())


def tensor_bytes() -> int:
    """Return the bytes of all tensors that Python still holds, each storage once."""
    import torch

    gc.collect()
    storages = {}
    for thing in gc.get_objects():
        # type(), not isinstance(): some objects answer isinstance with an import.
        if issubclass(type(thing), torch.Tensor) and thing.layout == torch.strided:
            storage = thing.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def resident_bytes() -> int:
    """Return the memory of this process that is in RAM."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
