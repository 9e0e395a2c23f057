"""Prompts as BLIP and ImageReward read them: 35 tokens of a BERT tokenizer."""

from pathlib import Path
from typing import Any

from lib.loading import load_from_folder

BLIP_PROMPT_TOKENS = 35  # of BLIP and of ImageReward, [CLS] and [SEP] included


def tokenize_for_blip(tokenizer: Any, prompt: str, batch: int, device: str) -> dict[str, Any]:
    """Returns input_ids and attention_mask, each (batch, 35): one prompt, cut or padded to BLIP's
    length and repeated.
    """
    tokens = tokenizer(
        prompt,
        padding="max_length",
        truncation=True,
        max_length=BLIP_PROMPT_TOKENS,
        split_special_tokens=True,
        return_tensors="pt",
    )
    return {
        name: tokens[name].expand(batch, -1).to(device) for name in ("input_ids", "attention_mask")
    }


def load_bert_tokenizer(directory: Path, vocabulary: int) -> Any:
    """Loads a BERT tokenizer all of whose ids have a row in an embedding of `vocabulary` rows."""
    from transformers import BertTokenizer

    if not any((directory / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
        raise ValueError(
            f"{directory} has no BERT tokenizer (tokenizer.json or vocab.txt); give"
            " bert-base-uncased's folder"
        )
    tokenizer = load_from_folder(BertTokenizer, directory)
    if len(tokenizer) > vocabulary:
        raise ValueError(
            f"the tokenizer in {directory} has {len(tokenizer)} entries, but the model's embedding"
            f" {vocabulary}"
        )
    return tokenizer
