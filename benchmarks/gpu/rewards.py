"""ArmoRM of 8 billion weights by the workflow's own class, 4 and 32 conversations at once."""

import random
from typing import Any

from gpu.report import Report, Row, timed
from gpu.weights import build

BATCH = 32


#: Imported before the device is the section's own.
LIBRARIES = (
    "lib.models.response_rewards.armorm",
    "transformers:LlamaModel",
)


class Rating:
    """The reward model that is measured, and conversations of some 500 tokens."""

    def __init__(self, device: str) -> None:
        import torch
        from transformers import LlamaConfig, LlamaModel

        from lib.models.response_rewards.armorm import ArmoRM
        from tiny.armorm import CHAT_TEMPLATE, OBJECTIVES, add_gating
        from tiny.initialisation import RandomWeights
        from tiny.tokenization import llama3_tokenizer

        self.device = device
        is_real = device == "cuda"
        tokenizer = llama3_tokenizer()
        tokenizer.chat_template = CHAT_TEMPLATE
        config = LlamaConfig(
            vocab_size=128256,
            hidden_size=4096 if is_real else 64,
            intermediate_size=14336 if is_real else 128,
            num_hidden_layers=32 if is_real else 2,
            num_attention_heads=32 if is_real else 4,
            num_key_value_heads=8 if is_real else 2,
            max_position_embeddings=8192,
            rms_norm_eps=1e-5,
            rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
            tie_word_embeddings=False,
        )
        dtype = "bfloat16" if is_real else "float32"
        model = build(device, dtype, lambda: LlamaModel(config))
        heads = RandomWeights(0)
        heads.linear("regression_layer", config.hidden_size, OBJECTIVES)
        del heads.state["regression_layer.bias"]
        heads.state["reward_transform_matrix"] = torch.eye(OBJECTIVES)
        add_gating(heads, config.hidden_size)
        on_device = {name: tensor.to(device) for name, tensor in heads.state.items()}
        self.reward = ArmoRM(model, on_device, tokenizer, temperature=10)
        self.conversations = [self._conversation(number) for number in range(BATCH)]
        self.tokens = [
            len(self.reward.tokenize(conversation)[0]) for conversation in self.conversations
        ]

    def _conversation(self, seed: int) -> list[dict[str, str]]:
        from tiny.words import corpus

        draw = random.Random(seed)  # noqa: S311 - for texts, not for secrets
        words = [word for word in corpus() if word[0].isalpha()]
        length = draw.randint(420, 480) if self.device == "cuda" else 20
        answer = " ".join(draw.choices(words, k=length))
        return [
            {"role": "user", "content": "What is there?"},
            {"role": "assistant", "content": answer},
        ]

    def rate(self, size: int) -> list[float]:
        """The scores of all conversations, so many at once."""
        scores: list[float] = []
        for start in range(0, BATCH, size):
            batch: Any = self.conversations[start : start + size]
            scores += [reward.score for reward in self.reward.rate(batch)]
        return scores


def run(report: Report) -> None:
    """Measures what is missing."""
    rating = Rating(report.device)
    for size in (4, BATCH, 1):  # kernels are chosen by the size of a batch
        rating.rate(size)
    four = report.measure("4 at once", lambda: rated(rating, 4, None))
    report.measure("4 at once, again", lambda: rated(rating, 4, four))
    report.measure("32 at once", lambda: rated(rating, 32, four))
    report.measure("one at a time", lambda: rated(rating, 1, four))


def rated(rating: Rating, size: int, other: Row | None) -> Row:
    """All conversations, so many at once, and how far their scores are from another row's."""
    seconds, scores = timed(rating.device, lambda: rating.rate(size))
    row: Row = {
        "seconds_a_response": seconds / BATCH,
        "tokens_a_response": round(sum(rating.tokens) / BATCH),
        "scores": scores,
    }
    if other is not None:
        differences = [abs(one - two) for one, two in zip(scores, other["scores"], strict=True)]
        row["same_scores"] = max(differences) == 0
        row["largest_difference"] = max(differences)
        row["spread_of_scores"] = max(scores) - min(scores)
    return row
