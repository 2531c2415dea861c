# ruff: noqa: T201
"""Draw a picture: the first thing to run in a certified image.

python test.py                                              the sample model that the image carries
python test.py --weights DIR --gpu-profile A10              NewBie-image's own weights, in the diffusers layout
python test.py --random-weights newbie-3b --attention sdpa  the full-size model without weights: time and memory
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Nothing is ever fetched: a model that is not there is an error that names the file.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# On cores that other processes use too, OpenMP's spinning threads draw several times slower than sleeping ones.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
warnings.filterwarnings("ignore", message=r".*(autocast|CUDA is not available).*")

from newbie import prompts  # noqa: E402 - the lines above must come before torch is imported
from newbie.errors import NewbieError, OutputError, PromptError  # noqa: E402
from newbie.profiles import PROFILES, Profile  # noqa: E402

if TYPE_CHECKING:
    from newbie.pipeline import NewbiePipeline, Parts, Report

PROMPT = """<character_1>
<gender>1girl</gender>
<appearance>blue_hair, long_hair, golden_eyes</appearance>
<clothing>white_shirt</clothing>
<expression>smile</expression>
<position>left</position>
</character_1>
<character_2>
<gender>1girl</gender>
<appearance>pink_hair, twintails, green_eyes</appearance>
<clothing>red_sweater</clothing>
<expression>laughing</expression>
<position>right</position>
</character_2>
<general_tags>
<count>2girls</count>
<background>sunset, orange_sky</background>
</general_tags>"""
GIB = 1024**3


def main() -> int:
    """Run one command line. Exit codes: 0 drawn, 1 it went wrong, 2 bad options or prompt, 130 interrupted."""
    options = parse()
    try:
        draw(options)
    except PromptError as error:
        print(f"test.py: prompt: {error}", file=sys.stderr)
        return 2
    except NewbieError as error:
        print(f"test.py: {error}", file=sys.stderr)
        return 1
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":
            raise
        print(
            f"test.py: the GPU's memory is full: {error}\n"
            "Draw smaller pictures, or set --memory-budget to what is free: the text encoders then leave the GPU.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("test.py: interrupted", file=sys.stderr)
        return 130
    return 0


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--prompt", default=PROMPT, help="plain text or NewBie's XML; default: two characters at sunset")
    what.add_argument("--prompt-file", metavar="FILE", help="read the prompt from a file, - for standard input")
    parser.add_argument("--negative", default="", help="what the picture should not show")
    parser.add_argument("--height", type=int, help="pixels; default: what the model was made for")
    parser.add_argument("--width", type=int, help="pixels; default: what the model was made for")
    parser.add_argument("--steps", type=int, help="default: what suits the weights")
    parser.add_argument(
        "--guidance", type=float, help="strength of the prompt, 1 = none; default: what suits the weights"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--pictures", type=int, default=1, metavar="N", help="draw N, with seeds counting up; keep the first"
    )
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    parser.add_argument("--dtype", choices=("bf16", "fp16", "fp32"), help="default: bf16 on a GPU, fp32 on a CPU")
    parser.add_argument("--attention", choices=("auto", "flash", "sdpa"), default="auto")
    parser.add_argument("--memory-budget", type=float, metavar="GIB", help="GPU memory to stay within; default: 16")
    parser.add_argument("--gpu-profile", choices=tuple(PROFILES), help="size, steps and memory for full-size weights")
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--weights", type=Path, metavar="DIR", help="model folder; default: the image's sample model")
    model.add_argument("--random-weights", choices=("newbie-3b",), help="true architecture, seeded random weights")
    parser.add_argument("--output", type=Path, default=Path("picture.png"), metavar="FILE", help="default: picture.png")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write what was measured as JSON")
    options = parser.parse_args()
    if options.pictures < 1:
        parser.error("--pictures must be 1 or more")
    if not 0 <= options.seed < 2**63:
        parser.error("--seed must be 0 or more, below 2**63")
    profile = PROFILES.get(options.gpu_profile)
    if profile and options.dtype and options.dtype not in profile.dtypes:
        parser.error(f"--gpu-profile {options.gpu_profile} draws in {' or '.join(profile.dtypes)}, not {options.dtype}")
    return options


def draw(options: argparse.Namespace) -> None:
    """Draw, write the picture, and print what it took."""
    prompt = prompts.parse(read_prompt(options.prompt_file) if options.prompt_file else options.prompt)

    from newbie import picture_file

    with picture_file.reserved(options.output) as unfinished:
        pipeline, model = load(options)
        settings = choose(options, pipeline, model)
        say_what(prompt, settings, model, pipeline)
        reports = []
        for number in range(options.pictures):
            with progress_bar(settings["sampling"].steps) as on_step:
                drawing = pipeline.draw(
                    [prompt.text],
                    seed=options.seed + number,
                    height=settings["height"],
                    width=settings["width"],
                    negative=options.negative,
                    sampling=settings["sampling"],
                    on_step=on_step,
                )
            if not reports:
                facts = describe(prompt, options, settings, model, drawing.report)
                picture_file.save(drawing.pictures[0], unfinished, facts)
            reports.append(drawing.report)
            say_report(drawing.report)
    print(f"wrote {options.output}")
    if options.report:
        facts["seconds"] = [round(report.seconds, 4) for report in reports]
        try:
            options.report.write_text(json.dumps(facts, indent=2, default=str) + "\n", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"cannot write {options.report}: {error.strerror}") from error


def read_prompt(name: str) -> str:
    """Read a prompt file, no more of it than a prompt may be long."""
    try:
        with open(0 if name == "-" else name, "rb", closefd=name != "-") as file:
            raw = file.read(prompts.MAX_BYTES + 1)
        return raw.decode("utf-8-sig")
    except OSError as error:
        raise PromptError(f"cannot read {name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise PromptError(f"{name} is not UTF-8: {error.reason} at byte {error.start}") from error


def load(options: argparse.Namespace) -> tuple[NewbiePipeline, str]:
    """Return the pipeline and the model's name."""
    import torch
    from newbie.pipeline import NewbiePipeline

    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise NewbieError(
            "no CUDA device: start the container with a GPU (`docker run --gpus all`), or draw with --device cpu"
        )
    profile = PROFILES.get(options.gpu_profile)
    usual = profile.dtypes[0] if profile else "bf16"
    dtype = options.dtype or (usual if device == "cuda" else "fp32")
    parts, model = load_parts(options, device, dtype)
    budget = options.memory_budget or (profile.memory_budget if profile else 16.0)
    pipeline = NewbiePipeline(
        parts, device=device, dtype=dtype, attention_backend=options.attention, memory_budget=budget
    )
    return pipeline, model


