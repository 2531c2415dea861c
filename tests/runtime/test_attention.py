"""Attention: what is packed for the variable-length kernel, what is counted, and what is refused."""

from __future__ import annotations

import itertools
import sys
from types import ModuleType

import pytest
import torch
from newbie import attention
from newbie.errors import AttentionError
from newbie.transformer import NewbieTransformer2DModel
from test_transformer import SMALL, inputs, randomise

CPU = torch.device("cpu")


def varlen_reference(query, key, value, *, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, **options):
    """Compute what flash-attn documents for `flash_attn_varlen_func`, sequence by sequence, on a CPU.

    query: (tokens, heads, head_dim); key, value: (tokens, fewer heads, head_dim); head n reads key head n // repeats.
    """
    assert options == {"causal": False, "dropout_p": 0.0, "softmax_scale": options["softmax_scale"]}
    assert cu_seqlens_q.dtype == torch.int32
    assert query.shape[0] == int(cu_seqlens_q[-1]) == int(cu_seqlens_k[-1])
    lengths = cu_seqlens_q.diff()
    assert int(lengths.max()) == max_seqlen_q == max_seqlen_k
    repeats = query.shape[1] // key.shape[1]
    mixed = []
    for start, end in itertools.pairwise(cu_seqlens_q.tolist()):
        scores = torch.einsum("qhd,khd->hqk", query[start:end], key[start:end].repeat_interleave(repeats, dim=1))
        shares = (scores * options["softmax_scale"]).softmax(-1)
        mixed.append(torch.einsum("hqk,khd->qhd", shares, value[start:end].repeat_interleave(repeats, dim=1)))
    return torch.cat(mixed)


@pytest.fixture
def flash_attn(monkeypatch):
    """Put the reference where flash-attn would be: its kernels need a GPU, the packing around them does not."""
    module = ModuleType("flash_attn")
    module.flash_attn_varlen_func = varlen_reference
    monkeypatch.setitem(sys.modules, "flash_attn", module)


@pytest.mark.parametrize("lengths", [[6], [9, 9], [11, 4, 7]])
def test_packed_and_masked_attention_are_the_same(flash_attn, lengths):
    model = randomise(NewbieTransformer2DModel(**SMALL, pooled_projection_dim=None))
    given = inputs(lengths)
    masked = model(**given)
    model.set_attention("flash")
    model.counter.reset()
    packed = model(**given)
    torch.testing.assert_close(packed, masked, rtol=1e-4, atol=1e-4)
    model.counter.require("flash", 7)


def test_a_processor_that_something_replaced_is_noticed():
    model = randomise(NewbieTransformer2DModel(**SMALL, pooled_projection_dim=None))
    model.layers[1].attn.processor = attention.NewbieAttention("sdpa")  # answers, and counts nothing
    model(**inputs([5]))
    with pytest.raises(AttentionError, match=r"asked for 7 attention calls by sdpa, counted .*'sdpa': 6"):
        model.counter.require("sdpa", 7)


def test_another_kernel_than_the_one_asked_for_is_noticed():
    counter = attention.AttentionCounter()
    counter.calls["flash"] = 6
    counter.calls["sdpa"] = 1
    with pytest.raises(AttentionError, match="did not run"):
        counter.require("flash", 7)


def test_flash_by_name_is_refused_where_it_cannot_run():
    with pytest.raises(AttentionError, match=r"NVIDIA GPUs only, the model is on cpu.*--attention sdpa"):
        attention.choose("flash", CPU, torch.bfloat16)
    with pytest.raises(AttentionError, match="unknown attention 'xformers'"):
        attention.choose("xformers", CPU, torch.bfloat16)
    assert attention.choose("auto", CPU, torch.bfloat16) == "sdpa"
    assert attention.choose("sdpa", torch.device("cuda"), torch.bfloat16) == "sdpa"
    why_not = attention.obstacle(torch.device("cuda"), torch.float32)
    assert why_not is not None
    assert "bf16 and fp16 only" in why_not


def test_a_broken_flash_attn_says_what_is_wrong(monkeypatch):
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    with pytest.raises(AttentionError, match=r"flash-attn cannot be used: .*flash_attn"):
        attention.flash_attention()
