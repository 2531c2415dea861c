"""The Next-DiT against diffusers' own Lumina2, and the parts that diffusers does not have."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.transformers.transformer_lumina2 import Lumina2Transformer2DModel
from newbie.transformer import NewbieTransformer2DModel

SMALL = {
    "sample_size": 8,
    "patch_size": 2,
    "in_channels": 16,
    "hidden_size": 96,
    "num_layers": 3,
    "num_refiner_layers": 2,
    "num_attention_heads": 6,
    "num_kv_heads": 2,
    "multiple_of": 16,
    "axes_dim_rope": (8, 4, 4),
    "axes_lens": (64, 32, 32),
    "cap_feat_dim": 40,
}


def randomise(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Give every weight a value that matters: gates, norms and biases too, which start at 0 or 1 otherwise."""
    generator = torch.Generator().manual_seed(seed)
    for weight in module.parameters():
        weight.data = torch.randn(weight.shape, generator=generator) * 0.2 + (1.0 if weight.ndim == 1 else 0.0)
    return module.eval().requires_grad_(False)


def inputs(lengths: list[int], height: int = 8, width: int = 12) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    longest = max(lengths)
    return {
        "hidden_states": torch.randn(len(lengths), 16, height, width, generator=generator),
        "timestep": torch.rand(len(lengths), generator=generator),
        "encoder_hidden_states": torch.randn(len(lengths), longest, 40, generator=generator),
        "encoder_attention_mask": torch.arange(longest)[None] < torch.tensor(lengths)[:, None],
    }


@pytest.mark.parametrize("lengths", [[9], [9, 9], [11, 4, 7]])
def test_without_the_pooled_branch_it_is_lumina2(lengths):
    ours = randomise(NewbieTransformer2DModel(**SMALL, pooled_projection_dim=None))
    theirs = Lumina2Transformer2DModel(**SMALL)
    theirs.load_state_dict(ours.state_dict())
    given = inputs(lengths)
    expected = theirs.eval()(**given, return_dict=False)[0]
    found = ours(**given)
    assert found.shape == expected.shape
    # Theirs turns by complex numbers of double angles, ours by float32 pairs.
    torch.testing.assert_close(found, expected, rtol=2e-4, atol=2e-4)
    assert expected.std() > 0.1


def test_what_stands_in_the_padding_changes_nothing():
    model = randomise(NewbieTransformer2DModel(**SMALL, pooled_projection_dim=None))
    given = inputs([11, 4])
    other = {**given, "encoder_hidden_states": given["encoder_hidden_states"].clone()}
    other["encoder_hidden_states"][1, 4:] = 1e3
    torch.testing.assert_close(model(**other), model(**given))
    alone = {name: value[1:2] for name, value in given.items()}
    alone = {name: value[:, :4] if name.startswith("encoder") else value for name, value in alone.items()}
    torch.testing.assert_close(model(**alone)[0], model(**given)[1], rtol=1e-4, atol=1e-4)


def test_the_pooled_text_takes_part_through_the_timestep_embedding():
    model = randomise(NewbieTransformer2DModel(**SMALL, pooled_projection_dim=24))
    given = inputs([5, 5])
    pooled = torch.randn(2, 24, generator=torch.Generator().manual_seed(1))
    seen = []
    model.layers[0].norm1.linear.register_forward_hook(lambda module, arguments, output: seen.append(arguments[0]))
    first = model(**given, pooled_projections=pooled)
    changed = pooled.clone()
    changed[1] += 1
    second = model(**given, pooled_projections=changed)
    torch.testing.assert_close(first[0], second[0])
    assert not torch.allclose(first[1], second[1])
    # By hand: SiLU and Linear over timestep embedding and normalised, projected text, in this order.
    time, _ = model.time_caption_embed(given["hidden_states"], given["timestep"], given["encoder_hidden_states"])
    norm, projection = model.clip_text_pooled_proj
    scaled = pooled * torch.rsqrt(pooled.square().mean(-1, keepdim=True) + 1e-5) * norm.weight
    joined = torch.cat((time, scaled @ projection.weight.T + projection.bias), dim=-1)
    wanted = torch.nn.functional.silu(joined) @ model.time_text_embed[1].weight.T + model.time_text_embed[1].bias
    torch.testing.assert_close(seen[0], torch.nn.functional.silu(wanted), rtol=1e-4, atol=1e-4)


def test_every_block_counts_its_attention():
    model = randomise(NewbieTransformer2DModel(**SMALL, pooled_projection_dim=None))
    model(**inputs([5]))
    model(**inputs([5]))
    assert len(model.blocks()) == 3 + 2 + 2
    assert model.counter.calls == {"flash": 0, "sdpa": 2 * 7}


def test_full_size_is_what_newbie_publishes():
    """3,483,484,992 weights are Lumina2's at NewBie's sizes, counted in diffusers; the rest is the pooled branch."""
    with torch.device("meta"):
        bare = NewbieTransformer2DModel(pooled_projection_dim=None)
        whole = NewbieTransformer2DModel()

    def count(module: torch.nn.Module) -> int:
        return sum(weight.numel() for weight in module.parameters())

    assert count(bare) == 3_483_484_992
    assert count(whole) - count(bare) == 1024 + (1024 * 1024 + 1024) + (2048 * 1024 + 1024)
    assert bare.config.hidden_size // bare.config.num_attention_heads == 96
