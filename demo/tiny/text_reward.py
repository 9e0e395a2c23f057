"""A text reward model of one output: a Llama 3 whose last token's state becomes a number."""

from pathlib import Path

from tiny.initialisation import initialise
from tiny.language_model import language_config
from tiny.saving import save_tokenizer, save_weights
from tiny.tokenization import llama3_tokenizer

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for turn in messages %}{{ '<|start_header_id|>' + turn['role'] +"
    " '<|end_header_id|>\n\n' + turn['content'] + '<|eot_id|>' }}{% endfor %}"
)


def build_text_reward(directory: Path) -> None:
    """Source of the layout: Skywork/Skywork-Reward-V2-Llama-3.1-8B."""
    from transformers import LlamaForSequenceClassification

    tokenizer = llama3_tokenizer()
    config = language_config("llama3", 64, tokenizer, num_labels=1)
    config.pad_token_id = tokenizer.convert_tokens_to_ids("<|end_of_text|>")
    model = LlamaForSequenceClassification(config)
    initialise(model, 70)
    save_weights(model, directory)
    tokenizer.chat_template = CHAT_TEMPLATE
    save_tokenizer(tokenizer, directory)
