"""SigLIP, which scores how well an image fits a text."""

import io
from pathlib import Path

from tiny.initialisation import initialise
from tiny.saving import image_preprocessing, save_weights, write_json
from tiny.words import corpus


def build_siglip(directory: Path) -> None:
    """SigLIP: images of 32 x 32 px, texts of 64 tokens. Source of the layout:
    google/siglip-base-patch16-224.
    """
    from transformers import SiglipConfig, SiglipModel, SiglipTokenizer

    directory.mkdir(parents=True, exist_ok=True)
    pieces = directory / "spiece.model"
    pieces.write_bytes(trained_pieces())
    tokenizer = SiglipTokenizer(str(pieces))
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    model = SiglipModel(
        SiglipConfig(
            text_config={
                **sizes,
                "vocab_size": len(tokenizer),
                "max_position_embeddings": 64,
                "bos_token_id": tokenizer.eos_token_id,
                "eos_token_id": tokenizer.eos_token_id,
                "pad_token_id": tokenizer.pad_token_id,
            },
            vision_config={**sizes, "image_size": 32, "patch_size": 8},
        )
    )
    initialise(model, 94)
    save_weights(model, directory)
    tokenizer.save_pretrained(directory)
    write_json(
        directory / "preprocessor_config.json",
        image_preprocessing(
            "SiglipImageProcessor",
            {"height": 32, "width": 32},
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
            processor_class="SiglipProcessor",
        ),
    )


def trained_pieces() -> bytes:
    """A SentencePiece model of the corpus, with unknown and end alone as special pieces."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text.lower() for text in corpus()),
        model_writer=model,
        model_type="unigram",
        vocab_size=400,
        hard_vocab_limit=False,
        normalization_rule_name="identity",
        unk_id=0,
        eos_id=1,
        bos_id=-1,
        pad_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()
