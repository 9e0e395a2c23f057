"""Builds the random run's tiny checkpoints: random weights, but the real architectures in the
layout of their full-size repositories.

    python demo/build_models.py --output demo/models [--only NAME ...]

Nothing is downloaded and nothing is trained. Every checkpoint is a function of this file (and of
the libraries' versions), so two builds give the same bytes; a checkpoint that is already there and
complete is left alone.

The language models have random attention and feed-forward weights and thus depend on the image, the
instruction and the sampling seed, but random weights alone never end an answer. So a few dimensions
of their residual stream are reserved (see `wire_grammar`): they carry the word class of the last
token, and the output layer reads from them which class may follow. The answers are sentences of
English words that mean nothing and end by themselves.
"""

import argparse
import fcntl
import functools
import hashlib
import importlib
import json
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# --- vocabulary

# The words of the answers by word class. A word is in one class only, because the class is read
# from the token.
ANSWER_WORDS: dict[str, str] = {
    "yes_no": "Yes No",
    "article": "The A One Another Each This Every That",
    "adjective": "small large red green bright quiet wooden old round shiny",
    "subject": (
        "man woman child dog cat bird horse car boat bus train cook farmer teacher student painter"
        " worker tree flower"
    ),
    "verb": (
        "holds faces carries covers watches touches follows crosses passes shows leaves reaches"
        " fills meets"
    ),
    "number": "the some many two three four several few",
    "object_adjective": (
        "blue yellow white black orange tall narrow heavy colourful empty striped tiny"
    ),
    "object": (
        "lamps tables bowls baskets umbrellas balls books chairs windows benches bottles plates"
        " cups boxes flags bicycles"
    ),
    "preposition": "near under behind beside above before inside beyond against around",
    "place": (
        "buildings trees bridges curtains mountains clouds shadows people houses walls boats stones"
        " ladders shelves"
    ),
    "and": "and",
    "stop": ".",
}

# The words of the questions that the instruction-writing model asks.
QUESTION_WORDS: dict[str, str] = {
    "what": "What Who",
    "how": "How",
    "many": "many",
    "things": "objects colours animals lights shapes signs cars windows birds chairs",
    "is": "are",
    "seen": "visible standing hanging lying placed arranged painted",
    "what_verb": "stands lies hangs moves rests appears sits waits",
    "where": "near behind beside under above around",
    "the": "the",
    "detail": "red blue green small large wooden bright old white yellow",
    "thing": "table window tree house lamp boat man woman dog bridge bench bowl street",
    "in": "in",
    "this": "this",
    "image": "image picture scene photo",
    "mark": "?",
}

# Further words, so that a prompt of 40 words stays below CLIP's 77 tokens. Not one is ever
# answered.
SCENE_WORDS = """
a about across after afternoon air airport alley along ancient antique apple apples apron apt arches are arm arms arranged art
artist as at autumn baker baking balcony balloon balloons bamboo banner barn barrels baskets beach beam beans bed behind bell belt
bench benches between bicycles big blanket blankets blossoms blow board boats boiling books boots bowls boxes boy boys branch
branches bread breeze brick bricks bridge bright brown brush brushes bucket buckets building built busy butter by cake camera
candle candles canal canoe canvas cap carrots carrying carved cast catch ceiling chalk cheese cherry chef chicken children chimney
chopping church circle city classroom clay clear cliff climbing clock close cloth clothes cloud coast coat coffee cold coloured
colours concrete cone conveyor cooking copper corner corridor couple courtyard crane cranes cream crossing crowd cup cups curved
cutting cyclist dark dawn day deep deer desk desks distance dock dogs door doors doorway down drawing dress dressed drifting
driver drying duck ducks dusk dust each early eating edge eggs eight elderly engine evening eyes facade face factory falling
family farm feeding fence ferry festival field fields fire fireplace fireworks fish fisherman fishing five flags floating floor
flour flowers flying fog foggy foreground forest fountain four fox friends from frost frozen fruit full garden gate gather girl
girls glass glasses gloves glowing goat gold golden grass gravel gray great grey group guitar hair hall hammer hand hands hanging
harbour hat hats heavy helmet herbs high hill hills his her holding hot house hung ice icy in inside into iron island its jacket
jar jars jumping kettle kitchen kite kites kneeling knife lake lamp lamps lantern lanterns large leaf leaning leather left lemon
lemons library light lighthouse lightning lights line lined lined-up lit little loaf loaves long looking loom low machine machines
makes making mango map marble market meadow meal melting metal microscope middle midday mirror mist morning moss mountain
mountains mud mug mural museum mushrooms narrow neon nest next night nine noodles noon ocean of off oil old on onto open orchard
out oven over owl painted painting palm pan paper parade park parked parrot passengers path peppers person piano pier pigeons pile
pine pink pipes pizza plant plants plastic plates platform playground playing plaza pond poster pot pots pottery pouring
protective puddle puddles pulling pumpkin pumpkins purple pushing rabbit rail railing rain rainbow raincoat raining reading red
reflected reflecting reflections resting rice riding right ripe rising river road robot rock rocks roof rooftop rooftops room rope
rose rough row rows running rusty sail sailboat sails sand scarf scattered school scooter sculpture sea seagull seagulls seated
seven sheep shelf ship shirt shoes shop shore side sidewalk sign silver single sits sitting six sketch skates skating sky sleeping
slicing slope slow smiling smoke snow snowman snowy soft soup spices spoon spread square squirrel stack stacked stage stairs stall
stand standing stands statue steam steaming steel steep step steps still stir stirring stone storm stormy stove stream street
stretched studio summer sun sunflowers sunlight sunny sunrise sunset surface surrounded swan sweater swimming swing table tables
tea teacher ten tent terrace their them three through tiles tomatoes tools top towards towel tower town toy tracks tractor traffic
train tram tray trees triangle truck tunnel turning two umbrellas under up valley van vase vegetables vendor village vintage
violin waiting walking wall warehouse warm washing watching water waterfall watering wave waves wearing weather weaving welder wet
wheat wheel wheels while wide wind window windows windy wine winter with woman women wood wooden wool work workers workshop woven
wrapped writing yard yellow young zebra ! 's
"""

