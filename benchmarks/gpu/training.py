"""DPO of LLaVA-1.5-7B with LoRA of rank 128 by TRL's trainer, with the workflow's own arguments but
for DeepSpeed (`zero_stage: 0`): seconds an update, peaks, and whether two runs and a resumed one
end with the same bytes.
"""

import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpu.llava import new_model, write_processor
from gpu.pictures_of import new_picture
from gpu.report import Report, Row, digest_of_bytes, synchronize

if TYPE_CHECKING:
    from PIL.Image import Image

    from lib.training.preference_format import PreferenceFormat

#: Tokens of a sequence: a short answer's, the longest that the workflow makes, and `max_length`.
REAL_LENGTHS = (760, 1900, 5012)
TINY_LENGTHS = (40, 60, 80)
TEMPLATE = "USER: <image>\n{instruction} ASSISTANT:"
UPDATES = 2


#: Imported before the device is the section's own.
LIBRARIES = (
    "lib.training.dpo",
    "transformers:LlavaForConditionalGeneration",
    "transformers:LlavaProcessor",
    "trl.trainer.dpo_trainer",
)


@dataclass(frozen=True)
class Pairs:
    """Makes rows as TRL reads them, of words that are a token each. `datasets` digests all that it
    holds, so it holds little.

    lengths  words of chosen and of rejected
    """

    format: "PreferenceFormat"
    prompt: str
    lengths: tuple[int, int]
    picture: "Image"

    def __call__(self, batch: Mapping[str, Sequence[int]]) -> dict[str, list[Any]]:
        """The pairs of these numbers."""
        numbers = batch["number"]
        chosen, rejected = self.lengths
        return {
            "prompt": [self.prompt for _ in numbers],
            "chosen": [self._response(number, chosen) for number in numbers],
            "rejected": [self._response(7 * number + 3, rejected) for number in numbers],
            "images": [[self.picture] for _ in numbers],
        }

    def _response(self, begin: int, length: int) -> str:
        from tiny.words import corpus

        words = [word for word in corpus() if word[0].isalpha()]
        return self.format.response(
            " ".join(words[(begin + place) % len(words)] for place in range(length))
        )


class Tuning:
    """The trainer that is measured. One object does all runs, from the same adapter each time."""

    def __init__(self, device: str, folder: Path) -> None:
        import torch
        from transformers import PrinterCallback

        from lib.training.base import TrainingJob
        from lib.training.dpo import lora_config, set_up_libraries, training_arguments
        from lib.training.image_tokens import load_processor
        from lib.training.preference_data import format_for
        from lib.training.settings import TrainingSettings
        from tiny.llava import VICUNA_TEMPLATE
        from tiny.tokenization import llama_tokenizer

        self.device = device
        self.folder = folder
        is_real = device == "cuda"
        tokenizer = llama_tokenizer(llava=True)
        model = new_model(device, "llama", tiles=False, tokenizer=tokenizer)
        write_processor(folder / "model", model.config, tokenizer, VICUNA_TEMPLATE)
        self.processor = load_processor(folder / "model")
        self.format = format_for(self.processor, TEMPLATE)
        self.picture = new_picture(1024 if is_real else 64, 0)
        job = TrainingJob(
            trainer="dpo",
            base=folder / "model",
            dtype="bfloat16" if is_real else "float32",
            device=device,
            prompt_template=TEMPLATE,
            settings=TrainingSettings(
                zero_stage=0,
                processes=1,
                scheduler="constant",  # the first of two updates is to move the weights as well
                warmup_ratio=0,
                lora_rank=128 if is_real else 4,
                gradient_accumulation=4 if is_real else 1,
            ),
            data=[],
            folder=folder,
            recomputes=True,  # until a row is without
        )
        set_up_libraries(job)
        self.args = training_arguments(job)
        self.args.save_strategy = "no"
        self.args.max_steps = UPDATES
        self.pairs = self.args.gradient_accumulation_steps
        self.clock = new_clock(device)
        self.trainer = new_trainer_class()(
            model=model,
            args=self.args,
            processing_class=self.processor,
            train_dataset=self.data(lengths_on(device)[0]),
            peft_config=lora_config(job.settings, model),
            callbacks=[self.clock],
        )
        self.trainer.remove_callback(PrinterCallback)
        self.adapter = {
            name: parameter
            for name, parameter in self.trainer.model.named_parameters()
            if parameter.requires_grad
        }
        with torch.no_grad():
            self.beginning = {name: each.detach().clone() for name, each in self.adapter.items()}

    def data(self, tokens: int) -> Any:
        """Pairs whose chosen sequence has so many tokens, and the rejected a tenth fewer."""
        from datasets import Dataset

        prompt = self.format.prompt("What is there?")
        ids = self.processor(images=self.picture, text=prompt, add_special_tokens=False)
        room = tokens - len(ids["input_ids"][0]) - 1  # of the end
        rows = Dataset.from_dict({"number": list(range(UPDATES * self.pairs))})
        lengths = room, room - tokens // 10
        return rows.with_transform(Pairs(self.format, prompt, lengths, self.picture))

    def train(
        self, tokens: int, recompute: bool, cached: bool, save: bool = False, resume: Any = None
    ) -> Row:
        """Two updates from the same beginning; the second is timed."""
        import torch

        trainer = self.trainer
        trainer.optimizer = trainer.lr_scheduler = None
        trainer.accelerator.free_memory()
        trainer.model.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, value in self.beginning.items():
                self.adapter[name].copy_(value)
        trainer.train_dataset = self.data(tokens)
        trainer.args.gradient_checkpointing = recompute
        if not recompute:
            trainer.model.gradient_checkpointing_disable()
        trainer.precompute_ref_logps = cached
        self.clock.saves = save
        trainer.train(resume_from_checkpoint=resume)
        row = {
            "seconds_an_update": self.clock.seconds[-1],
            "pairs_an_update": self.pairs,
            "tokens_a_sequence": trainer.tokens,
        }
        if not cached:  # the loss of a made-up reference says nothing
            log = [entry for entry in trainer.state.log_history if "loss" in entry]
            row["loss"] = log[-1]["loss"]
        return row

    def digest(self) -> str:
        """Of the adapter's weights."""
        import torch

        return digest_of_bytes(
            weight.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
            for _, weight in sorted(self.adapter.items())
        )

    def checkpoint(self) -> Path | None:
        """The last that was saved."""
        from lib.training.checkpoints import all_checkpoints

        found = all_checkpoints(Path(self.args.output_dir))
        return found[-1] if found else None


