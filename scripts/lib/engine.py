"""vLLM's engine in this process, kept full: a prompt takes the place of one that ended, and its
picture was read before.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from lib.errors import UserError
from lib.jobs.streams import Take
from lib.loading import check_whole

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")
#: Prompts that are made ready while those before them are answered.
AHEAD = 8
#: What GPUs have to be that vLLM has batch-invariant kernels for (docs.vllm.ai, v0.32.0).
COMPUTE_CAPABILITY = (8, 0)
#: How answers are made independent of each other, as records tell it.
ONE_AT_A_TIME = "one is answered at a time"
BY_KERNELS = "vLLM's batch-invariant kernels compute each as if it were alone"


@dataclass(frozen=True)
class Prompt:
    """What the engine is asked: a text that it turns into ids, what reads the images in it, and
    vLLM's `SamplingParams`.
    """

    text: str
    read_images: Callable[[], "Sequence[Image]"]
    parameters: Any


def has_batch_invariant_kernels(device: str) -> bool:
    """Whether vLLM can compute a prompt as if it were alone, whatever shares the engine."""
    if device != "cuda":
        return False
    import torch

    is_there = torch.cuda.is_available()
    return bool(is_there and torch.cuda.get_device_capability() >= COMPUTE_CAPABILITY)


def independence(device: str) -> str:
    """How answers that are to be deterministic are made so."""
    return BY_KERNELS if has_batch_invariant_kernels(device) else ONE_AT_A_TIME


def places_in_engine(at_once: int, device: str, deterministic: bool) -> int:
    """How many prompts share an engine, of so many that may be answered at once."""
    return 1 if deterministic and not has_batch_invariant_kernels(device) else at_once


def load_engine(
    folder: Path,
    dtype: str,
    device: str,
    places: int,
    max_model_len: int,
    *,
    with_images: bool,
    prefix_caching: bool = False,
    gpus: int = 1,
    deterministic: bool = False,
) -> Any:
    """The `LLM` of a model's folder, for so many prompts at once. `prefix_caching`: whether what
    several prompts begin with, their picture included, is computed once. `gpus`: how many processes
    have a part of each layer, on a GPU each where the device is one. `deterministic`: with
    batch-invariant kernels, where there are any. Errors: UserError where vLLM cannot load it.
    """
    # In this process, so that a killed job leaves no engine behind on the GPU, and requests are
    # scheduled in the order given. Where there are several GPUs, each has a process besides, which
    # ends with this one.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")  # a copy cannot use CUDA
    if deterministic and has_batch_invariant_kernels(device):
        os.environ["VLLM_BATCH_INVARIANT"] = "1"  # vLLM reads it when it is imported
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING" if device == "cuda" else "ERROR")
    if device == "cpu":
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
        # Bound threads of two jobs would share one core while the others idle.
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    from vllm import LLM

    check_whole(folder, with_images)  # vLLM itself lets linear layers be missing
    try:
        return LLM(
            str(folder),
            dtype=dtype,
            max_model_len=max_model_len,
            max_num_seqs=places,
            tensor_parallel_size=gpus,
            enforce_eager=device == "cpu",
            # A prefix of another prompt's was computed in other pieces: low bits depend on the
            # order.
            enable_prefix_caching=prefix_caching,
            limit_mm_per_prompt={"image": 1} if with_images else {},
            # What the next question's picture is made into is that of the one before.
            mm_processor_cache_gb=1 if prefix_caching else 0,
            load_format="safetensors",
            trust_remote_code=False,
            seed=0,
            disable_log_stats=True,
        )
    except Exception as error:
        raise UserError(f"{folder}: vLLM cannot load this model: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """The line of vLLM's message that says what is wrong; pydantic puts others before it."""
    lines = [line.strip() for line in str(error).split("\n") if line.strip()]
    return next(
        (line for line in lines if line.startswith("Value error")),
        lines[0] if lines else type(error).__name__,
    )


