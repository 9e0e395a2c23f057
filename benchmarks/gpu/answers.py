"""LLaVA-1.6 of Mistral 7B by the workflow's transformers backend: one answer at a time, and 32."""

import gc
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gpu.llava import new_config, new_model, write_processor
from gpu.pictures_of import write_pictures
from gpu.report import Report, Row, timed
from lib.jobs.memory import free_device_memory

BATCH = 32
QUESTIONS = (
    "What is there?",
    "How many red cats are beside the boat?",
    "Where is the bird, and what is it doing there?",
    "Is there a dog?",
)


#: Imported before the device is the section's own.
LIBRARIES = (
    "lib.models.response_generators.transformers",
    "transformers:LlavaNextForConditionalGeneration",
    "transformers:LlavaNextProcessor",
)


class Answering:
    """The generator that is measured, its requests, and the ids that it answered last."""

    def __init__(self, device: str, folder: Path) -> None:
        from lib.models.response_generators.chat import load_processor
        from lib.models.response_generators.requests import Request, Sampling
        from lib.models.response_generators.transformers import TransformersGenerator
        from tiny.llava import MISTRAL_TEMPLATE
        from tiny.tokenization import llama_tokenizer

        self.device = device
        self.tokens = 128 if device == "cuda" else 4
        tokenizer = llama_tokenizer(llava=True)
        model = new_model(device, "mistral", tiles=True, tokenizer=tokenizer)
        write_processor(folder / "model", model.config, tokenizer, MISTRAL_TEMPLATE)
        # Its constructor would read weights from files.
        generator = TransformersGenerator.__new__(TransformersGenerator)
        generator.sampling = Sampling(self.tokens, temperature=0)
        generator.device = device
        generator.processor = load_processor(folder / "model", with_images=True)
        generator.tokenizer = generator.processor.tokenizer
        generator.tokenizer.padding_side = "left"
        generator.ends = [generator.tokenizer.eos_token_id]
        generator.model = model
        self.generator = generator
        self._generate = model.generate
        self.ids: list[list[int]] = []
        self.prompt_tokens = 0
        model.generate = self._recording
        side = 1024 if device == "cuda" else 64
        pictures = write_pictures(folder / "pictures", 4, side)
        self.requests = [
            Request(QUESTIONS[number % 4], number, pictures[number % len(pictures)])
            for number in range(BATCH)
        ]

    def _recording(self, **inputs: Any) -> Any:
        ids = self._generate(**inputs)
        self.prompt_tokens = inputs["input_ids"].shape[1]
        self.ids = ids[:, self.prompt_tokens :].tolist()
        return ids

    def answer(self, numbers: Sequence[int]) -> list[list[int]]:
        """The new token ids of these requests as one batch."""
        self.generator.generate([self.requests[number] for number in numbers])
        return self.ids


def run(report: Report) -> None:
    """Measures what is missing."""
    with tempfile.TemporaryDirectory() as folder:
        transformers_answers(report, Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        report.measure("vLLM, 256 requests, greedy", lambda: vllm_answers(report, Path(folder)))


def transformers_answers(report: Report, folder: Path) -> None:
    """The transformers backend, whose weights are gone when it returns."""
    answering = Answering(report.device, folder)
    answering.answer([0])
    alone: dict[int, list[int]] = {}
    one = report.measure("one at a time, greedy", lambda: one_at_a_time(answering, alone))
    report.measure("4 at once, greedy", lambda: at_once(answering, one, 4))
    report.measure("32 at once, greedy", lambda: at_once(answering, one))


def vllm_answers(report: Report, folder: Path) -> Row:
    """vLLM's engine with random weights of its own, where it is installed and has a GPU."""
    if report.device != "cuda" or find_spec("vllm") is None:
        why = "vLLM is not installed here, or there is no GPU"
        return {"not_measured": why, "peak_gib": None}
    from vllm import LLM, SamplingParams

    from lib.data.image_files import read_image
    from lib.models.response_generators.chat import chat_prompt, load_processor
    from tiny.llava import MISTRAL_TEMPLATE
    from tiny.tokenization import llama_tokenizer

    gc.collect()  # the other backend's model is in a circle of references
    free_device_memory()
    tokenizer = llama_tokenizer(llava=True)
    config = new_config("mistral", is_real=True, tiles=True, tokenizer=tokenizer)
    write_processor(folder / "model", config, tokenizer, MISTRAL_TEMPLATE)
    processor = load_processor(folder / "model", with_images=True)
    engine = LLM(
        str(folder / "model"),
        load_format="dummy",
        dtype="bfloat16",
        max_model_len=4096,
        max_num_seqs=256,
        enable_prefix_caching=False,
        limit_mm_per_prompt={"image": 1},
        mm_processor_cache_gb=0,
    )
    pictures = [read_image(path) for path in write_pictures(folder / "pictures", 4, 1024)]
    prompts = [
        {
            "prompt": chat_prompt(processor, QUESTIONS[number % 4], with_image=True),
            "multi_modal_data": {"image": pictures[number % 4]},
        }
        for number in range(256)
    ]
    sampling = SamplingParams(max_tokens=128, temperature=0, ignore_eos=True, detokenize=False)
    engine.generate(prompts[:4], sampling, use_tqdm=False)
    seconds, _ = timed("cuda", lambda: engine.generate(prompts, sampling, use_tqdm=False))
    return {"seconds_an_answer": seconds / 256, "tokens_a_second": 256 * 128 / seconds}


def one_at_a_time(answering: Answering, alone: dict[int, list[int]]) -> Row:
    """Two requests apart, and the first again."""

    def work() -> None:
        for number in (0, 1):
            alone[number] = answering.answer([number])[0]

    seconds, _ = timed(answering.device, work)
    again = answering.answer([0])[0]
    return {
        "seconds_an_answer": seconds / 2,
        "tokens_a_second": 2 * answering.tokens / seconds,
        "prompt_tokens": answering.prompt_tokens,
        "new_tokens": answering.tokens,
        "same_ids_again": again == alone[0],
        "ids": [alone[0], alone[1]],
    }


def at_once(answering: Answering, alone: Row | None, number: int = BATCH) -> Row:
    """So many requests as one batch, and whether the first two answer as they do alone."""
    seconds, ids = timed(answering.device, lambda: answering.answer(range(number)))
    row: Row = {
        "seconds_an_answer": seconds / number,
        "tokens_a_second": number * answering.tokens / seconds,
        "prompt_tokens": answering.prompt_tokens,
        "new_tokens": answering.tokens,
    }
    if alone is not None:
        pairs = list(zip(alone["ids"], ids, strict=False))
        row["same_ids_as_alone"] = all(one == other for one, other in pairs)
        row["same_tokens_before_they_part"] = min(shared(one, other) for one, other in pairs)
    return row


def shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids two answers begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (left, right) in pairs if left != right), len(one))
