"""A BERT that embeds sentences, for the similarity of texts."""

from pathlib import Path

from tiny.initialisation import initialise
from tiny.saving import save_tokenizer, save_weights, write_json
from tiny.tokenization import bert_tokenizer, padded_vocabulary


def build_sentence_embedding(directory: Path) -> None:
    """A BERT that embeds sentences by mean pooling. Source of the layout:
    sentence-transformers/all-MiniLM-L6-v2.
    """
    import torch
    from transformers import BertConfig, BertModel

    tokenizer = bert_tokenizer()
    config = BertConfig(
        vocab_size=padded_vocabulary(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=512,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = BertModel(config)
    initialise(model, 60)
    # What all texts share would drown the words.
    with torch.no_grad():
        model.embeddings.token_type_embeddings.weight.zero_()
        model.embeddings.position_embeddings.weight.mul_(0.1)
    save_weights(model, directory)
    save_tokenizer(tokenizer, directory)
    write_pooling(directory, config.hidden_size)


def write_pooling(directory: Path, dimensions: int) -> None:
    """Writes what sentence-transformers does with the model's states: their mean, normalised."""
    modules = [
        {
            "idx": number,
            "name": str(number),
            "path": f"{number}_{kind}" if number else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for number, kind in enumerate(("Transformer", "Pooling", "Normalize"))
    ]
    write_json(directory / "modules.json", modules)
    limits = {"max_seq_length": 256, "do_lower_case": False}
    write_json(directory / "sentence_bert_config.json", limits)
    pooling: dict[str, int | bool] = {"word_embedding_dimension": dimensions}
    for mode in ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens"):
        pooling[f"pooling_mode_{mode}"] = mode == "mean_tokens"
    (directory / "1_Pooling").mkdir()
    write_json(directory / "1_Pooling" / "config.json", pooling)