def sampling_parameters(**settings: Any) -> Any:
    """vLLM's `SamplingParams` of an answer that is wanted whole, as ids."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(**settings, detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY)


class EngineStream(Generic[T]):
    """Prompts on their way through the engine of an `LLM` in this process."""

    def __init__(self, llm: Any, places: int, prompt_of: Callable[[T], Prompt]) -> None:
        """`places`: how many prompts the engine has at once; `prompt_of`: what it is asked for an
        item.
        """
        self.engine, self.places, self.prompt_of = llm.llm_engine, places, prompt_of
        self._numbers = count()
        self._ready: deque[tuple[T, Future[tuple[Any, Any]]]] = deque()
        self._asked: dict[str, T] = {}

    def run(self, take: Take[T]) -> Iterator[Sequence[tuple[T, Any]]]:
        """Items that ended together, each with vLLM's `RequestOutput` or what it failed of.

        Before each step the engine is given as many as there are places for, and is waited with
        until those are ready: so what is computed together depends on the items' order and their
        answers' lengths, and not on how fast pictures are read.
        """
        # Pictures are read side by side; the renderer takes one prompt at a time.
        with ThreadPoolExecutor(os.cpu_count()) as readers, ThreadPoolExecutor(1) as renderer:
            try:
                while True:
                    taken = take(self.places + min(self.places, AHEAD) - self._on_their_way)
                    self._ready += [
                        (item, self._prepared(item, readers, renderer)) for item in taken
                    ]
                    ended = self._fill()
                    if not ended and not self._asked:
                        return
                    if ended := ended + self._step():
                        yield ended
            finally:
                for _, waiting in self._ready:
                    waiting.cancel()
                self._abort()

    @property
    def _on_their_way(self) -> int:
        return len(self._ready) + len(self._asked)

    def _prepared(
        self, item: T, readers: ThreadPoolExecutor, renderer: ThreadPoolExecutor
    ) -> Future[tuple[Any, Any]]:
        """What the engine takes of an item, and its parameters."""
        try:
            # Here, because a tokenizer is not to be called by two threads.
            prompt = self.prompt_of(item)
        except Exception as error:
            failed: Future[tuple[Any, Any]] = Future()
            failed.set_exception(error)
            return failed
        images = readers.submit(prompt.read_images)
        return renderer.submit(
            lambda: (self._rendered(prompt.text, images.result()), prompt.parameters)
        )

    def _rendered(self, text: str, images: "Sequence[Image]") -> Any:
        """A prompt's ids, and its images as the model gets them."""
        from vllm.renderers.inputs.preprocess import parse_model_prompt

        prompt: dict[str, Any] = {"prompt": text}
        if images:
            prompt["multi_modal_data"] = {"image": list(images)}
        renderer = self.engine.renderer
        parsed = parse_model_prompt(self.engine.model_config, prompt)
        [rendered] = renderer.render_cmpl([parsed], renderer.default_cmpl_tok_params)
        return rendered

    def _fill(self) -> list[tuple[T, Any]]:
        """Gives the engine what is ready, as far as there are places; returns what cannot be
        asked.
        """
        refused: list[tuple[T, Any]] = []
        while self._ready and len(self._asked) < self.places:
            item, prepared = self._ready.popleft()
            try:
                self._ask(item, *prepared.result())
            except Exception as error:
                refused.append((item, error))
        return refused

    def _ask(self, item: T, prompt: Any, parameters: Any) -> None:
        name = str(next(self._numbers))
        self.engine.add_request(name, prompt, parameters)
        self._asked[name] = item

    def _step(self) -> list[tuple[T, Any]]:
        """What ends with the engine's next step."""
        try:
            outputs = self.engine.step() if self._asked else []
        except Exception:
            return self._each_alone()
        return [
            (self._asked.pop(output.request_id), output) for output in outputs if output.finished
        ]

    def _each_alone(self) -> list[tuple[T, Any]]:
        """Asks those again that a step failed with, one at a time: who is at fault fails."""
        items = list(self._asked.values())
        self._abort()
        return [(item, self._alone(item)) for item in items]

    def _alone(self, item: T) -> Any:
        try:
            prompt = self.prompt_of(item)
            rendered = self._rendered(prompt.text, prompt.read_images())
            self._ask(item, rendered, prompt.parameters)
            while not (ended := [each for each in self.engine.step() if each.finished]):
                pass
        except Exception as error:
            self._abort()
            return error
        self._asked.clear()
        return ended[0]

    def _abort(self) -> None:
        """Takes everything out of the engine."""
        self._asked.clear()
        self.engine.abort_request(list(self.engine.output_processor.request_states), internal=True)