# Words that chat templates and instructions are made of.
TEMPLATE_WORDS = """
USER ASSISTANT INST SYS system user assistant chat between curious human artificial intelligence gives helpful detailed polite answers
Answer question using single word phrase Please answer yes or no Is there Are there Does an image How many What Describe in detail
"""


def classes(words: Mapping[str, str]) -> dict[str, list[str]]:
    """The words of each class, as lists."""
    return {name: text.split() for name, text in words.items()}


def corpus() -> list[str]:
    """The words that the vocabularies are made of, each once, in a fixed order."""
    words = [
        word
        for table in (ANSWER_WORDS, QUESTION_WORDS)
        for text in table.values()
        for word in text.split()
    ]
    words += TEMPLATE_WORDS.split() + SCENE_WORDS.split()
    return list(dict.fromkeys(words + [word.lower() for word in words]))


# --- tokenizers

METASPACE = "▁"  # how SentencePiece writes a space
BYTE_SPACE = "Ġ"  # how byte-level BPE writes a space
PRINTABLE = tuple(chr(code) for code in range(0x21, 0x7F))

LLAMA3_BEGIN, LLAMA3_END_OF_TURN = "<|begin_of_text|>", "<|eot_id|>"
CLIP_BEGIN, CLIP_END = "<|startoftext|>", "<|endoftext|>"
IMAGE, PAD = "<image>", "<pad>"  # what LLaVA appends to its language model's vocabulary

# Llama 3's split of a text before byte-level BPE (the `pre_tokenizer` of its tokenizer.json).
# Without it "\n\n" is two tokens.
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@functools.cache
def train_bpe(
    units: tuple[str, ...], alphabet: tuple[str, ...]
) -> tuple[list[str], list[tuple[str, str]]]:
    """Merges that make one token of each unit, and share what units have in common.

    Args:
        units: words, written as the tokenizer's pre-tokenization writes them (with their space
            mark).
        alphabet: all symbols that units consist of, and others that are to be tokens too.

    Returns:
        The tokens, sorted alphabet first, and the merges in order of priority.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Split("\n", "removed")
    trainer = trainers.BpeTrainer(
        vocab_size=100_000,
        min_frequency=1,
        initial_alphabet=sorted(set(alphabet)),
        show_progress=False,
    )
    tokenizer.train_from_iterator(units, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return list(model["vocab"]), [tuple(merge) for merge in model["merges"]]


def sentencepiece_units(words: Sequence[str] = ()) -> tuple[str, ...]:
    """The vocabulary's words as SentencePiece sees them: a word carries the space before it, a
    punctuation mark has none.
    """
    return tuple(METASPACE + word if word[0].isalpha() else word for word in words or corpus())


def llama_tokenizer(llava: bool = False, words: Sequence[str] = ()) -> "PreTrainedTokenizerBase":
    """A tokenizer of the Llama 2 and Mistral kind: SentencePiece BPE with byte fallback, `<s>`
    before a text.

    Args:
        llava: whether `<pad>` and `<image>` follow the vocabulary.
        words: what is one token each; none: `corpus`. So with the other tokenizers.
    """
    from transformers import LlamaTokenizer

    tokens, merges = train_bpe(sentencepiece_units(words), (*PRINTABLE, METASPACE))
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    vocabulary = {
        token: number
        for number, token in enumerate(special + [t for t in tokens if t not in special])
    }
    return LlamaTokenizer(
        vocab=vocabulary,
        merges=merges,
        legacy=False,
        add_bos_token=True,
        add_eos_token=False,
        model_max_length=4096,
        padding_side="left",
        **({"pad_token": PAD, "extra_special_tokens": {"image_token": IMAGE}} if llava else {}),
    )


def llama3_tokenizer(llava: bool = False, words: Sequence[str] = ()) -> "PreTrainedTokenizerBase":
    """A tokenizer of the Llama 3 kind: byte-level BPE, `<|begin_of_text|>` before a text,
    `<|eot_id|>` after a turn.

    Args:
        llava: whether `<pad>` and `<image>` follow Llama 3's own special tokens.
        words: as for `llama_tokenizer`.
    """
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        pre_tokenizers,
        processors,
    )
    from transformers import PreTrainedTokenizerFast

    words = [word for word in words or corpus() if word[0].isalpha()]
    units = [*words, *(BYTE_SPACE + word for word in words), "ĊĊ"]  # "ĊĊ" is "\n\n"
    tokens, merges = train_bpe(tuple(units), tuple(sorted(pre_tokenizers.ByteLevel.alphabet())))
    backend = Tokenizer(
        models.BPE(
            vocab={token: number for number, token in enumerate(tokens)},
            merges=merges,
            ignore_merges=True,
        )
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    special = [
        LLAMA3_BEGIN,
        "<|end_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        LLAMA3_END_OF_TURN,
    ]
    backend.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in special]
    )
    backend.post_processor = processors.TemplateProcessing(
        single=f"{LLAMA3_BEGIN} $A",
        pair=f"{LLAMA3_BEGIN} $A {LLAMA3_BEGIN}:1 $B:1",
        special_tokens=[(LLAMA3_BEGIN, backend.token_to_id(LLAMA3_BEGIN))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=LLAMA3_BEGIN,
        eos_token=LLAMA3_END_OF_TURN,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=8192,
        padding_side="left",
        **({"pad_token": PAD, "extra_special_tokens": {"image_token": IMAGE}} if llava else {}),
    )


def clip_tokenizer(
    pad_token: str = CLIP_END, words: Sequence[str] = (), max_length: int = 77
) -> "PreTrainedTokenizerBase":
    """CLIP's tokenizer: lower-cased byte-level BPE with `</w>`, 77 tokens.

    Args:
        pad_token: what fills a text up. Stable Diffusion 3 takes `<|endoftext|>` in its first and
            `!` in its second tokenizer.
        words: as for `llama_tokenizer`.
        max_length: tokens of a text.
    """
    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizer

    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    # A symbol at the end of a word stands as one private character while training: with the
    # trainer's own suffix, the ids of such symbols follow the order of a hash table, which is
    # another one in each process.
    last = {symbol: chr(0xE000 + number) for number, symbol in enumerate(symbols)}
    words = list(dict.fromkeys(word.lower() for word in words or corpus()))
    tokens, merges = train_bpe(
        tuple(word[:-1] + last[word[-1]] for word in words), (*symbols, *last.values())
    )
    marks = str.maketrans({private: symbol + "</w>" for symbol, private in last.items()})
    ordered = [token.translate(marks) for token in tokens]
    merges = [(left.translate(marks), right.translate(marks)) for left, right in merges]
    # The end mark has the highest id, as in the original: CLIP's text model finds it as the
    # maximum.
    ordered += [CLIP_BEGIN, CLIP_END]
    vocabulary = {token: number for number, token in enumerate(ordered)}
    return CLIPTokenizer(
        vocab=vocabulary, merges=merges, pad_token=pad_token, model_max_length=max_length
    )


def t5_tokenizer(words: Sequence[str] = ()) -> "PreTrainedTokenizerBase":
    """T5's tokenizer: SentencePiece unigrams, `</s>` after a text, sentinels at the end of the
    vocabulary.
    """
    from transformers import T5TokenizerFast

    tokens, _ = train_bpe(sentencepiece_units(words), (*PRINTABLE, METASPACE))
    # Each piece costs the same, so a text is cut into as few pieces as there can be.
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)] + [(token, -10.0) for token in tokens]
    pieces += [(f"<extra_id_{number}>", 0.0) for number in range(99, -1, -1)]
    return T5TokenizerFast(vocab=pieces, extra_ids=100, model_max_length=512)


def bert_tokenizer(words: Sequence[str] = ()) -> "PreTrainedTokenizerBase":
    """BERT's tokenizer: lower-cased WordPiece, `[CLS]` before and `[SEP]` after a text."""
    from transformers import BertTokenizer

    words = list(dict.fromkeys(word.lower() for word in words or corpus() if word.isalpha()))
    letters = [letter for letter in PRINTABLE if not letter.isupper()]
    endings = ["s", "es", "ed", "er", "ing", "ly", "y", "al", "ful", "less", "ness", "ment", "tion"]
    tokens = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *letters,
        *("##" + letter for letter in letters),
    ]
    tokens += [*words, *("##" + ending for ending in endings)]
    return BertTokenizer(
        vocab={token: number for number, token in enumerate(dict.fromkeys(tokens))},
        model_max_length=512,
    )


