"""ArmoRM, the text reward model that ranks responses (`RLHFlow/ArmoRM-Llama3-8B-v0.1`), without its
remote code.

A Llama 3 reads a conversation. The hidden state of the last token is regressed to 19 rewards, one
an attribute; the hidden state at the end of the prompt goes through a gating network to 19
non-negative weights; the score is the weighted sum of the rewards, with what they owe to verbosity
taken out first (`reward_transform_matrix`). The published modelling code does not import on
transformers >= 4.57, and nothing that comes with a checkpoint is run here anyway, so the same
computation stands below, reading the original's tensors by their names.

Source: Wang et al., arXiv:2406.12845, and the model card.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypedDict, cast

from pydantic import Field, PositiveInt

from lib import weights
from lib.blocks import LATER, model_field, revision_field
from lib.jobs.device import require_device
from lib.loading import placing, problem_in, to_device
from lib.models.response_rewards.base import Conversation, Reward
from lib.models.response_rewards.settings import LocalRewardSettings

if TYPE_CHECKING:
    import torch

# In the order of the rewards (model card).
ATTRIBUTES = (
    "helpsteer-helpfulness",
    "helpsteer-correctness",
    "helpsteer-coherence",
    "helpsteer-complexity",
    "helpsteer-verbosity",
    "ultrafeedback-overall_score",
    "ultrafeedback-instruction_following",
    "ultrafeedback-truthfulness",
    "ultrafeedback-honesty",
    "ultrafeedback-helpfulness",
    "beavertails-is_safe",
    "prometheus-score",
    "argilla-overall_quality",
    "argilla-judge_lm",
    "code-complexity",
    "code-style",
    "code-explanation",
    "code-instruction-following",
    "code-readability",
)
HELPSTEER_ATTRIBUTES = tuple(
    name.removeprefix("helpsteer-") for name in ATTRIBUTES if name.startswith("helpsteer-")
)

# What the gating network reads the prompt's hidden state at: the first token of the last such
# header.
RESPONSE_HEADER = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
HEAD_NAMES = re.compile(
    r"^(regression_layer\.weight|reward_transform_matrix|gating\.logit_scale|gating\.layers\.\d+\.(weight|bias))$"
)


class Details(TypedDict):
    """What ArmoRM says of a response besides its score, which is the weighted sum of the rewards.

    attributes       the five HelpSteer attributes by name, on HelpSteer's scale from 0 to 4 (5r -
                     0.5 of the reward r; not clipped)
    rewards          all 19 rewards by attribute, as the regression gives them (around 0 to 1)
    gating           the weights of the rewards; they add up to the checkpoint's
                     `gating.logit_scale`
    cut_for_scoring  whether the response was cut to fit `max_length`
    """

    attributes: dict[str, float]
    rewards: dict[str, float]
    gating: dict[str, float]
    cut_for_scoring: bool


class ArmoRM:
    """A loaded ArmoRM."""

    VERSION: ClassVar[int] = 1

    class Settings(LocalRewardSettings):
        """Stage response ranking: ArmoRM's score of each valid response (paper 3.3, Eq. 9; model
        card).
        """

        kind: Literal["armorm"] = Field(
            "armorm", description="Which class rates the responses.", json_schema_extra=LATER
        )
        model: str = model_field("RLHFlow/ArmoRM-Llama3-8B-v0.1")
        revision: str = revision_field("eb2676d20da2f2d41082289d23c59b9f7427f955")
        max_length: PositiveInt = Field(
            4096,
            description=(
                "Tokens of instruction and response together; longer responses are cut at their end"
                " for scoring."
            ),
        )

    def __init__(
        self,
        model: Any,
        heads: Mapping[str, torch.Tensor],
        tokenizer: Any,
        temperature: float,
        max_length: int = 4096,
    ) -> None:
        """`temperature`: of the gating network. `max_length`: tokens of a conversation, the
        template's included.
        """
        self.model = model
        self.heads = heads
        self.tokenizer = tokenizer
        self.temperature = temperature
        self.max_length = max_length
        self.response_header = self.encode(RESPONSE_HEADER)

    @classmethod
    def load(cls, settings: Settings, device: str) -> Self:
        """Loads the model onto a device."""
        require_device(device, settings.gpus)
        folder = weights.fetch(settings.model, settings.revision)
        return cls.from_pretrained(
            folder, settings.dtype, device, settings.max_length, gpus=settings.gpus
        )

    @classmethod
    def from_pretrained(
        cls,
        directory: Path,
        dtype: str = "bfloat16",
        device: str = "cpu",
        max_length: int = 4096,
        *,
        gpus: int = 1,
    ) -> Self:
        """Loads a checkpoint in the original's layout (config.json, safetensors, tokenizer).

        Args:
            directory: A local folder; nothing is downloaded here.
            dtype: "float32", "bfloat16" or "float16", for the Llama. The heads are always computed
                in float32: bfloat16 has three digits, and would make ties of good answers.
            device: A torch device, such as "cpu" or "cuda:0".
            max_length: Tokens of a conversation, the template's included.
            gpus: How many GPUs the Llama is spread over, where the device is one.

        Raises:
            ValueError: The folder does not hold a usable ArmoRM.
        """
        import torch

        temperature = read_temperature(directory)
        heads = read_heads(directory)
        model, tokenizer = load_llama(directory, dtype, **placing(device, gpus))
        check_heads(heads, model.config.hidden_size, directory)
        if not tokenizer.chat_template:
            raise ValueError(f"the tokenizer in {directory} has no chat template")
        heads = {
            name: tensor.to(device=device, dtype=torch.float32) for name, tensor in heads.items()
        }
        return cls(to_device(model, device), heads, tokenizer, temperature, max_length)

    def rate(self, conversations: Sequence[Conversation]) -> list[Reward]:
        """The rewards of the last message of each conversation, computed as one right-padded batch.

        Right padding and the causal mask make a conversation's score independent of its batch, up
        to rounding. A conversation that is longer than `max_length` tokens has its response cut at
        the end; the prompt, the headers and the closing <|eot_id|> stay, for the rewards are read
        at the one and the gating weights at the other.

        Raises:
            ValueError: A conversation does not end with an answer to something, or leaves no room
                for its response.
        """
        if not conversations:
            return []
        tokenized = [self.tokenize(conversation) for conversation in conversations]
        sequences = [tokens for tokens, _ in tokenized]
        scores, rewards, gating = self._compute(sequences, self._headers_of(sequences))
        return [
            Reward(score, cast("dict[str, Any]", details_of(row_rewards, row_gating, is_cut)))
            for score, row_rewards, row_gating, (_, is_cut) in zip(
                scores.tolist(), rewards.tolist(), gating.tolist(), tokenized, strict=True
            )
        ]

    def _headers_of(self, sequences: Sequence[Sequence[int]]) -> list[int]:
        """Where the last response header of each token sequence begins."""
        headers = []
        for number, tokens in enumerate(sequences):
            header = last_occurrence(tokens, self.response_header)
            if header is None:
                raise ValueError(
                    f"conversation {number} has no {RESPONSE_HEADER!r} in it, which ArmoRM reads"
                    " the gating weights at: a response has to follow a user's message, and the"
                    " chat template has to be Llama 3's"
                )
            headers.append(header)
        return headers

    def _compute(
        self, sequences: Sequence[Sequence[int]], headers: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Scores (batch,), rewards (batch, 19) and gating weights (batch, 19) of token sequences.
        `headers`: where the response header of each begins.
        """
        import torch

        device = self.model.device
        lengths = torch.tensor([len(tokens) for tokens in sequences])
        input_ids = torch.zeros(len(sequences), int(lengths.max()), dtype=torch.long)
        for row, tokens in zip(input_ids, sequences, strict=True):
            row[: len(tokens)] = torch.tensor(tokens)
        attention_mask = (torch.arange(input_ids.shape[1]) < lengths[:, None]).long()
        with torch.inference_mode():
            hidden = self.model(
                input_ids=input_ids.to(device),
                attention_mask=attention_mask.to(device),
                use_cache=False,
            )[0]
            rows = torch.arange(len(sequences), device=device)
            rewards = (
                hidden[rows, lengths.to(device) - 1].float()
                @ self.heads["regression_layer.weight"].T
            )
            gating = self.gate(hidden[rows, torch.tensor(headers, device=device)].float())
            scores = (gating * (rewards @ self.heads["reward_transform_matrix"])).sum(dim=1)
        return scores, rewards, gating

    def gate(self, hidden: torch.Tensor) -> torch.Tensor:
        """The gating network: hidden states (batch, hidden size) to the weights of the rewards
        (batch, 19).
        """
        import torch

        layers = sum(
            name.startswith("gating.layers.") and name.endswith(".weight") for name in self.heads
        )
        for number in range(layers):
            weight, bias = (
                self.heads[f"gating.layers.{number}.{kind}"] for kind in ("weight", "bias")
            )
            hidden = torch.nn.functional.linear(hidden, weight, bias)
            if number < layers - 1:
                hidden = hidden.relu()
        return torch.softmax(hidden / self.temperature, dim=1) * self.heads["gating.logit_scale"][0]

    def tokenize(self, conversation: Conversation) -> tuple[list[int], bool]:
        """Token ids of a conversation, at most `max_length`, and whether its response was cut.

        The text goes through the tokenizer's chat template, but special tokens are recognised in
        the template's own text only: "<|eot_id|>" in a message is spelt out. For that the template
        is filled with marks, cut at them, and its pieces and the messages are tokenized apart. No
        token reaches over such a cut, since messages are stripped (as Llama 3's template does) and
        stand between "\\n\\n" and a special token; so ordinary text gets the ids that it gets in
        one piece.
        """
        if not conversation or conversation[-1]["role"] != "assistant":
            raise ValueError("a conversation has to end with the assistant's response")
        marks = [f"\ue000{number}\ue001" for number in range(len(conversation))]
        rendered = self.tokenizer.apply_chat_template(
            [
                {"role": message["role"], "content": mark}
                for message, mark in zip(conversation, marks, strict=True)
            ],
            tokenize=False,
        )
        pieces = re.split("|".join(marks), rendered)
        if len(pieces) != len(marks) + 1:
            raise ValueError(
                "the tokenizer's chat template does not put out every message once; it has to be"
                " Llama 3's"
            )
        tokens: list[int] = []
        for piece, message in zip(pieces, conversation[:-1], strict=False):
            tokens += self.encode(piece) + self.encode_text(message["content"].strip())
        tokens += self.encode(pieces[-2])
        response, end = (
            self.encode_text(conversation[-1]["content"].strip()),
            self.encode(pieces[-1]),
        )
        room = self.max_length - len(tokens) - len(end)
        if room < min(1, len(response)):
            raise ValueError(
                f"the prompt has {len(tokens) + len(end)} tokens with its template, which leaves no"
                f" room for a response in {self.max_length}"
            )
        return tokens + response[:room] + end, len(response) > room

    def encode(self, template: str) -> list[int]:
        """Token ids of the template's own text, in which special tokens are special tokens."""
        return list(self.tokenizer.encode(template, add_special_tokens=False))

    def encode_text(self, text: str) -> list[int]:
        """Token ids of a message, in which nothing is a special token."""
        return list(
            self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        )