def load_parts(options: argparse.Namespace, device: str, dtype: str) -> tuple[Parts, str]:
    """Load the model that was asked for."""
    from newbie import random_weights, weights

    if options.random_weights:
        if device == "cpu" and options.device != "cpu":
            raise NewbieError(
                f"--random-weights {options.random_weights} measures a GPU, and none is visible; "
                "--device cpu draws on the CPU, which takes 40 GB of memory and hours"
            )
        return random_weights.build(options.random_weights, device, dtype), f"{options.random_weights}, random weights"
    folder = options.weights or weights.default_folder()
    if folder is None:
        raise NewbieError("this installation carries no sample model: give --weights DIR or --random-weights newbie-3b")
    return weights.load(folder, dtype), "sample model" if options.weights is None else str(folder)


def choose(options: argparse.Namespace, pipeline: NewbiePipeline, model: str) -> dict[str, Any]:
    """Settle size and sampling: options first, then the profile, then what the model was made for."""
    native = pipeline.native_side
    profile: Profile | None = PROFILES.get(options.gpu_profile)
    if profile and native < 512:
        print(
            f"The sizes and steps of --gpu-profile {options.gpu_profile} are for full-size weights; "
            f"the {model} keeps its own."
        )
        profile = None
    side = profile.side if profile else native
    chosen = {"steps": options.steps or (profile.steps if profile else None), "guidance": options.guidance}
    changes = {name: value for name, value in chosen.items() if value is not None}
    return {
        "height": options.height or side,
        "width": options.width or side,
        "sampling": dataclasses.replace(pipeline.parts.sampling, **changes),
    }


def describe(
    prompt: prompts.Prompt, options: argparse.Namespace, settings: dict[str, Any], model: str, report: Report
) -> dict[str, Any]:
    """Return the facts that go into the picture's metadata: enough to draw it again."""
    from newbie import picture_file

    return {
        "prompt": prompt.text,
        "negative": options.negative,
        "seed": options.seed,
        "model": model,
        "size": f"{settings['width']}x{settings['height']}",
        **settings["sampling"].to_json(),
        "dtype": report.dtype,
        "attention": report.attention,
        "attention_calls": json.dumps(report.attention_calls),
        "device": report.device,
        "peak_bytes": report.peak_bytes,
        **picture_file.versions(),
    }


def say_what(prompt: prompts.Prompt, settings: dict[str, Any], model: str, pipeline: NewbiePipeline) -> None:
    """Print what is about to be drawn."""
    sampling = settings["sampling"]
    count = len(prompt.characters)
    kind = f"XML with {count} character{'' if count == 1 else 's'}" if prompt.is_xml else "plain text"
    print(
        f"{model}: {settings['width']} x {settings['height']}, {sampling.steps} {sampling.solver} steps, "
        f"guidance {sampling.guidance:g}, {pipeline.dtype_name} on {pipeline.device_name}; prompt: {kind}"
    )
    cut = pipeline.tokens_cut(prompt.text)
    if cut:
        print(f"The prompt is {cut} tokens too long; what comes last is not seen.")


def say_report(report: Report) -> None:
    """Print what a drawing took."""
    memory = "no GPU" if report.peak_bytes is None else f"peak memory {report.peak_bytes / GIB:.2f} GiB"
    calls = report.attention_calls[report.attention]
    encoders = ", text encoders moved off the GPU in between" if report.peak_bytes and not report.text_on_gpu else ""
    print(
        f"{report.seconds_per_picture:.2f} s per picture, {memory}{encoders}, "
        f"attention: {report.attention} ({calls} calls)"
    )


@contextmanager
def progress_bar(steps: int) -> Iterator[Callable[[int, int], None]]:
    """Yield what to call with each step that was made; shows a bar on terminals alone."""
    from tqdm import tqdm

    with tqdm(total=steps, unit="step", leave=False, disable=None) as bar:
        yield lambda step, _: bar.update(step - bar.n) and None


if __name__ == "__main__":
    sys.exit(main())
