"""Text reward models of one output: a language model that reads a conversation in its own chat
template, with a head of one number at its end (`Skywork/Skywork-Reward-V2-Llama-3.1-8B`, ...).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from lib import weights
from lib.jobs.device import require_device
from lib.loading import load_from_folder, load_whole, placing, to_device
from lib.models.response_generators.chat import neutralised
from lib.models.response_rewards.base import Conversation, Reward
from lib.models.response_rewards.settings import LocalRewardSettings

#: Stands for a response in the chat template.
MARK = "\ue000"


class SequenceClassification:
    """A loaded reward model. Right padding and the causal mask make a response's score independent
    of its batch, up to rounding.
    """

    VERSION: ClassVar[int] = 1

    class Settings(LocalRewardSettings):
        """Any model of transformers for sequence classification with one output and a chat
        template.
        """

        kind: Literal["sequence-classification"] = Field(
            description="Which class rates the responses."
        )
        max_length: PositiveInt = Field(
            4096,
            description=(
                "Tokens of instruction and response together; longer responses are cut at their end"
                " for scoring."
            ),
        )

        @model_validator(mode="after")
        def _has_one_output(self) -> Self:
            folder = weights.local_folder(self.model, self.revision)
            if folder is not None and (problem := problem_with(folder)):
                raise ValueError(f"`model`: {problem}")
            return self

    def __init__(self, model: Any, tokenizer: Any, max_length: int) -> None:
        self.model, self.tokenizer, self.max_length = model, tokenizer, max_length

    @classmethod
    def load(cls, settings: Settings, device: str) -> Self:
        """Loads the model onto a device. Its head is computed in float32: bfloat16 has three
        digits, and would make ties of good answers.
        """
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        require_device(device, settings.gpus)
        folder = weights.fetch(settings.model, settings.revision)
        if problem := problem_with(folder):
            raise ValueError(problem)
        tokenizer = load_from_folder(AutoTokenizer, folder)
        if not tokenizer.chat_template:
            raise ValueError(f"the tokenizer in {folder} has no chat template")
        options = {"dtype": getattr(torch, settings.dtype), "use_safetensors": True}
        options |= placing(device, settings.gpus)
        model = load_whole(AutoModelForSequenceClassification, folder, **options)
        if isinstance(head := getattr(model, "score", None), torch.nn.Linear):
            head.float().register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
        return cls(to_device(model, device), tokenizer, settings.max_length)

    def rate(self, conversations: Sequence[Conversation]) -> list[Reward]:
        """The reward of the last message of each conversation, as one batch; one after the other
        where the model knows no padding. Errors: ValueError for a conversation that does not end
        with a response, or leaves it no room.
        """
        tokenized = [self.tokenize(conversation) for conversation in conversations]
        padding = self.model.config.get_text_config().pad_token_id
        step = 1 if padding is None else max(1, len(tokenized))
        scores: list[float] = []
        for start in range(0, len(tokenized), step):
            batch = [tokens for tokens, _ in tokenized[start : start + step]]
            scores += self._scores(batch, padding or 0)
        return [
            Reward(score, {"cut_for_scoring": is_cut})
            for score, (_, is_cut) in zip(scores, tokenized, strict=True)
        ]

    def _scores(self, batch: Sequence[Sequence[int]], padding: int) -> list[float]:
        import torch

        device, length = self.model.device, max(map(len, batch))
        ids = [[*tokens, *[padding] * (length - len(tokens))] for tokens in batch]
        mask = [[1] * len(tokens) + [0] * (length - len(tokens)) for tokens in batch]
        with torch.inference_mode():
            logits = self.model(
                input_ids=torch.tensor(ids, device=device),
                attention_mask=torch.tensor(mask, device=device),
            ).logits
        return [float(score) for score in logits[:, 0].tolist()]

    def tokenize(self, conversation: Conversation) -> tuple[list[int], bool]:
        """Token ids of a conversation, at most `max_length`, and whether its response was cut.
        Special tokens are such in the template's own text only: a message gets a blank inside them.
        """
        if not conversation or conversation[-1]["role"] != "assistant":
            raise ValueError("a conversation has to end with the assistant's response")
        *turns, last = [
            {"role": turn["role"], "content": neutralised(turn["content"].strip(), self.tokenizer)}
            for turn in conversation
        ]
        rendered = self.tokenizer.apply_chat_template(
            [*turns, {**last, "content": MARK}], tokenize=False
        )
        before, mark, after = rendered.rpartition(MARK)
        if not mark:
            raise ValueError("the tokenizer's chat template does not put out the response")
        encoded = self.tokenizer(
            before + last["content"] + after, add_special_tokens=False, return_offsets_mapping=True
        )
        ids = list(encoded["input_ids"])
        end = len(before) + len(last["content"])
        of_response = [
            number
            for number, (first, behind) in enumerate(encoded["offset_mapping"])
            if first >= len(before) and first < behind <= end
        ]
        excess = len(ids) - self.max_length
        if excess <= 0:
            return ids, False
        if excess >= len(of_response):
            raise ValueError(
                f"the prompt has {len(ids) - len(of_response)} tokens with its template, which"
                f" leaves no room for a response in {self.max_length}"
            )
        cut = set(of_response[-excess:])
        return [token for number, token in enumerate(ids) if number not in cut], True


def problem_with(folder: Path) -> str | None:
    """Why a model's folder can be no reward of this kind, by its config.json; None if it can."""
    config = weights.config_in(folder)
    names = config.get("architectures") or []
    if not any(str(name).endswith("ForSequenceClassification") for name in names):
        said = ", ".join(map(str, names)) or "nothing"
        return (
            f"{folder} holds no model for sequence classification (its config.json has"
            f" `architectures` {said}). Take one, or another `kind`"
        )
    if (outputs := outputs_of(config)) != 1:
        return (
            f"the model in {folder} has {outputs} outputs, and a reward has one. Take a reward"
            " model of one output"
        )
    return None


def outputs_of(config: Mapping[str, Any]) -> int:
    """How many numbers a model puts out; transformers writes it down where it is not two."""
    labels = config.get("id2label")
    return len(labels) if isinstance(labels, dict) else int(config.get("num_labels", 2))