# --- weights


def initialise(model: "torch.nn.Module", seed: int, gain: float = 1.0) -> None:
    """Fills a model with random weights that keep the scale of what flows through it.

    Matrices and convolutions are normal with standard deviation gain / sqrt(fan-in), embeddings
    with standard deviation 1, gains of normalisations are 1, biases 0. The values depend on the
    seed and on the parameters' names and shapes only, not on the libraries' own initialisation.

    Args:
        model: any module; its parameters are overwritten in place.
        seed: of the generator.
        gain: factor on the standard deviation of matrices.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        with torch.no_grad():
            if parameter.ndim == 0:
                continue  # CLIP's logit scale keeps its published start
            if parameter.ndim == 1:
                if "embedding" in name or "newline" in name:
                    parameter.normal_(0.0, 1.0, generator=generator)
                else:
                    parameter.fill_(1.0 if name.endswith("weight") else 0.0)
            elif (
                "embed_tokens" in name
                or ("embeddings" in name and "patch" not in name)
                or "shared" in name
            ):
                parameter.normal_(0.0, 1.0, generator=generator)
            else:
                parameter.normal_(0.0, gain / math.sqrt(parameter[0].numel()), generator=generator)


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


def answer_grammar(
    stop: float, adjective: float = 0.45, place: float = 0.5, yes_no: float = 0.0
) -> Grammar:
    """The grammar of a model that answers.

    Args:
        stop: probability that an answer ends after a sentence.
        adjective: probability that a noun has an adjective.
        place: probability that a sentence says where.
        yes_no: probability that an answer is "Yes" or "No" (a question of a benchmark).
    """
    return Grammar(
        words=classes(ANSWER_WORDS),
        follow={
            "start": {"yes_no": yes_no, "article": 1 - yes_no},
            "yes_no": {"end": 0.8, "stop": 0.2},
            "article": {"adjective": adjective, "subject": 1 - adjective},
            "adjective": {"subject": 1.0},
            "subject": {"verb": 1.0},
            "verb": {"number": 1.0},
            "number": {"object_adjective": adjective, "object": 1 - adjective},
            "object_adjective": {"object": 1.0},
            "object": {"preposition": place, "and": 0.06, "stop": 0.94 - place},
            "preposition": {"place": 1.0},
            "place": {"and": 0.06, "stop": 0.94},
            "and": {"number": 1.0},
            "stop": {"end": stop, "article": 1 - stop},
        },
    )


def question_grammar() -> Grammar:
    """The grammar of the model that writes instructions: one question about an image."""
    return Grammar(
        words=classes(QUESTION_WORDS),
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


# Scales in `wire_grammar`, found by trial: the choice of a word then depends on the image (standard
# deviation of a logit over images about 0.9) and on the instruction (about 0.5), while the norm of
# the stream varies by 5 % only.
RESERVED_LEVEL = 3.0  # of the reserved dimensions, in units of the square root of the hidden size
STREAM_VARIANCE = 12.0  # mean square of the free dimensions behind the last layer
EMBEDDING_GAIN = 0.7
IMAGE_GAIN = 2.0
ATTENTION_GAIN = (
    3.0  # of queries and of keys; lower, and attention is an average over the whole prompt
)
FEED_FORWARD_GAIN = 0.3


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


def wire_grammar(
    model: "torch.nn.Module",
    tokenizer: "PreTrainedTokenizerBase",
    grammar: Grammar,
    seed: int,
) -> None:
    """Makes a random Llama or Mistral speak in sentences that end.

    The first dimensions of the residual stream are reserved: dimension 0 holds a constant,
    dimension 1 is on for a token without class, and each class has one of the next. No layer reads
    or writes them. The output layer reads the log probability of each next class from there, and
    everything else (which word of the class) from the random rest of the stream. Words outside of
    the grammar are pushed far below the others by way of the constant.

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

    generator = torch.Generator().manual_seed(seed)
    modules = dict(model.named_modules())
    embedding = next(module for name, module in modules.items() if name.endswith("embed_tokens"))
    names = list(grammar.words)
    reserved = 2 + len(names)  # the constant, "start", the classes
    hidden = embedding.weight.shape[1]
    free = hidden - reserved
    # The two reserved dimensions that are on hold most of the stream's energy, so its norm hardly
    # depends on the text.
    level = RESERVED_LEVEL * math.sqrt(hidden)
    rms = math.sqrt((2 * level**2 + STREAM_VARIANCE * free) / hidden)
    scale = level / rms  # the value of a reserved dimension behind the last normalisation
    state = {"start": 1} | {name: 2 + number for number, name in enumerate(names)}

    ids: dict[str, list[tuple[int, bool, bool]]] = {
        name: [] for name in names
    }  # token, may open an answer, may go on
    for name, words in grammar.words.items():
        for word in words:
            spaced, bare = token_forms(tokenizer, word)
            for token in sorted({spaced, bare}):
                ids[name].append((token, token == bare, token == spaced))
    taken = [token for entries in ids.values() for token, _, _ in entries]
    if len(taken) != len(set(taken)):
        raise ValueError("a word is in two classes of the grammar")

    with torch.no_grad():
        for name, module in modules.items():
            role = name.rpartition(".")[2]
            if role in (
                "input_layernorm",
                "post_attention_layernorm",
            ):  # layers see the free dimensions only
                module.weight.fill_(rms)
                module.weight[:reserved] = 0.0
            elif role in ("q_proj", "k_proj") and "vision_tower" not in name:
                module.weight *= ATTENTION_GAIN
            elif role == "o_proj":
                module.weight[:reserved] = 0.0
            elif role == "down_proj":
                module.weight *= FEED_FORWARD_GAIN
                module.weight[:reserved] = 0.0
            elif (
                role == "linear_2"
                # of the multimodal projector: to the language model, an image is tokens without
                # class
            ):
                module.weight *= IMAGE_GAIN
                module.weight[:reserved] = 0.0
                module.bias[:2] = level
        embedding.weight *= EMBEDDING_GAIN
        embedding.weight[:, :reserved] = 0.0
        embedding.weight[:, :2] = level
        for name, parameter in model.named_parameters():
            if name.endswith("image_newline"):
                parameter[:reserved] = 0.0
                parameter[:2] = level
        head = model.get_output_embeddings().weight
        head[:, :reserved] = 0.0
        head[:, 0] = -60.0 / scale
        # Within a class, logits then have a standard deviation of about 1.
        head[:, reserved:].normal_(
            0.0, rms / math.sqrt(STREAM_VARIANCE * free), generator=generator
        )

        # Between "Yes" and "No" the image should decide; whether a sentence or an answer goes on,
        # the probabilities of the grammar.
        beside_end = {
            name
            for following in grammar.follow.values()
            if "end" in following
            for name in following
        }
        never = -30.0 / scale
        for name, entries in ids.items():
            for token, opens, goes_on in entries:
                embedding.weight[token, 1] = 0.0
                embedding.weight[token, state[name]] = level
                head[token, 0] = 0.0
                head[token, reserved:] *= (
                    0.1
                    if len(entries) == 1
                    else 2.0
                    if len(entries) == 2
                    else 0.5
                    if name in beside_end
                    else 1.0
                )
                for previous, following in grammar.follow.items():
                    fits = opens if previous == "start" else goes_on
                    count = sum(entry[1 if previous == "start" else 2] for entry in entries)
                    probability = following.get(name, 0.0) / count if fits else 0.0
                    head[token, state[previous]] = (
                        math.log(probability) / scale if probability > 0 else never
                    )
        head[tokenizer.eos_token_id, reserved:] *= 0.1
        head[tokenizer.eos_token_id, 0] = 0.0
        for previous, following in grammar.follow.items():
            probability = following.get("end", 0.0)
            head[tokenizer.eos_token_id, state[previous]] = (
                math.log(probability) / scale if probability > 0 else never
            )


