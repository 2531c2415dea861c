"""First stage: the VAE learns to rebuild pictures from 16 x 16 x 16 latents."""

from __future__ import annotations

import time

import torch
import torch.nn.functional as functional
from diffusers import AutoencoderKL

from .dataset import Dataset
from .schedule import Average, Clock, autocast, say

BATCH = 64
PEAK_RATE = 1e-3
KL_WEIGHT = 1e-4
"""Weight of the KL term per latent number; enough to keep unused channels near noise, too little to blur."""
EDGE_WEIGHT = 0.7
"""Weight of the error of neighbouring pixels' differences, which keeps lines and eyes sharp."""


def train(
    vae: AutoencoderKL,
    data: Dataset,
    device: torch.device,
    seconds: float,
    max_steps: int | None = None,
    batch: int = BATCH,
) -> None:
    """Train in place, then set `scaling_factor` and `shift_factor` so that latents have mean 0 and deviation 1."""
    vae.to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(vae.parameters(), lr=PEAK_RATE, betas=(0.9, 0.99), weight_decay=1e-4)
    average = Average([vae], 0.998)
    while data.ready < min(data.count, 20 * batch):
        time.sleep(0.2)
    clock = Clock(seconds, max_steps)
    while clock.running():
        for group in optimizer.param_groups:
            group["lr"] = clock.rate(PEAK_RATE)
        rows = torch.randint(data.ready, (batch,))
        pictures = normalised(torch.from_numpy(data.pictures[rows.numpy()]).to(device, non_blocking=True))
        with autocast(device):
            posterior = vae.encode(pictures).latent_dist
            rebuilt = vae.decode(posterior.sample()).sample
        loss = reconstruction_loss(rebuilt.float(), pictures) + KL_WEIGHT * _divergence(posterior)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        average.update()
        if clock.step % 200 == 0:
            error = functional.mse_loss(rebuilt.detach().float(), pictures).item()
            psnr = -10 * torch.log10(torch.tensor(error / 4)).item()
            say(f"vae step {clock.step} {clock.elapsed:.0f} s loss {loss.item():.4f} PSNR {psnr:.1f} dB")
        clock.step += 1
    average.swap()
    vae.eval().requires_grad_(False)
    say(f"vae done: {clock.step} steps in {clock.elapsed:.0f} s")


def normalised(pictures: torch.Tensor) -> torch.Tensor:
    """Turn (n, height, width, 3) uint8 into (n, 3, height, width) from -1 to 1."""
    return pictures.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def reconstruction_loss(rebuilt: torch.Tensor, pictures: torch.Tensor) -> torch.Tensor:
    """Return the mean absolute error of pixels and of their differences to the right and lower neighbour."""
    error = rebuilt - pictures
    edges = (error[..., 1:, :] - error[..., :-1, :]).abs().mean() + (error[..., 1:] - error[..., :-1]).abs().mean()
    return error.abs().mean() + EDGE_WEIGHT * edges


@torch.no_grad()
def encode_all(vae: AutoencoderKL, data: Dataset, device: torch.device, batch: int = 500) -> torch.Tensor:
    """Return the latents of all pictures, normalised, (n, 16, 16, 16) bf16 on the device; sets the VAE's factors."""
    while data.ready < data.count:
        time.sleep(0.2)
    means = []
    for start in range(0, data.count, batch):
        pictures = normalised(torch.from_numpy(data.pictures[start : start + batch]).to(device))
        with autocast(device):
            means.append(vae.encode(pictures).latent_dist.mean.to(torch.bfloat16))
    latents = torch.cat(means)
    shift, scale = latents[:20000].float().mean().item(), 1 / latents[:20000].float().std().item()
    vae.register_to_config(scaling_factor=round(scale, 6), shift_factor=round(shift, 6))
    deviations = latents[:20000].float().std(dim=(0, 2, 3))
    say(
        f"latents: shift {shift:.4f}, scale {scale:.4f}, "
        f"channel deviations {deviations.min():.3f} to {deviations.max():.3f}"
    )
    return latents.sub_(round(shift, 6)).mul_(round(scale, 6))


def _divergence(posterior: object) -> torch.Tensor:
    """Return the mean KL divergence from a unit Gaussian per latent number."""
    mean, logvar = posterior.mean.float(), posterior.logvar.float()  # type: ignore[attr-defined]
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
