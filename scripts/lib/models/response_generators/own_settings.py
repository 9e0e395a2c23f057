"""What a model's folder says of how its answers are to be drawn (generation_config.json), and that
is left out: penalties and bans change which token is taken, transformers would apply them and vLLM
would not, and no record of ours would tell. How answers are drawn is the configuration's to say.
"""

import json
from pathlib import Path
from typing import Any

from lib import weights

FILE = "generation_config.json"
#: The settings that change which token is taken, beside those of drawing, with the value that
#: changes nothing; None stands for those that do nothing where they are not set.
NEUTRAL: dict[str, Any] = {
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "length_penalty": 1.0,
    "diversity_penalty": 0.0,
    "min_length": 0,
    **dict.fromkeys(
        (
            *("min_new_tokens", "bad_words_ids", "sequence_bias", "suppress_tokens"),
            *("begin_suppress_tokens", "forced_bos_token_id", "forced_eos_token_id"),
            *("exponential_decay_length_penalty", "guidance_scale", "watermarking_config"),
            *("penalty_alpha", "dola_layers", "stop_strings"),
        )
    ),
}


def left_out(folder: Path) -> dict[str, Any]:
    """The settings of a model's folder that are left out, where they would change something."""
    try:
        settings = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(settings, dict):
        return {}
    return {
        name: settings[name]
        for name, neutral in NEUTRAL.items()
        if settings.get(name) not in (None, neutral, [], {})
    }


def left_out_of(model: str, revision: str) -> dict[str, Any]:
    """`left_out` of a model that is a folder, or in the hub cache: answers were kept of it before
    they were drawn without these settings.
    """
    folder = weights.local_folder(model, revision)
    return left_out(folder) if folder else {}
