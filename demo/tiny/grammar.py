"""Grammars, and the wiring that makes a random language model speak by one.

The language models have random attention and feed-forward weights and thus depend on the image, the
instruction and the sampling seed, but random weights alone never end an answer. So a few dimensions
of their residual stream are reserved (see `ResidualStream`): they carry the word class of the last
token, and the output layer reads from them which class may follow. The answers are sentences of
English words that mean nothing and end by themselves.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Grammar:
    """Which word may follow which.

    Attributes:
        words: the words of each class.
        follow: for each class, and for `start` (any token without a class: the end of a prompt),
            the probability of each next class; `end` is the end-of-sequence token.
    """

    words: dict[str, list[str]]
    follow: dict[str, dict[str, float]]

    def classes_beside_end(self) -> set[str]:
        """The classes that may stand where the text may also end, and `end`."""
        return {
            name for following in self.follow.values() if "end" in following for name in following
        }


# Scales in `wire_grammar`, found by trial: the choice of a word then depends on the image (standard
# deviation of a logit over images about 0.9) and on the instruction (about 0.5), while the norm of
# the stream varies by 5 % only.
RESERVED_LEVEL = 3.0  # of the reserved dimensions, in units of the square root of the hidden size
STREAM_VARIANCE = 12.0  # mean square of the free dimensions behind the last layer
EMBEDDING_GAIN = 0.7
IMAGE_GAIN = 2.0
# Of queries and of keys; lower, and attention is an average over the whole prompt.
ATTENTION_GAIN = 3.0
FEED_FORWARD_GAIN = 0.3
OUTSIDE_LOGIT = -60.0  # of a word that the grammar does not have
FORBIDDEN_LOGIT = -30.0  # of a word that may not follow


class ResidualStream:
    """How a language model's residual stream is divided.

    Dimension 0 holds a constant, dimension 1 is on for a token without class, and each class has
    one of the next. The rest is free, and random.

    Attributes:
        reserved: number of reserved dimensions.
        level: what a reserved dimension holds that is on.
        rms: root mean square of the whole stream. The two reserved dimensions that are on hold most
            of its energy, so it hardly depends on the text.
        scale: what a reserved dimension that is on holds behind the last normalisation.
        free_deviation: of random weights of the output layer, so that logits within a class have a
            standard deviation of about 1.
        state: the dimension of each class, and of `start`.
    """

    def __init__(self, hidden_size: int, grammar: Grammar) -> None:
        self.reserved = 2 + len(grammar.words)
        free = hidden_size - self.reserved
        self.level = RESERVED_LEVEL * math.sqrt(hidden_size)
        self.rms = math.sqrt((2 * self.level**2 + STREAM_VARIANCE * free) / hidden_size)
        self.scale = self.level / self.rms
        self.free_deviation = self.rms / math.sqrt(STREAM_VARIANCE * free)
        self.state = {"start": 1} | {name: 2 + n for n, name in enumerate(grammar.words)}


@dataclass(frozen=True)
class WordToken:
    """A token of a grammar's word: whether it may open an answer, and whether it may go on."""

    id: int
    opens: bool
    goes_on: bool

    def fits(self, previous: str) -> bool:
        """Whether this form of the word may stand behind a class or `start`."""
        return self.opens if previous == "start" else self.goes_on


def token_forms(tokenizer: "PreTrainedTokenizerBase", word: str) -> tuple[int, int]:
    """The token of a word behind a space (or of a punctuation mark, which has none), and the one at
    the start of a turn.
    """
    forms = []
    # A text that starts with the word: a SentencePiece tokenizer puts a space before it itself, a
    # byte-level one does not.
    for text in (
        f"( {word}" if word[0].isalpha() else f"({word}",
        word if word[0].isalpha() else f"({word}",
    ):
        tokens = tokenizer.encode(text, add_special_tokens=False)
        if tokenizer.decode(tokens[-1:]).strip() != word:
            raise ValueError(f"{word!r} is not one token of the vocabulary")
        forms.append(tokens[-1])
    return forms[0], forms[1]


def word_tokens(
    tokenizer: "PreTrainedTokenizerBase", words: Mapping[str, list[str]]
) -> dict[str, list[WordToken]]:
    """The tokens of each class of words.

    Raises:
        ValueError: if a word is not one token of the tokenizer's vocabulary, or is in two classes.
    """
    tokens: dict[str, list[WordToken]] = {name: [] for name in words}
    for name, class_words in words.items():
        for word in class_words:
            spaced, bare = token_forms(tokenizer, word)
            for token in sorted({spaced, bare}):
                tokens[name].append(WordToken(token, token == bare, token == spaced))
    ids = [token.id for class_tokens in tokens.values() for token in class_tokens]
    if len(ids) != len(set(ids)):
        raise ValueError("a word is in two classes of the grammar")
    return tokens