# --- saving


def write_json(path: Path, content: Any) -> None:
    """Writes JSON as the hub's repositories hold it: two spaces, keys in the given order."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def save_weights(
    model: "PreTrainedModel",
    directory: Path,
    rename: Callable[[str], str] = lambda name: name,
    dtype: str = "float32",
) -> None:
    """Saves configuration and weights, the weights under the names that the hub's checkpoint has.

    Args:
        model: any transformers model.
        directory: created where it is missing.
        rename: from the name of a parameter in the model to that in the checkpoint.
        dtype: "float32", or "float16" to store half as much.
    """
    import torch
    from safetensors.torch import save_file

    directory.mkdir(parents=True, exist_ok=True)
    model.config.architectures = [type(model).__name__]
    model.config.dtype = dtype
    model.config.save_pretrained(directory)
    if getattr(model, "generation_config", None) is not None:
        model.generation_config.save_pretrained(directory)
    tensors = {
        rename(name): (
            tensor.to(
                getattr(torch, dtype) if tensor.is_floating_point() else tensor.dtype
            ).contiguous()
        )
        for name, tensor in model.state_dict().items()
    }
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


OPENAI_CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
OPENAI_CLIP_STD = [0.26862954, 0.26130258, 0.27577711]


def image_preprocessing(kind: str, size: Mapping[str, int], **more: Any) -> dict[str, Any]:
    """What `preprocessor_config.json` holds: bicubic resize, centre crop, CLIP's mean and standard
    deviation.

    Args:
        kind: class of the image processor.
        size: what an image is resized to, in pixels.
        more: further settings of that class.
    """
    return {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": OPENAI_CLIP_MEAN,
        "image_processor_type": kind,
        "image_std": OPENAI_CLIP_STD,
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": dict(size),
    } | more


# --- checkpoints


def build_stable_diffusion_3(directory: Path) -> None:
    """Stable Diffusion 3: 64 x 64 px, two CLIP text encoders, T5, a 16-channel VAE, two transformer
    blocks.

    Source of the layout: stabilityai/stable-diffusion-3-medium-diffusers.
    """
    from diffusers import (
        AutoencoderKL,
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

    tokenizer, tokenizer_2, tokenizer_3 = clip_tokenizer(), clip_tokenizer("!"), t5_tokenizer()
    text_encoders = []
    for seed, activation in ((11, "quick_gelu"), (12, "gelu")):
        config = CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            projection_dim=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            hidden_act=activation,
            max_position_embeddings=77,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=1,
        )
        text_encoder = CLIPTextModelWithProjection(config)
        initialise(text_encoder, seed)
        text_encoders.append(text_encoder)
    text_encoder_3 = T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer_3),
            d_model=64,
            d_kv=32,
            d_ff=64,
            num_layers=1,
            num_heads=2,
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
        )
    )
    initialise(text_encoder_3, 13)
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=4,
        sample_size=64,
        scaling_factor=1.5305,
        shift_factor=0.0609,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    initialise(vae, 14)
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=16,
        out_channels=16,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=64,
        caption_projection_dim=32,
        pooled_projection_dim=64,
        pos_embed_max_size=24,
    )
    initialise(transformer, 15, gain=1.5)  # the guidance scale then changes more than the contrast
    pipeline = StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0),
        vae=vae,
        text_encoder=text_encoders[0],
        tokenizer=tokenizer,
        text_encoder_2=text_encoders[1],
        tokenizer_2=tokenizer_2,
        text_encoder_3=text_encoder_3,
        tokenizer_3=tokenizer_3,
    )
    pipeline.save_pretrained(directory)


def build_clip(directory: Path) -> None:
    """CLIP: images of 32 x 32 px, embeddings of 32 dimensions. Source of the layout:
    openai/clip-vit-large-patch14.
    """
    from transformers import CLIPConfig, CLIPModel

    tokenizer = clip_tokenizer()
    model = CLIPModel(
        CLIPConfig(
            text_config={
                "vocab_size": len(tokenizer),
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "max_position_embeddings": 77,
                "bos_token_id": tokenizer.bos_token_id,
                "eos_token_id": tokenizer.eos_token_id,
                "pad_token_id": 1,
            },
            vision_config={
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": 32,
                "patch_size": 8,
            },
            projection_dim=32,
        )
    )
    initialise(model, 21)
    save_clip(model, tokenizer, directory)


def save_clip(
    model: Any, tokenizer: "PreTrainedTokenizerBase", directory: Path, dtype: str = "float32"
) -> None:
    """Saves a CLIPModel with its tokenizer and image processor, as OpenAI's repositories hold it."""
    side = model.config.vision_config.image_size
    save_weights(model, directory, dtype=dtype)
    tokenizer.save_pretrained(directory)
    write_json(
        directory / "preprocessor_config.json",
        image_preprocessing(
            "CLIPImageProcessor",
            {"shortest_edge": side},
            do_center_crop=True,
            crop_size={"height": side, "width": side},
            processor_class="CLIPProcessor",
        ),
    )