def details_of(rewards: Sequence[float], gating: Sequence[float], is_cut: bool) -> Details:
    """What is said of one response besides its score, by name."""
    helpsteer = zip(HELPSTEER_ATTRIBUTES, rewards, strict=False)  # the first five
    return {
        "attributes": {name: 5 * reward - 0.5 for name, reward in helpsteer},
        "rewards": dict(zip(ATTRIBUTES, rewards, strict=True)),
        "gating": dict(zip(ATTRIBUTES, gating, strict=True)),
        "cut_for_scoring": is_cut,
    }


def read_temperature(directory: Path) -> float:
    """The gating network's temperature, from the folder's configuration."""
    config_file = directory / "config.json"
    if not config_file.is_file():
        raise ValueError(
            f"{directory} has no config.json; it has to be a copy of RLHFlow/ArmoRM-Llama3-8B-v0.1"
        )
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
        return float(config.get("gating_temperature", 10))
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{config_file} is not a JSON object with a numeric gating_temperature: {error}"
        ) from error


def load_llama(directory: Path, dtype: str, **options: Any) -> tuple[Any, Any]:
    """The Llama that reads conversations, all of whose weights are in the folder, and its
    tokenizer. `options`: of `from_pretrained`, besides.
    """
    import torch
    from transformers import LlamaModel, PreTrainedTokenizerFast

    class Llama(LlamaModel):  # type: ignore[misc]  # transformers is untyped here
        """A LlamaModel that makes no fuss about the heads beside it in the file."""

        _keys_to_ignore_on_load_unexpected = (HEAD_NAMES.pattern,)

    try:
        model, report = Llama.from_pretrained(
            directory,
            dtype=getattr(torch, dtype),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are told below, by name
            **options,
        )
        tokenizer = PreTrainedTokenizerFast.from_pretrained(
            directory, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:
        raise ValueError(f"{directory} cannot be loaded as an ArmoRM: {error}") from error
    if problem := problem_in(report):
        raise ValueError(f"{directory} is not a checkpoint of ArmoRM: {problem}")
    return model, tokenizer


def last_occurrence(tokens: Sequence[int], pattern: Sequence[int]) -> int | None:
    """Index of the first token of the last occurrence of `pattern` in `tokens`, or None."""
    size = len(pattern)
    starts = range(len(tokens) - size, -1, -1)
    return next(
        (start for start in starts if list(tokens[start : start + size]) == list(pattern)), None
    )


def read_heads(directory: Path) -> dict[str, torch.Tensor]:
    """Reads what ArmoRM has beside the Llama: regression, transform and gating network, by the
    original's names.
    """
    from safetensors import SafetensorError, safe_open

    files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise ValueError(f"{directory} has no safetensors file; other formats are not read")
    heads: dict[str, torch.Tensor] = {}
    for path in files:
        try:
            with safe_open(path, framework="pt") as tensors:
                heads |= {
                    name: tensors.get_tensor(name)
                    for name in tensors.keys()  # noqa: SIM118 - not a dict
                    if HEAD_NAMES.fullmatch(name)
                }
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} is not a safetensors file: {error}") from error
    return heads