def lengths_on(device: str) -> tuple[int, int, int]:
    """Tokens of a sequence that are measured."""
    return REAL_LENGTHS if device == "cuda" else TINY_LENGTHS


def new_clock(device: str) -> Any:
    """A callback that times updates, and saves a checkpoint after the first if asked to."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):  # type: ignore[misc]  # transformers publishes no types
        def __init__(self) -> None:
            self.seconds: list[float] = []
            self.saves = False
            self._began = 0.0

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            synchronize(device)
            self._began = time.perf_counter()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
            synchronize(device)
            self.seconds.append(time.perf_counter() - self._began)
            if self.saves and state.global_step == 1:
                control.should_save = True
            return control

    return Clock()


def new_trainer_class() -> Any:
    """TRL's trainer, which refuses stored reference log-probabilities for pictures: where they are
    asked for, any will do to measure.
    """
    import torch
    from trl import DPOTrainer

    class Trainer(DPOTrainer):  # type: ignore[misc]  # trl publishes no types
        tokens = 0

        def _compute_loss(self, model: Any, inputs: Any, return_outputs: bool) -> Any:
            rows, self.tokens = inputs["input_ids"].shape
            if self.precompute_ref_logps:
                stored = torch.full((rows // 2,), -100.0, device=inputs["input_ids"].device)
                inputs = inputs | {"ref_chosen_logps": stored, "ref_rejected_logps": stored}
            return super()._compute_loss(model, inputs, return_outputs)

    return Trainer


def run(report: Report) -> None:
    """Measures what is missing."""
    import torch

    with tempfile.TemporaryDirectory() as folder:
        tuning = Tuning(report.device, Path(folder))
        short, middle, long = lengths_on(report.device)
        if report.device == "cuda":
            report.measure("warm-up", lambda: tuning.train(short, recompute=True, cached=False))
        runs_alike(report, tuning, "as the workflow sets it", short)
        if report.device == "cuda":  # on a CPU both settings are the same
            torch.use_deterministic_algorithms(True, warn_only=True)
            runs_alike(report, tuning, "with warnings only", short)
            torch.use_deterministic_algorithms(True)
            for kind in product((middle, short, long), (True, False), (False, True)):
                update(report, tuning, *kind)
        else:
            for cached in (False, True):
                update(report, tuning, long, recompute=False, cached=cached)


def update(report: Report, tuning: Tuning, tokens: int, recompute: bool, cached: bool) -> None:
    """Measures an update of one kind."""
    name = update_name(tokens, recompute, cached)
    report.measure(name, lambda: tuning.train(tokens, recompute, cached))


def update_name(tokens: int, recompute: bool, cached: bool) -> str:
    """What a row of updates is called."""
    recomputation = "with" if recompute else "without"
    reference = "cached" if cached else "pass"
    return f"{tokens} tokens, {recomputation} recomputation, reference {reference}"


def runs_alike(report: Report, tuning: Tuning, setting: str, tokens: int) -> None:
    """Two runs and one that goes on from the first's checkpoint, by digest of the adapter."""
    names = [f"{setting}: {which}" for which in ("first run", "second run", "resumed run")]
    if report.has(*names):
        return
    shutil.rmtree(tuning.args.output_dir, ignore_errors=True)
    report.forget(*names)  # the resumed run goes on from the first one's checkpoint
    digests: dict[str, str] = {}

    def same_as_first(which: str) -> bool:
        return digests[which] == digests[names[0]]

    def train(which: str, **how: Any) -> Callable[[], Row]:
        def work() -> Row:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                row = tuning.train(tokens, recompute=True, cached=False, **how)
            digests[which] = tuning.digest()
            of_algorithms = {
                str(warning.message).split("\n")[0][:160]
                for warning in caught
                if "deterministic" in str(warning.message)
            }
            return row | {
                "digest": digests[which],
                **({} if which == names[0] else {"same_bytes_as_first": same_as_first(which)}),
                "warnings": sorted(of_algorithms),
            }

        return work

    first = report.measure(names[0], train(names[0], save=True))
    digests.setdefault(names[0], "" if first is None else first["digest"])
    report.measure(names[1], train(names[1]))
    if checkpoint := tuning.checkpoint():
        report.measure(names[2], train(names[2], resume=str(checkpoint)))