def build_blip(directory: Path) -> None:
    """BLIP's image-text matching: images of 32 x 32 px. Source of the layout:
    Salesforce/blip-itm-base-coco.
    """
    from transformers import BlipConfig, BlipForImageTextRetrieval

    tokenizer = bert_tokenizer()
    model = BlipForImageTextRetrieval(
        BlipConfig(
            text_config={
                "vocab_size": len(tokenizer) + 2,  # room for [DEC] and [ENC], as in the original
                "hidden_size": 32,
                "encoder_hidden_size": 32,
                "intermediate_size": 64,
                "projection_dim": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "bos_token_id": len(tokenizer),
                "eos_token_id": 2,
                "pad_token_id": tokenizer.pad_token_id,
                "sep_token_id": tokenizer.sep_token_id,
            },
            vision_config={
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": 32,
                "patch_size": 8,
                "initializer_range": (
                    0.02
                ),  # the default of 1e-10 would leave the vision tower at zero
            },
            projection_dim=32,
            image_text_hidden_size=32,
        )
    )
    initialise(model, 31)
    save_blip(model, tokenizer, directory)


def save_blip(
    model: Any, tokenizer: "PreTrainedTokenizerBase", directory: Path, dtype: str = "float32"
) -> None:
    """Saves a BlipForImageTextRetrieval with its tokenizer and image processor, as Salesforce's
    repositories hold it.
    """
    side = model.config.vision_config.image_size
    save_weights(model, directory, dtype=dtype)
    tokenizer.save_pretrained(directory)
    write_json(
        directory / "preprocessor_config.json",
        image_preprocessing(
            "BlipImageProcessor", {"height": side, "width": side}, processor_class="BlipProcessor"
        ),
    )


