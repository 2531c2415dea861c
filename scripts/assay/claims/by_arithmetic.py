"""Claims that the releases table, data sheets and arithmetic settle, and Python's own parser, on any machine."""

from __future__ import annotations

import ast

from assay import releases
from assay.claims.table import Context, Measured, numbers

# NewBie-image-Exp0.1, from its models/model.py: parameters, and tokens of a 1024 x 1024 picture with a full prompt.
PARAMETERS = 3_486_636_096
TOKENS = 4096 + 512
STEPS, FORWARDS_A_STEP = 30, 2  # classifier-free guidance runs the model with and without the prompt
# Parameters of what draws a picture: the text encoders and the VAE as their model cards count them.
PARTS = {
    "picture model": PARAMETERS,
    "Gemma-3-4B": 4_300_000_000,
    "Jina CLIP v2": 865_000_000,
    "FLUX VAE": 84_000_000,
}
CLAIMED_SECONDS = {"A10": 8.3, "A100": 6.9}


def driver_minimum(context: Context) -> Measured:
    """Compare the article's minimum with the release table, and name this run's own driver where there is one."""
    release = releases.load().cuda("12.1.105")
    claimed, real = "535.129.03", release.driver_minimum
    text = f"release table: {release.name} shipped with {release.driver_shipped}, minimum {real}"
    finding = next(context.findings("driver.version"), None)
    if finding:
        text += f"; here: {finding.measured}"
    return Measured(text=text, supports=numbers(real) < numbers(release.driver_shipped) < numbers(claimed))


def gpu_names(context: Context) -> Measured:
    """Read chip and compute capability from the releases table."""
    table = releases.load()
    gpus = {name: (table.gpu(name).chip, table.gpu(name).capability) for name in ("A10", "A100", "V100")}
    real = {"A10": ("GA102", "8.6"), "A100": ("GA100", "8.0"), "V100": ("GV100", "7.0")}
    text = "; ".join(f"{name}: {chip}, sm_{capability.replace('.', '')}" for name, (chip, capability) in gpus.items())
    return Measured(text=f"releases table: {text}", supports=gpus == real)


def bf16_product(context: Context) -> Measured:
    """Compute the shares of the A10's peak, and add what this run's GPU measured."""
    peak = releases.load().gpu("A10").bf16_tflops
    shares = {ms: 2 * 4096**3 / ms / 1e9 / peak for ms in (1.8, 3.0)}
    text = f"of {peak:g} TFLOP/s: 1.8 ms is {shares[1.8]:.0%}, 3 ms is {shares[3.0]:.0%}"
    finding = next(context.findings("bf16.tensor-cores"), None)
    here = f"; here: {finding.measured}" if finding else "; no GPU was measured in this run"
    return Measured(text=text + here, supports=0.3 < shares[3.0] < shares[1.8] < 0.9)


def timeit_syntax(context: Context) -> Measured:
    """Give Python a file with %timeit."""
    try:
        ast.parse("import torch\n%timeit a @ b\n", filename="test_bf16.py")
    except SyntaxError as error:
        return Measured(text=f"SyntaxError: {error.msg}, line {error.lineno}", supports=True)
    return Measured(text="Python parses it", supports=False)


def arithmetic_floor(context: Context) -> Measured:
    """Compute the least time that the matrix products of 30 steps take at the GPUs' peaks.

    Two operations a parameter and token; attention's own products (a fifth more) are left out, in the claim's favour.
    """
    table = releases.load()
    operations = 2 * PARAMETERS * TOKENS * STEPS * FORWARDS_A_STEP
    floors = {name: operations / table.gpu(name).bf16_tflops / 1e12 for name in CLAIMED_SECONDS}
    text = "; ".join(
        f"{name}: at least {floor:.1f} s, {CLAIMED_SECONDS[name]} s claimed" for name, floor in floors.items()
    )
    return Measured(text=text, supports=floors["A10"] > CLAIMED_SECONDS["A10"], data={"floor_seconds": floors})


def memory(context: Context) -> Measured:
    """Add up what the model's parts weigh in bf16: no CUDA release can make that less or more."""
    sizes = {part: count * 2 / 2**30 for part, count in PARTS.items()}
    listed = ", ".join(f"{part} {size:.1f}" for part, size in sizes.items())
    total = sum(sizes.values())
    return Measured(
        text=f"{listed}: {total:.1f} GiB in bf16 before any activation, on every release",
        supports=total * 2**30 > 15.1e9,
        data={"gib": sizes},
    )