def check_heads(heads: Mapping[str, torch.Tensor], hidden_size: int, directory: Path) -> None:
    """Refuses heads that lack a tensor or whose shapes do not fit each other, the Llama, and the 19
    attributes.
    """
    layers = 1 + max(
        (int(name.split(".")[2]) for name in heads if name.startswith("gating.layers.")), default=0
    )
    gating = [f"gating.layers.{number}" for number in range(layers)]
    names = ["regression_layer.weight", "reward_transform_matrix", "gating.logit_scale"]
    names += [f"{layer}.{kind}" for layer in gating for kind in ("weight", "bias")]
    if missing := [name for name in names if name not in heads]:
        raise ValueError(
            f"{directory} is not a checkpoint of ArmoRM: it lacks {', '.join(missing[:3])}"
            f" ({len(missing)} in all)"
        )
    objectives = len(ATTRIBUTES)
    widths = [hidden_size, *(len(heads[f"{layer}.bias"]) for layer in gating[:-1]), objectives]
    shapes: list[tuple[int, ...]] = [(objectives, hidden_size), (objectives, objectives), (1,)]
    for inputs, outputs in pairwise(widths):
        shapes += [(outputs, inputs), (outputs,)]
    for name, shape in zip(names, shapes, strict=True):
        if (found := tuple(heads[name].shape)) != shape:
            raise ValueError(
                f"{directory} is not a checkpoint of ArmoRM: {name} should be of shape {shape} and"
                f" is {found}"
            )
