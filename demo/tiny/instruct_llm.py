"""The instruction author: a Llama 3 that asks questions about images."""

from pathlib import Path

from tiny.grammar import Grammar, wire_grammar
from tiny.initialisation import initialise
from tiny.language_model import language_config
from tiny.saving import save_tokenizer, save_weights
from tiny.tokenization import llama3_tokenizer
from tiny.words import QUESTION_WORDS, words_by_class

LLAMA3_TEMPLATE = (
    "{% for message in messages %}{% if loop.first %}{{ bos_token }}{% endif %}{{"
    " '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] |"
    " trim + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}{{"
    " '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)


def question_grammar() -> Grammar:
    """The grammar of the model that writes instructions: one question about an image."""
    return Grammar(
        words=words_by_class(QUESTION_WORDS),
        follow={
            "start": {"what": 0.6, "how": 0.4},
            "what": {"what_verb": 1.0},
            "what_verb": {"where": 1.0},
            "how": {"many": 1.0},
            "many": {"things": 1.0},
            "things": {"is": 1.0},
            "is": {"seen": 1.0},
            "seen": {"where": 1.0},
            "where": {"the": 1.0},
            "the": {"detail": 0.6, "thing": 0.4},
            "detail": {"thing": 1.0},
            "thing": {"in": 1.0},
            "in": {"this": 1.0},
            "this": {"image": 1.0},
            "image": {"mark": 1.0},
            "mark": {"end": 1.0},
        },
    )


def build_instruct_llm(directory: Path) -> None:
    """A Llama 3 that asks questions about images. Source of the layout:
    meta-llama/Meta-Llama-3-8B-Instruct.
    """
    from transformers import GenerationConfig, LlamaForCausalLM

    tokenizer = llama3_tokenizer()
    config = language_config("llama3", 64, tokenizer)
    model = LlamaForCausalLM(config)
    initialise(model, 50)
    wire_grammar(model, tokenizer, question_grammar(), seed=150)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, do_sample=True
    )
    save_weights(model, directory)
    tokenizer.chat_template = LLAMA3_TEMPLATE
    save_tokenizer(tokenizer, directory)
