"""Second stage: text encoders and Next-DiT learn together to turn noise into latents, by flow matching."""

from __future__ import annotations

from collections.abc import Callable

import torch
from newbie import text
from torch import nn

from .dataset import Dataset
from .networks import Networks
from .schedule import Average, Clock, autocast, say

BATCH = 512
PEAK_RATE = 1.2e-3
DROPPED = 0.1
"""Share of the pictures that are learnt without a prompt, for classifier-free guidance."""
BOS_ID = 1
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
    compiled: bool = False,
    checkpoint: Checkpoint | None = None,
    checkpoint_seconds: float = 60.0,
) -> None:
    """Train in place; the networks end with the average of their weights, and `checkpoint` is called with it in."""
    networks.to(device)
    tokens = torch.from_numpy(data.tokens[:]).to(device)
    for module in networks.modules():
        module.train()
    networks.transformer.counter.calls = {"flash": 0, "sdpa": 0}
    for block in networks.transformer.blocks():
        block.attn.processor.counter = None  # counting would break the compiled graph at every call
    if compiled:
        _compile_blocks(networks)
    average = Average(networks.modules(), 0.9995)
    optimizer = torch.optim.AdamW(_groups(networks), lr=PEAK_RATE, betas=(0.9, 0.98), fused=device.type == "cuda")
    clock = Clock(seconds, max_steps)
    saved, mean_loss = 0.0, 0.0
    while clock.running():
        for group in optimizer.param_groups:
            group["lr"] = clock.rate(PEAK_RATE, 400)
        loss = flow_loss(networks, latents, tokens, batch, device)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([weight for group in optimizer.param_groups for weight in group["params"]], 1.0)
        optimizer.step()
        average.update()
        if clock.step % 200 == 0:
            mean_loss = loss.item()
            say(f"flow step {clock.step} {clock.elapsed:.0f} s loss {mean_loss:.4f}")
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


def flow_loss(
    networks: Networks, latents: torch.Tensor, tokens: torch.Tensor, batch: int, device: torch.device
) -> torch.Tensor:
    """Return the mean squared error of the predicted velocity on a random batch.

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
    return (velocity.float() - (pictures - noise)).square().mean()


def _groups(networks: Networks) -> list[dict[str, object]]:
    """Weight decay for matrices only; the last Gemma layer is never reached and gets no gradient."""
    weights = [weight for module in networks.modules() for weight in module.parameters()]
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
