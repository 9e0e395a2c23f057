"""Text from a local model, each answer from its own seed: by transformers, or by vLLM's offline
engine.

Both take a prompt as one string, made from the model's own chat template, which the tokenizer turns
into ids with exactly one BOS; both sample from the softmax of the logits over the temperature, cut
to the nucleus, and end at the same tokens. With temperature 0 they give the same ids. Importing
this module imports neither.
"""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from lib import weights
from lib.data.image_files import read_image
from lib.errors import UserError
from lib.jobs.job import Item, ItemError, ShardJob


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn. `temperature` 0 is greedy; `max_new_tokens` counts the end token too;
    `beams` above 1 search instead.
    """

    max_new_tokens: int
    temperature: float
    top_p: float = 1.0
    beams: int = 1


@dataclass(frozen=True)
class Request:
    """What a model is asked: the user's words, their image if there is one, and the seed of this
    answer alone.

    `system`: what stands before a prompt of the form "USER: ... ASSISTANT:".
    """

    text: str
    seed: int
    image: Path | None = None
    system: str = ""


@dataclass(frozen=True)
class Generated:
    """An answer without special tokens or surrounding blanks, why it ended ("stop" or "length"),
    and its tokens, the end token included.
    """

    text: str
    finish_reason: str
    tokens: int


class Generator(Protocol):
    """A loaded model; `processor` is its processor, or its tokenizer if it reads no images."""

    processor: Any

    def generate(self, requests: Sequence[Request]) -> list[Generated]:
        """One answer a request, in order, computed as one batch."""
        ...


def load_generator(
    backend: str,
    settings: dict[str, Any],
    device: str,
    sampling: Sampling,
    *,
    with_images: bool,
    batch_size: int,
    max_model_len: int,
) -> Generator:
    """Loads a model.

    Args:
        backend: "transformers" or "vllm".
        settings: the configured model, with the keys "model", "revision" and "dtype".
        device: "cpu" or "cuda".
        sampling: how its answers are drawn.
        with_images: whether it is a vision-language model.
        batch_size: the most requests that `generate` will be given at once.
        max_model_len: vLLM only: tokens of prompt, image and answer together.

    Errors:
        UserError: no GPU where one is configured, or a model that the backend cannot load or ask.
    """
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "device: 'cuda' is configured, but this machine shows no CUDA GPU. Set `device: cpu`,"
            " or ask for a GPU."
        )
    folder = weights.fetch(settings["model"], settings["revision"])
    if sampling.beams > 1 and (backend == "vllm" or sampling.temperature):
        raise ValueError("beams are searched by transformers alone, and without a temperature")
    if backend == "vllm":
        return VllmGenerator(
            folder, settings["dtype"], device, sampling, with_images, batch_size, max_model_len
        )
    return TransformersGenerator(folder, settings["dtype"], device, sampling, with_images)


def load_for_job(
    job: ShardJob,
    backend: str,
    model: dict[str, Any],
    sampling: Sampling,
    *,
    with_images: bool,
    batch_size: int,
    max_model_len: int,
    of: str,
) -> Generator:
    """`load_generator` for a rule's job, whose record tells of batches that mix items. `of`: what
    the items are ("prompts").
    """
    if batch_size > 1:
        job.note(f"batches of up to {batch_size} {of}: low bits may depend on what shares a batch")
    return load_generator(
        backend,
        model,
        job.device,
        sampling,
        with_images=with_images,
        batch_size=batch_size,
        max_model_len=max_model_len,
    )


def generate_for_job(
    job: ShardJob, generator: Generator, batch: Sequence[Item], what: str
) -> list[dict[str, Any]]:
    """An answer to each item's Request, as journals hold it; the record tells of texts with a
    special token. `what`: what the texts are.
    """
    for item in batch:
        if neutralised(item.inputs.text, generator.processor) != item.inputs.text:
            job.note(
                f"{item.id}: the {what} holds a special token of this model; it is given to it with"
                " a blank inside, as text"
            )
    return [asdict(answer) for answer in generator.generate([item.inputs for item in batch])]


def load_processor(folder: Path, with_images: bool) -> Any:
    """The model's processor, or its tokenizer if it reads no images; a UserError if it has no chat
    template.
    """
    from transformers import AutoProcessor, AutoTokenizer

    try:
        processor = (AutoProcessor if with_images else AutoTokenizer).from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder}: its {'processor' if with_images else 'tokenizer'} cannot be loaded:"
            f" {_first_line(error)}"
        ) from error
    if not processor.chat_template:
        raise UserError(
            f"{folder}: the model has no chat template, so there is no way to ask it. Choose a"
            " model that is made to answer."
        )
    return processor


def tokenizer_of(processor: Any) -> Any:
    """The tokenizer of a processor, or the tokenizer itself."""
    return getattr(processor, "tokenizer", processor)


def special_tokens(processor: Any) -> set[str]:
    """The tokens that a string must not be able to contain as text: BOS, EOS, turn marks, the image
    token.
    """
    tokenizer = tokenizer_of(processor)
    found = {
        str(token) for token in tokenizer.added_tokens_decoder.values() if token.special
    } | set(tokenizer.all_special_tokens)
    return found | {token for token in [getattr(processor, "image_token", None)] if token}


def neutralised(text: str, processor: Any) -> str:
    """The text with a blank inside each of the model's special tokens ("< image>"), so that it is
    tokenized as text, and is data only.
    """
    special = sorted(
        (token for token in special_tokens(processor) if len(token) > 1), key=len, reverse=True
    )
    while found := [token for token in special if token in text]:
        text = text.replace(found[0], f"{found[0][0]} {found[0][1:]}")
    return text


def with_system(prompt: str, system: str) -> str:
    """A prompt of Vicuna's form ("USER: ... ASSISTANT:") with `system` before it. Other forms have
    their own place for it, and stay.
    """
    return f"{system} {prompt}" if system and prompt.startswith("USER:") else prompt


def chat_prompt(processor: Any, text: str, with_image: bool, system: str = "") -> str:
    """One user message in the model's chat template, as a string whose ids (special tokens added as
    usual) hold BOS once, at the start.

    Some templates write BOS themselves and some tokenizers add it; where both do, or neither,
    models quietly answer worse.
    """
    text = neutralised(text, processor)
    content: Any = [{"type": "image"}, {"type": "text", "text": text}] if with_image else text
    prompt = str(
        processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
    )
    tokenizer = tokenizer_of(processor)
    if tokenizer.bos_token is None:
        return with_system(prompt, system)
    prompt = with_system(prompt.removeprefix(tokenizer.bos_token), system)
    adds_bos = tokenizer(prompt)["input_ids"][:1] == [tokenizer.bos_token_id]
    return prompt if adds_bos else tokenizer.bos_token + prompt


def end_tokens(folder: Path, tokenizer: Any) -> list[int]:
    """The ids that end an answer: those of the model's generation settings, and the tokenizer's."""
    from transformers import GenerationConfig

    try:
        configured = GenerationConfig.from_pretrained(folder).eos_token_id
    except OSError:
        configured = None
    ids = configured if isinstance(configured, list) else [configured]
    return sorted({token for token in [*ids, tokenizer.eos_token_id] if token is not None})


def _finished(tokenizer: Any, ids: list[int], ends: Sequence[int]) -> Generated:
    """The answer in a row of new token ids, which may go on after an end token with padding."""
    end = next((position for position, token in enumerate(ids) if token in ends), None)
    ids = ids if end is None else ids[: end + 1]
    text = tokenizer.decode(ids, skip_special_tokens=True).strip()
    return Generated(text, "length" if end is None else "stop", len(ids))


def _first_line(error: BaseException) -> str:
    return next(
        (line.strip() for line in str(error).split("\n") if line.strip()), type(error).__name__
    )


class TransformersGenerator:
    """A model run by transformers' `generate`. Several requests are one left-padded batch."""

    def __init__(
        self, folder: Path, dtype: str, device: str, sampling: Sampling, with_images: bool
    ) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

        self.sampling = sampling
        self.device = device
        self.processor = load_processor(folder, with_images)
        self.tokenizer = tokenizer_of(self.processor)
        self.tokenizer.padding_side = (  # right padding would stand between a prompt and its answer
            "left"
        )
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.ends = end_tokens(folder, self.tokenizer)
        architecture = AutoModelForImageTextToText if with_images else AutoModelForCausalLM
        try:
            model = architecture.from_pretrained(
                folder, dtype=getattr(torch, dtype), use_safetensors=True
            )
        except (OSError, ValueError) as error:
            raise UserError(
                f"{folder}: transformers cannot load this model: {_first_line(error)}"
            ) from error
        self.model = model.to(device).eval()

    def generate(self, requests: Sequence[Request]) -> list[Generated]:
        """One answer a request, in order."""
        import torch
        from transformers import LogitsProcessorList

        prompts = [
            chat_prompt(self.processor, request.text, request.image is not None, request.system)
            for request in requests
        ]
        images = [read_image(request.image) for request in requests if request.image is not None]
        inputs = self.processor(
            text=prompts,
            padding=len(prompts) > 1,
            return_tensors="pt",
            **({"images": images} if images else {}),
        )
        inputs = inputs.to(self.device)
        if images:
            inputs["pixel_values"] = inputs["pixel_values"].to(self.model.dtype)
        draw = LogitsProcessorList(
            [_seeded_draw(self.sampling, [request.seed for request in requests])]
            if self.sampling.temperature
            else []
        )
        with torch.inference_mode():
            ids = self.model.generate(
                **inputs,
                do_sample=False,  # the drawing is in `draw`; what is left is to take the maximum
                num_beams=self.sampling.beams,
                temperature=None,
                top_p=None,
                top_k=None,
                logits_processor=draw,
                max_new_tokens=self.sampling.max_new_tokens,
                eos_token_id=self.ends,
                pad_token_id=self.tokenizer.pad_token_id,
            )
        return [
            _finished(self.tokenizer, row, self.ends)
            for row in ids[:, inputs["input_ids"].shape[1] :].tolist()
        ]


