"""Tokenizers of the kinds that the architectures have, with one token for each of some words."""

import functools
import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tiny.words import corpus

if TYPE_CHECKING:
    import tokenizers
    from transformers import PreTrainedTokenizerBase

METASPACE = "▁"  # how SentencePiece writes a space
BYTE_SPACE = "Ġ"  # how byte-level BPE writes a space
TWO_LINE_BREAKS = "ĊĊ"  # how byte-level BPE writes "\n\n"
PRINTABLE = tuple(chr(code) for code in range(0x21, 0x7F))

LLAMA3_BEGIN, LLAMA3_END_OF_TURN = "<|begin_of_text|>", "<|eot_id|>"
CLIP_BEGIN, CLIP_END = "<|startoftext|>", "<|endoftext|>"
LLAMA3_SPECIAL_TOKENS = (
    LLAMA3_BEGIN,
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    LLAMA3_END_OF_TURN,
)
IMAGE, PAD = "<image>", "<pad>"
# What LLaVA appends to its language model's vocabulary.
LLAVA_TOKENS: dict[str, Any] = {
    "pad_token": PAD,
    "extra_special_tokens": {"image_token": IMAGE},
}

# Llama 3's split of a text before byte-level BPE (the `pre_tokenizer` of its tokenizer.json).
# Without it "\n\n" is two tokens.
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

BERT_SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
BERT_ENDINGS = (
    "s",
    "es",
    "ed",
    "er",
    "ing",
    "ly",
    "y",
    "al",
    "ful",
    "less",
    "ness",
    "ment",
    "tion",
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


def padded_vocabulary(tokenizer: "PreTrainedTokenizerBase") -> int:
    """Rows of an embedding for a tokenizer's tokens: a multiple of 64, as GPUs like it."""
    return math.ceil(len(tokenizer) / 64) * 64


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
        **(LLAVA_TOKENS if llava else {}),
    )


def llama3_backend(
    tokens: Sequence[str], merges: Sequence[tuple[str, str]], ignore_merges: bool
) -> "tokenizers.Tokenizer":
    """Llama 3's byte-level BPE with its split of texts and its special tokens behind the others.

    Args:
        tokens: in the order of their ids.
        merges: in order of priority.
        ignore_merges: whether a word that is a token is taken whole, whatever the merges say.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {token: number for number, token in enumerate(tokens)}
    backend = Tokenizer(
        models.BPE(vocab=vocabulary, merges=list(merges), ignore_merges=ignore_merges)
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in LLAMA3_SPECIAL_TOKENS]
    )
    return backend


def llama3_tokenizer(llava: bool = False, words: Sequence[str] = ()) -> "PreTrainedTokenizerBase":
    """A tokenizer of the Llama 3 kind: byte-level BPE, `<|begin_of_text|>` before a text,
    `<|eot_id|>` after a turn.

    Args:
        llava: whether `<pad>` and `<image>` follow Llama 3's own special tokens.
        words: as for `llama_tokenizer`.
    """
    from tokenizers import pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = [word for word in words or corpus() if word[0].isalpha()]
    units = [*words, *(BYTE_SPACE + word for word in words), TWO_LINE_BREAKS]
    tokens, merges = train_bpe(tuple(units), tuple(sorted(pre_tokenizers.ByteLevel.alphabet())))
    backend = llama3_backend(tokens, merges, ignore_merges=True)
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
        **(LLAVA_TOKENS if llava else {}),
    )


def llama3_byte_tokenizer() -> "PreTrainedTokenizerBase":
    """A tokenizer of the Llama 3 kind with one token a byte, and one for the "\\n\\n" that ends a
    header.
    """
    from tokenizers import pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), TWO_LINE_BREAKS]
    return PreTrainedTokenizerFast(
        tokenizer_object=llama3_backend(tokens, [("Ċ", "Ċ")], ignore_merges=False),
        clean_up_tokenization_spaces=False,
        bos_token=LLAMA3_BEGIN,
        eos_token=LLAMA3_END_OF_TURN,
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
    words = list(dict.fromkeys(word.lower() for word in words or corpus() if word.isalpha()))
    return new_bert_tokenizer([*words, *("##" + ending for ending in BERT_ENDINGS)], max_length=512)


def bert_letter_tokenizer() -> "PreTrainedTokenizerBase":
    """A BERT tokenizer whose words are single letters, digits and signs."""
    return new_bert_tokenizer([], max_length=64)


def new_bert_tokenizer(words: Sequence[str], max_length: int) -> "PreTrainedTokenizerBase":
    """A BERT tokenizer that spells letter by letter what is not one of the words.

    Args:
        words: and endings, which begin with "##".
        max_length: tokens of a text.
    """
    from transformers import BertTokenizer

    letters = [letter for letter in PRINTABLE if not letter.isupper()]
    tokens = [*BERT_SPECIAL_TOKENS, *letters, *("##" + letter for letter in letters), *words]
    return BertTokenizer(
        vocab={token: number for number, token in enumerate(dict.fromkeys(tokens))},
        model_max_length=max_length,
    )
