"""flash-attn's functions under flash-attn's names, computed by torch: a package that must not be certified.

It is what a helpful person might install where flash-attn does not compile. It loads the real extension and answers
correctly, so that nothing but a look at the kernels that run can tell.
"""

# It stands in for a module that has no annotations either.
# The extension needs torch's libraries in the process: torch is imported before it, as flash-attn itself does.
# ruff: noqa: ANN001, ANN002, ANN003, ANN201, I001
from itertools import pairwise

import torch
from torch.nn.functional import scaled_dot_product_attention

import flash_attn_2_cuda  # noqa: F401  (loaded, never called)


def flash_attn_func(q, k, v, dropout_p=0.0, softmax_scale=None, causal=False, **_options):
    """Attention of (batch, tokens, heads, dim)."""
    q, k, v = (tensor.transpose(1, 2) for tensor in (q, k, v))
    k, v = (tensor.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for tensor in (k, v))
    queries, keys = q.shape[2], k.shape[2]
    mask = None
    if causal and queries != keys:  # flash-attn aligns the diagonal to the last key, SDPA to the first
        mask = torch.ones(queries, keys, dtype=torch.bool, device=q.device).tril(keys - queries)
    out = scaled_dot_product_attention(
        q, k, v, attn_mask=mask, dropout_p=dropout_p, is_causal=causal and mask is None, scale=softmax_scale
    )
    return out.transpose(1, 2)


def flash_attn_varlen_func(
    q,
    k,
    v,
    cu_seqlens_q,
    cu_seqlens_k,
    max_seqlen_q,
    max_seqlen_k,
    dropout_p=0.0,
    softmax_scale=None,
    causal=False,
    **_,
):
    """Attention of sequences packed as (tokens, heads, dim)."""
    starts_q, starts_k = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
    parts = zip(
        *(
            [tensor[start:end][None] for start, end in pairwise(starts)]
            for tensor, starts in ((q, starts_q), (k, starts_k), (v, starts_k))
        ),
        strict=True,
    )
    return torch.cat([flash_attn_func(*part, dropout_p, softmax_scale, causal)[0] for part in parts])


def flash_attn_qkvpacked_func(qkv, *arguments, **options):
    """Attention of (batch, tokens, 3, heads, dim)."""
    return flash_attn_func(*qkv.unbind(2), *arguments, **options)


def flash_attn_kvpacked_func(q, kv, *arguments, **options):
    """Attention of (batch, tokens, heads, dim) on (batch, tokens, 2, heads, dim)."""
    return flash_attn_func(q, *kv.unbind(2), *arguments, **options)


def flash_attn_varlen_qkvpacked_func(qkv, cu_seqlens, max_seqlen, *arguments, **options):
    """Attention of packed (tokens, 3, heads, dim)."""
    ends = (cu_seqlens, cu_seqlens, max_seqlen, max_seqlen)
    return flash_attn_varlen_func(*qkv.unbind(1), *ends, *arguments, **options)


def flash_attn_varlen_kvpacked_func(q, kv, *arguments, **options):
    """Attention of packed (tokens, heads, dim) on packed (tokens, 2, heads, dim)."""
    return flash_attn_varlen_func(q, *kv.unbind(1), *arguments, **options)


def flash_attn_with_kvcache(q, k_cache, v_cache, *_arguments, causal=False, **_options):
    """Attention on a cache that is full."""
    return flash_attn_func(q, k_cache, v_cache, causal=causal)
