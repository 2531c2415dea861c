"""A small tokenizer for scene prompts: byte-pair merges inside words and XML tags."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from assay_checks import cartoon, cartoon_prompts
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

PAD, BOS, UNKNOWN = "<pad>", "<bos>", "<unk>"
VOCABULARY = 512
PRINTABLE = [chr(code) for code in range(33, 127)]


def train(seed: int, prompts: int = 6000) -> Tokenizer:
    """Learn the merges from prompts of the training split.

    A tag is a word of its own, so `<character_1>` ends as one token; blanks and underscores part words and vanish.
    Every printable ASCII character is in the alphabet, so any English prompt can be read.
    """
    rng = random.Random(seed)  # noqa: S311 - prompts, no secrets
    texts = [cartoon_prompts.prompt(cartoon.random_scene(rng, for_training=True), rng) for _ in range(prompts)]
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"</?[a-z_0-9]+>"), "isolated"),
            pre_tokenizers.Split(Regex(r"\s+|_(?![a-z_0-9]*>)"), "removed"),
            pre_tokenizers.Split(Regex(r"[,.]"), "isolated"),
        ]
    )
    tokenizer.decoder = decoders.Fuse()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, BOS, UNKNOWN],
        initial_alphabet=PRINTABLE,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json` as transformers' AutoTokenizer reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "pad_token": PAD,
        "unk_token": UNKNOWN,
        "model_max_length": 512,
        "padding_side": "right",
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