# The chat templates of the hub's repositories. They render a turn's images first, then its texts.
IMAGES_THEN = (
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{"
    " '<image>\\n' }}{% endfor %}"
)
TEXTS = "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
VICUNA_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{"
    f" message['role'].upper() + ': '}}}}{{% endif %}}{IMAGES_THEN}{{% if message['role'] !="
    f" 'assistant' %}}{TEXTS}{{{{ content['text'] + ' '}}}}{{% endfor %}}{{% else %}}{TEXTS}{{%"
    " generation %}{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}{% endif"
    " %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
MISTRAL_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{ '<<SYS>>\\n' +"
    " message['content'][0]['text'] + '\\n<</SYS>>\\n\\n' }}{% elif message['role'] == 'user'"
    f" %}}{{{{ '[INST] ' }}}}{IMAGES_THEN}{TEXTS}{{{{ content['text'] }}}}{{% endfor %}}{{{{ '"
    " [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' ' +"
    " message['content'][0]['text'] + '</s> ' }}{% else %}{{ raise_exception('Only user and"
    " assistant roles are supported!') }}{% endif %}{% endfor %}"
)
LLAMA3_LLAVA_TEMPLATE = (
    "{% for message in messages %}{{ '<|start_header_id|>' + message['role'] +"
    f" '<|end_header_id|>\\n\\n' }}}}{IMAGES_THEN}{TEXTS}{{{{ content['text'] }}}}{{% endfor"
    " %}{{ '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}{{"
    " '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
LLAMA3_TEMPLATE = (
    "{% for message in messages %}{% if loop.first %}{{ bos_token }}{% endif %}{{"
    " '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] |"
    " trim + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}{{"
    " '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)


def hub_llava_name(name: str) -> str:
    """The name that a LLaVA parameter has in the hub's checkpoints, and that vLLM reads.

    Args:
        name: its name in the model.
    """
    if name.startswith("lm_head."):
        return f"language_model.{name}"
    name = name.removeprefix("model.")
    if name.startswith("language_model."):
        return "language_model.model." + name.removeprefix("language_model.")
    if name.startswith("vision_tower.") and not name.startswith("vision_tower.vision_model."):
        return "vision_tower.vision_model." + name.removeprefix("vision_tower.")
    return name


@dataclass(frozen=True)
class Llava:
    """What one LLaVA differs in from another.

    Attributes:
        seed: of all its weights.
        language: `llama`, `mistral` or `llama3`.
        hidden_size: of the language model; its heads have 32 dimensions (vLLM on a CPU refuses
            fewer).
        grammar: how it answers.
        chat_template: of its processor.
        tiles: whether it is a LLaVA-Next, which also looks at an image in tiles.
    """

    seed: int
    language: str
    hidden_size: int
    grammar: Grammar
    chat_template: str
    tiles: bool = True


LLAVAS = {
    "llava-1.5": Llava(
        40, "llama", 64, answer_grammar(0.5, yes_no=0.9), VICUNA_TEMPLATE, tiles=False
    ),
    "llava-v1.6-mistral": Llava(41, "mistral", 64, answer_grammar(0.6), MISTRAL_TEMPLATE),
    "llava-v1.6-vicuna-7b": Llava(
        42, "llama", 64, answer_grammar(0.55, adjective=0.25), VICUNA_TEMPLATE
    ),
    "llava-v1.6-vicuna-13b": Llava(
        43, "llama", 96, answer_grammar(0.55, adjective=0.6, place=0.65), VICUNA_TEMPLATE
    ),
    "llama3-llava-next": Llava(
        44, "llama3", 64, answer_grammar(0.6, place=0.25), LLAMA3_LLAVA_TEMPLATE
    ),
}


def language_config(
    language: str, vocabulary: int, hidden_size: int, tokenizer: "PreTrainedTokenizerBase"
) -> Any:
    """Configuration of a tiny Llama or Mistral.

    Args:
        language: `llama`, `mistral` or `llama3`.
        vocabulary: tokens, those beyond the tokenizer's included.
        hidden_size: a multiple of 32.
        tokenizer: for the ids of its special tokens.
    """
    from transformers import LlamaConfig, MistralConfig

    heads = hidden_size // 32
    shape: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": hidden_size,
        "intermediate_size": 2 * hidden_size,
        "num_hidden_layers": 2,
        "num_attention_heads": heads,
        "head_dim": 32,
        "initializer_range": 0.15,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": False,
    }
    if language == "mistral":
        return MistralConfig(
            **shape,
            num_key_value_heads=1,
            rms_norm_eps=1e-5,
            max_position_embeddings=4096,
            sliding_window=None,
        )
    if language == "llama3":
        return LlamaConfig(
            **shape,
            num_key_value_heads=1,
            rms_norm_eps=1e-5,
            max_position_embeddings=4096,
            rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
        )
    return LlamaConfig(
        **shape, num_key_value_heads=heads, rms_norm_eps=1e-5, max_position_embeddings=4096
    )


def build_llava(directory: Path, name: str) -> None:
    """A LLaVA-1.5 or LLaVA-Next: patches of 14 px; 56 px or tiles of 28 px. Source of the layout:
    llava-hf's repositories.

    Args:
        directory: to write to.
        name: one of `LLAVAS`.
    """
    from transformers import (
        CLIPVisionConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaNextConfig,
        LlavaNextForConditionalGeneration,
    )

    kind = LLAVAS[name]
    make_tokenizer = llama3_tokenizer if kind.language == "llama3" else llama_tokenizer
    tokenizer = make_tokenizer(llava=True)
    image_token = tokenizer.convert_tokens_to_ids(IMAGE)
    side = 28 if kind.tiles else 56
    config: dict[str, Any] = {
        "text_config": language_config(
            kind.language, math.ceil(len(tokenizer) / 64) * 64, kind.hidden_size, tokenizer
        ),
        "vision_config": CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            projection_dim=32,
            num_hidden_layers=2,
            num_attention_heads=1,
            image_size=side,
            patch_size=14,
        ),
        "image_token_index": image_token,
        "pad_token_id": tokenizer.pad_token_id,
        "projector_hidden_act": "gelu",
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "tie_word_embeddings": False,
    }
    pinpoints = [
        [side, 2 * side],
        [2 * side, side],
        [2 * side, 2 * side],
        [3 * side, side],
        [side, 3 * side],
    ]
    if kind.tiles:
        config["image_grid_pinpoints"] = pinpoints
        config["use_image_newline_parameter"] = True
        model: Any = LlavaNextForConditionalGeneration(LlavaNextConfig(**config))
    else:
        config["image_seq_length"] = (side // 14) ** 2
        model = LlavaForConditionalGeneration(LlavaConfig(**config))
    initialise(model, kind.seed)
    wire_grammar(model, tokenizer, kind.grammar, seed=100 + kind.seed)
    save_llava(model, tokenizer, directory, kind.chat_template)


def save_llava(
    model: Any,
    tokenizer: "PreTrainedTokenizerBase",
    directory: Path,
    chat_template: str,
    dtype: str = "float32",
) -> None:
    """Saves a LLaVA with its processor, as llava-hf's repositories hold it.

    Args:
        model: a `LlavaForConditionalGeneration` or a `LlavaNextForConditionalGeneration`.
        tokenizer: its tokenizer.
        directory: created where it is missing.
        chat_template: of its processor.
        dtype: of the weights in the file.
    """
    from transformers import GenerationConfig

    vision = model.config.vision_config
    side, tiles = vision.image_size, model.config.model_type == "llava_next"
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    save_weights(model, directory, hub_llava_name, dtype)
    processor_class = "LlavaNextProcessor" if tiles else "LlavaProcessor"
    save_tokenizer(tokenizer, directory, processor_class)
    # The template is the processor's alone, in the file that the hub's repositories have. As
    # `chat_template.jinja` it would become the tokenizer's too, and whoever gives it turns as plain
    # strings gets prompts without their text.
    write_json(directory / "chat_template.json", {"chat_template": chat_template})
    write_json(
        directory / "processor_config.json",
        {
            "image_token": IMAGE,
            "num_additional_image_tokens": 1,
            "patch_size": vision.patch_size,
            "processor_class": processor_class,
            "vision_feature_select_strategy": "default",
        },
    )
    more: dict[str, Any] = {"do_center_crop": True, "crop_size": {"height": side, "width": side}}
    if tiles:
        pinpoints = [list(size) for size in model.config.image_grid_pinpoints]
        more |= {
            "aspect_ratio_setting": "anyres",
            "do_pad": True,
            "image_grid_pinpoints": pinpoints,
        }
    write_json(
        directory / "preprocessor_config.json",
        image_preprocessing(
            "LlavaNextImageProcessor" if tiles else "CLIPImageProcessor",
            {"shortest_edge": side},
            **more,
            processor_class=processor_class,
        ),
    )


def save_tokenizer(
    tokenizer: "PreTrainedTokenizerBase", directory: Path, processor_class: str | None = None
) -> None:
    """Saves a tokenizer and, in its configuration, the processor that it belongs to."""
    tokenizer.save_pretrained(directory)
    if processor_class:
        path = directory / "tokenizer_config.json"
        write_json(
            path,
            json.loads(path.read_text(encoding="utf-8")) | {"processor_class": processor_class},
        )


def build_instruct_llm(directory: Path) -> None:
    """A Llama 3 that asks questions about images. Source of the layout:
    meta-llama/Meta-Llama-3-8B-Instruct.
    """
    from transformers import GenerationConfig, LlamaForCausalLM

    tokenizer = llama3_tokenizer()
    config = language_config("llama3", math.ceil(len(tokenizer) / 64) * 64, 64, tokenizer)
    model = LlamaForCausalLM(config)
    initialise(model, 50)
    wire_grammar(model, tokenizer, question_grammar(), seed=150)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, do_sample=True
    )
    save_weights(model, directory)
    tokenizer.chat_template = LLAMA3_TEMPLATE
    save_tokenizer(tokenizer, directory)


def build_image_reward(directory: Path) -> None:
    """ImageReward, from the script beside this one."""
    importlib.import_module("build_reward_models").build_image_reward(
        directory, tokenizer=bert_tokenizer()
    )


def build_armorm(directory: Path) -> None:
    """ArmoRM, from the script beside this one."""
    importlib.import_module("build_reward_models").build_armorm(
        directory, tokenizer=llama3_tokenizer()
    )


def build_sentence_embedding(directory: Path) -> None:
    """A BERT that embeds sentences by mean pooling. Source of the layout:
    sentence-transformers/all-MiniLM-L6-v2.
    """
    import torch
    from transformers import BertConfig, BertModel

    tokenizer = bert_tokenizer()
    config = BertConfig(
        vocab_size=math.ceil(len(tokenizer) / 64) * 64,
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
    kinds = ("Transformer", "Pooling", "Normalize")
    modules = [
        {
            "idx": number,
            "name": str(number),
            "path": f"{number}_{kind}" if number else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for number, kind in enumerate(kinds)
    ]
    write_json(directory / "modules.json", modules)
    write_json(
        directory / "sentence_bert_config.json", {"max_seq_length": 256, "do_lower_case": False}
    )
    (directory / "1_Pooling").mkdir()
    modes = {
        f"pooling_mode_{mode}": mode == "mean_tokens"
        for mode in ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
    }
    write_json(
        directory / "1_Pooling" / "config.json",
        {"word_embedding_dimension": config.hidden_size, **modes},
    )


BUILDERS: dict[str, Callable[[Path], None]] = {
    "stable-diffusion-3-medium": build_stable_diffusion_3,
    "clip": build_clip,
    "blip": build_blip,
    **{name: functools.partial(build_llava, name=name) for name in LLAVAS},
    "instruct-llm": build_instruct_llm,
    "image-reward": build_image_reward,
    "armorm": build_armorm,
    "sentence-embedding": build_sentence_embedding,
}


# --- the command


def source_digest(name: str) -> str:
    """Digest of what a checkpoint is made from: this file (and that of the reward models), Python's
    and the libraries' versions.
    """
    from importlib.metadata import version

    digest = hashlib.sha256(Path(__file__).read_bytes())
    if name in ("image-reward", "armorm"):
        digest.update(Path(__file__).with_name("build_reward_models.py").read_bytes())
    for library in ("torch", "transformers", "diffusers", "tokenizers", "safetensors"):
        digest.update(f"{library} {version(library)}\n".encode())
    return digest.hexdigest()


def listing(directory: Path) -> dict[str, int]:
    """The files below a directory and their sizes in bytes."""
    return {
        path.relative_to(directory).as_posix(): path.stat().st_size
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def is_complete(directory: Path, stamp: Path, digest: str) -> bool:
    """Whether a checkpoint was built from the same source and no file of it is missing or cut."""
    try:
        record = json.loads(stamp.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(record == {"source": digest, "files": listing(directory)})


def same_content(one: Path, other: Path) -> bool:
    """Whether two directories hold the same files with the same bytes."""
    files = listing(one)
    return files == listing(other) and all(
        (one / name).read_bytes() == (other / name).read_bytes() for name in files
    )


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds an exclusive lock, so that two builds at the same time do not disturb each other."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def build(name: str, output: Path) -> str:
    """Builds one checkpoint in a temporary folder and moves it into place.

    A checkpoint that comes out as it was keeps its files and their times, so nothing that depends
    on it is redone.

    Args:
        name: one of `BUILDERS`.
        output: the folder that the checkpoint's folder is in.

    Returns:
        `there`, `same` or `built`.
    """
    directory, stamp = output / name, output / ".stamps" / f"{name}.json"
    digest = source_digest(name)
    if is_complete(directory, stamp, digest):
        return "there"
    stamp.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=output))
    try:
        # In the temporary folder, so that an interrupted build never looks like a checkpoint.
        fresh = temporary / "new"
        fresh.mkdir()
        BUILDERS[name](fresh)
        outcome = "same" if directory.is_dir() and same_content(fresh, directory) else "built"
        if outcome == "built":
            if directory.exists():
                directory.rename(temporary / "old")
            fresh.rename(directory)
        for path in directory.rglob("*.safetensors"):
            path.chmod(0o644)  # the library makes them readable to their owner only
        temporary_stamp = temporary / "stamp"
        write_json(temporary_stamp, {"source": digest, "files": listing(directory)})
        temporary_stamp.replace(stamp)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return outcome


def main(arguments: list[str] | None = None) -> int:
    """Builds what the command line asks for, and prints a line a checkpoint."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--output", type=Path, required=True, help="folder for the checkpoints, such as demo/models"
    )
    parser.add_argument(
        "--only", nargs="+", choices=list(BUILDERS), metavar="NAME", help=", ".join(BUILDERS)
    )
    options = parser.parse_args(arguments)
    # Before torch is imported: one thread is faster for models this small, and no hub is asked for
    # anything.
    for variable, value in (
        ("OMP_NUM_THREADS", "1"),
        ("HF_HUB_OFFLINE", "1"),
        ("TOKENIZERS_PARALLELISM", "false"),
    ):
        os.environ.setdefault(variable, value)
    names = options.only or list(BUILDERS)
    options.output.mkdir(parents=True, exist_ok=True)
    with locked(options.output / ".lock"):
        for name in names:
            start = time.monotonic()
            outcome = build(name, options.output)
            size = sum(listing(options.output / name).values()) / 1e6
            print(
                f"{name:27s} {outcome:6s} {size:6.2f} MB {time.monotonic() - start:6.2f} s",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