def _seeded_draw(sampling: Sampling, seeds: Sequence[int]) -> Any:
    """A logits processor after which the maximum is a sample (Gumbel-max), each row drawn from its
    own generator.

    transformers' own sampling draws all rows of a batch from one global generator, so that an
    answer would depend on what shares its batch. The noise is drawn on the CPU, so that it is the
    same on every device.
    """
    import torch
    from transformers import LogitsProcessor, TopPLogitsWarper

    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    nucleus = TopPLogitsWarper(top_p=sampling.top_p) if sampling.top_p < 1 else None

    class SeededDraw(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped here
        def __call__(self, input_ids: Any, scores: Any) -> Any:
            scores = scores.float() / sampling.temperature
            if nucleus is not None:
                scores = nucleus(input_ids, scores)
            exponential = torch.stack(
                [
                    torch.empty(scores.shape[-1]).exponential_(generator=generator)
                    for generator in generators
                ]
            )
            return scores - exponential.log().to(scores.device)

    return SeededDraw()


class VllmGenerator:
    """A model run by vLLM's offline engine, in this process."""

    def __init__(
        self,
        folder: Path,
        dtype: str,
        device: str,
        sampling: Sampling,
        with_images: bool,
        batch_size: int,
        max_model_len: int,
    ) -> None:
        # In this process, so that a killed job leaves no engine behind on the GPU, and requests are
        # scheduled in the order given.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING" if device == "cuda" else "ERROR")
        if device == "cpu":
            os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
            # Bound threads of two jobs would share one core while the others idle.
            os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        from vllm import LLM, SamplingParams

        self.processor = load_processor(folder, with_images)
        self.tokenizer = tokenizer_of(self.processor)
        self.ends = end_tokens(folder, self.tokenizer)
        self.sampling = sampling
        self._parameters = SamplingParams
        try:
            self.llm = LLM(
                str(folder),
                dtype=dtype,
                max_model_len=max_model_len,
                max_num_seqs=min(batch_size, 256),
                enforce_eager=device == "cpu",
                # A prefix taken from another request's cache was computed in other pieces: low bits
                # would depend on the order.
                enable_prefix_caching=False,
                limit_mm_per_prompt={"image": 1} if with_images else {},
                mm_processor_cache_gb=0,  # no image is asked about twice
                load_format="safetensors",
                seed=0,
                disable_log_stats=True,
            )
        except (ValueError, RuntimeError) as error:
            raise UserError(
                f"{folder}: vLLM cannot load this model: {_vllm_reason(error)}"
            ) from error

    def generate(self, requests: Sequence[Request]) -> list[Generated]:
        """One answer a request, in order."""
        sampling = self.sampling
        prompts = []
        for request in requests:
            prompt: dict[str, Any] = {
                "prompt": chat_prompt(
                    self.processor, request.text, request.image is not None, request.system
                )
            }
            if request.image is not None:
                prompt["multi_modal_data"] = {"image": read_image(request.image)}
            prompts.append(prompt)
        parameters = [
            self._parameters(
                max_tokens=sampling.max_new_tokens,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                seed=request.seed,
                stop_token_ids=self.ends,
                detokenize=False,
            )
            for request in requests
        ]
        try:
            outputs = self.llm.generate(prompts, parameters, use_tqdm=False)
        except Exception:
            # What is left in the engine would be answered along with the next batch.
            engine = self.llm.llm_engine
            engine.abort_request(list(engine.output_processor.request_states), internal=True)
            raise
        answers = []
        for output in outputs:
            completion = output.outputs[0]
            if completion.finish_reason not in ("stop", "length"):
                raise ItemError(
                    f"vLLM ended the answer for the reason '{completion.finish_reason}'"
                )
            answers.append(_finished(self.tokenizer, list(completion.token_ids), self.ends))
        return answers


def _vllm_reason(error: BaseException) -> str:
    """The line of vLLM's message that says what is wrong; pydantic puts others before it."""
    lines = [line.strip() for line in str(error).split("\n") if line.strip()]
    return next(
        (line for line in lines if line.startswith("Value error")),
        lines[0] if lines else type(error).__name__,
    )
