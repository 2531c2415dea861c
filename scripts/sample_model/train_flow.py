"""Second stage: text encoders and Next-DiT learn together to turn noise into latents, by flow matching."""

from __future__ import annotations

from collections.abc import Callable

import torch
from assay_checks import cartoon
from newbie import text
from torch import nn

from .dataset import Dataset
from .labels import Heads
from .networks import Networks
from .schedule import Average, Clock, autocast, say

BATCH = 512
PEAK_RATE = 1.2e-3
DROPPED = 0.1
"""Share of the pictures that are learnt without a prompt, for classifier-free guidance."""
BOS_ID = 1
LABEL_WEIGHT = 0.1
"""Weight of the text encoders' own loss; the flow loss falls from 2 to 0.1, theirs from 1.6 to nearly nought."""
FACE_WEIGHT = 4.0
"""How much more latents count where faces are: eyes and mouth are 2 % of a picture and a third of its attributes."""
Checkpoint = Callable[[], None]


def train(
    networks: Networks,
    latents: torch.Tensor,
    data: Dataset,
    device: torch.device,
    seconds: float,
    *,
    max_steps: int | None = None,
    batch: int = BATCH,
    peak_rate: float = PEAK_RATE,
    compiled: bool = False,
    checkpoint: Checkpoint | None = None,
    checkpoint_seconds: float = 60.0,
) -> None:
    """Train in place; the networks end with the average of their weights, and `checkpoint` is called with it in."""
    networks.to(device)
    tokens = torch.from_numpy(data.tokens[:]).to(device)
    classes = torch.from_numpy(data.labels[:]).to(device)
    heads = Heads(networks.gemma.config.hidden_size, networks.jina.config.hidden_size).to(device)
    where = face_weights(latents.shape[-1], device)
    for module in networks.modules():
        module.train()
    networks.transformer.counter.calls = {"flash": 0, "sdpa": 0}
    for block in networks.transformer.blocks():
        block.attn.processor.counter = None  # counting would break the compiled graph at every call
    if compiled:
        _compile_blocks(networks)
    average = Average(networks.modules(), 0.9995)
    learners = [*networks.modules(), heads]
    optimizer = torch.optim.AdamW(_groups(learners), lr=PEAK_RATE, betas=(0.9, 0.98), fused=device.type == "cuda")
    clock = Clock(seconds, max_steps)
    saved = 0.0
    while clock.running():
        for group in optimizer.param_groups:
            group["lr"] = clock.rate(peak_rate, 400)
        flow, reading = losses(networks, heads, latents, tokens, classes, where, batch, device)
        loss = flow + LABEL_WEIGHT * reading
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([weight for group in optimizer.param_groups for weight in group["params"]], 1.0)
        optimizer.step()
        average.update()
        if clock.step % 200 == 0:
            say(f"flow step {clock.step} {clock.elapsed:.0f} s loss {flow.item():.4f}, reading {reading.item():.4f}")
        if checkpoint is not None and clock.elapsed - saved > checkpoint_seconds:
            saved = clock.elapsed
            average.swap()
            checkpoint()
            average.swap()
        clock.step += 1
    average.swap()
    for module in networks.modules():
        module.eval()
    networks.transformer.set_attention("sdpa")
    say(f"flow done: {clock.step} steps in {clock.elapsed:.0f} s")


def face_weights(size: int, device: torch.device) -> torch.Tensor:
    """Return each latent position's weight, (size, size), with a mean of 1: more where eyes and mouths are."""
    cell = cartoon.SIZE / size
    weights = torch.ones(size, size)
    for x, y in cartoon.CENTRES.values():
        rows = slice(int((y + 2) // cell), int((y + 19) // cell) + 1)
        weights[rows, int((x - 13) // cell) : int((x + 13) // cell) + 1] = FACE_WEIGHT
    return (weights / weights.mean()).to(device)


def losses(
    networks: Networks,
    heads: Heads,
    latents: torch.Tensor,
    tokens: torch.Tensor,
    classes: torch.Tensor,
    where: torch.Tensor,
    batch: int,
    device: torch.device,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weighted squared error of the predicted velocity on a random batch, and the text encoders' own loss.

    Times are logit-normal; the state at time t is (1 - t) noise + t picture, its velocity picture - noise.
    """
    rows = torch.randint(len(latents), (batch,), device=device)
    wordings = torch.randint(tokens.shape[1], (batch,), device=device)
    ids = tokens[rows, wordings].long()
    dropped = torch.rand(batch, 1, device=device) < DROPPED
    nothing = torch.zeros_like(ids[:1])
    nothing[:, 0] = BOS_ID
    ids = torch.where(dropped, nothing, ids)
    mask = ids != 0
    pictures = latents[rows].float()
    noise = torch.randn_like(pictures)
    times = torch.sigmoid(torch.randn(batch, device=device))
    share = times[:, None, None, None]
    with autocast(device):
        hidden = text.hidden_states(networks.gemma, ids, mask.long())
        pooled = networks.jina(ids, mask)
        velocity = networks.transformer((1 - share) * noise + share * pictures, times, hidden, mask, pooled)
        reading = heads.loss(hidden, mask, pooled, classes[rows], (~dropped[:, 0]).float())
    return ((velocity.float() - (pictures - noise)).square() * where).mean(), reading


def _groups(modules: list[nn.Module]) -> list[dict[str, object]]:
    """Weight decay for matrices only; the last Gemma layer is never reached and gets no gradient."""
    weights = [weight for module in modules for weight in module.parameters()]
    return [
        {"params": [weight for weight in weights if weight.ndim > 1], "weight_decay": 0.01},
        {"params": [weight for weight in weights if weight.ndim <= 1], "weight_decay": 0.0},
    ]


def _compile_blocks(networks: Networks) -> None:
    """Compile each block on its own: all of one kind share a graph, so this takes seconds instead of minutes.

    A compiler that fails leaves the blocks as they are, only slower.
    """
    torch._dynamo.config.suppress_errors = True
    torch._dynamo.config.cache_size_limit = 64
    for block in networks.transformer.blocks():
        block.compile()