def wire_grammar(
    model: "torch.nn.Module",
    tokenizer: "PreTrainedTokenizerBase",
    grammar: Grammar,
    seed: int,
) -> None:
    """Makes a random Llama or Mistral speak in sentences that end.

    No layer reads or writes the reserved dimensions of the stream. The output layer reads the log
    probability of each next class from there, and everything else (which word of the class) from
    the random rest of the stream. Words outside of the grammar are pushed far below the others by
    way of the constant.

    Args:
        model: `LlamaForCausalLM`-like: has `embed_tokens`, `layers`, `norm` (somewhere below it)
            and `lm_head`; already initialised.
        tokenizer: the model's.
        grammar: its classes need 2 dimensions fewer than the hidden size has.
        seed: of the words' own random weights.

    Raises:
        ValueError: if a word is not one token of the tokenizer's vocabulary, or is in two classes.
    """
    import torch

    embedding = next(
        module for name, module in model.named_modules() if name.endswith("embed_tokens")
    )
    stream = ResidualStream(embedding.weight.shape[1], grammar)
    tokens = word_tokens(tokenizer, grammar.words)
    with torch.no_grad():
        keep_layers_off_reserved(model, stream)
        mark_classes(model, embedding.weight, tokens, stream)
        head = model.get_output_embeddings().weight
        push_words_down(head, stream, torch.Generator().manual_seed(seed))
        for name, class_tokens in tokens.items():
            allow_class(head, name, class_tokens, grammar, stream)
        allow_end(head[tokenizer.eos_token_id], grammar, stream)


def keep_layers_off_reserved(model: "torch.nn.Module", stream: ResidualStream) -> None:
    """Scales each layer's weights such that it reads and writes the free dimensions only."""
    for name, module in model.named_modules():
        role = name.rpartition(".")[2]
        if role in ("input_layernorm", "post_attention_layernorm"):
            module.weight.fill_(stream.rms)
            module.weight[: stream.reserved] = 0.0
        elif role in ("q_proj", "k_proj") and "vision_tower" not in name:
            module.weight *= ATTENTION_GAIN
        elif role == "o_proj":
            module.weight[: stream.reserved] = 0.0
        elif role == "down_proj":
            module.weight *= FEED_FORWARD_GAIN
            module.weight[: stream.reserved] = 0.0
        elif role == "linear_2":
            # Of the multimodal projector: to the language model, an image is tokens without class.
            module.weight *= IMAGE_GAIN
            module.weight[: stream.reserved] = 0.0
            module.bias[:2] = stream.level


def mark_classes(
    model: "torch.nn.Module",
    embedding: "torch.Tensor",
    tokens: Mapping[str, list[WordToken]],
    stream: ResidualStream,
) -> None:
    """Sets the reserved dimensions of every token to its class."""
    embedding *= EMBEDDING_GAIN
    embedding[:, : stream.reserved] = 0.0
    embedding[:, :2] = stream.level
    for name, parameter in model.named_parameters():
        if name.endswith("image_newline"):
            parameter[: stream.reserved] = 0.0
            parameter[:2] = stream.level
    for name, class_tokens in tokens.items():
        for token in class_tokens:
            embedding[token.id, 1] = 0.0
            embedding[token.id, stream.state[name]] = stream.level


def push_words_down(
    head: "torch.Tensor", stream: ResidualStream, generator: "torch.Generator"
) -> None:
    """Gives each word of the output layer its own random weights, and a logit far below those of
    the grammar's.
    """
    head[:, : stream.reserved] = 0.0
    head[:, 0] = OUTSIDE_LOGIT / stream.scale
    head[:, stream.reserved :].normal_(0.0, stream.free_deviation, generator=generator)


def allow_class(
    head: "torch.Tensor",
    name: str,
    tokens: list[WordToken],
    grammar: Grammar,
    stream: ResidualStream,
) -> None:
    """Gives a class's words the logits that the grammar's probabilities come from."""
    influence = free_influence(name, len(tokens), grammar)
    for token in tokens:
        head[token.id, 0] = 0.0
        head[token.id, stream.reserved :] *= influence
        for previous, following in grammar.follow.items():
            count = sum(other.fits(previous) for other in tokens)
            probability = following.get(name, 0.0) / count if token.fits(previous) else 0.0
            head[token.id, stream.state[previous]] = logit(probability) / stream.scale


def free_influence(name: str, count: int, grammar: Grammar) -> float:
    """How much the free dimensions have a say in a word of a class of so many tokens.

    Between "Yes" and "No" the image should decide; whether a sentence or an answer goes on, the
    probabilities of the grammar.
    """
    if count == 1:
        return 0.1
    if count == 2:
        return 2.0
    return 0.5 if name in grammar.classes_beside_end() else 1.0


def allow_end(end: Any, grammar: Grammar, stream: ResidualStream) -> None:
    """Gives the end of a text, a row of the output layer, its logits."""
    end[stream.reserved :] *= 0.1
    end[0] = 0.0
    for previous, following in grammar.follow.items():
        end[stream.state[previous]] = logit(following.get("end", 0.0)) / stream.scale


def logit(probability: float) -> float:
    """The logit of a probability, and one far below the others where it is 0."""
    return math.log(probability) if probability > 0 else FORBIDDEN_LOGIT
