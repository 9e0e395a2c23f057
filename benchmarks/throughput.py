"""What the workflow costs over the bare libraries, and what it saves over the published code's way;
same models, same run.

    PYTHONPATH=scripts:demo python benchmarks/throughput.py [--models tiny | larger]

For each stage, on one shard of `--prompts` prompts:

- workflow: the rule's own script from reading its input to publishing the shard, less loading the
  model;
- bare: the same model calls in the same batches, and nothing else (images are not even saved); of
  vLLM, the streamed engine itself (lib/engine.py);
- published way: as the paper's code does it: one pipeline call an image, one score an image, one
  score a response.

The three are timed one after another, at least `--repeats` times over and for `--seconds`, and the
ratio of their fastest repeats is shown: these machines are shared, and others on them can only make
a repeat slower.
A stage is over the limit if the workflow takes more than 1.10 times as long, and that is more than
0.25 ms a prompt: a tiny reward model is done in 1.5 ms, and two runs of the same code differ by
some hundredths of that.

`--models tiny` takes the random run's checkpoints and image size (demo/random.yaml); `larger` takes
images of 256 pixels and reward models of more layers, also random, whose calls take some ten times
as long, so that the workflow's fixed cost a prompt weighs less. The policy model is the random
run's. `--stages` measures some of them only, with what they need before.

A second table has the workflow with vLLM beside vLLM's own `LLM.generate`, which is given all
requests and prepares all pictures before its first step. The workflow prepares them in threads
while the engine is at work: on a CPU these take its processor, and where a step waits for a device
they cost nothing. So each step is also made to wait, as a GPU's would.
"""

import argparse
import json
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

from rich.console import Console
from rich.table import Table

import generate_images
import generate_responses
import rank_images
import rank_responses
from lib import weights
from lib.blocks import Block
from lib.config.image_ranking import RankImagesJob
from lib.config.images import GenerateImagesJob
from lib.config.response_ranking import RankResponsesJob
from lib.config.responses import GenerateResponsesJob
from lib.data.image_files import read_image
from lib.data.prompts import Prompt, make_shards, seed_of
from lib.data.rows import (
    ImageRankingRow,
    ImagesRow,
    InstructionRow,
    PickedRow,
    ResponseRankingRow,
    ResponseRow,
)
from lib.data.shards import present, prompt_of, read_shard
from lib.files import write_jsonl
from lib.jobs.streams import Item, handing_out
from lib.models.image_generators.stable_diffusion_3 import StableDiffusion3
from lib.models.image_scorers.image_reward import ImageReward
from lib.models.policy_models.local import TransformersPolicy, VllmPolicy
from lib.models.response_generators.for_jobs import generator_settings
from lib.models.response_generators.registry import GENERATORS
from lib.models.response_generators.requests import Request, Sampling
from lib.models.response_generators.vllm import VllmGenerator
from lib.models.response_rewards.armorm import ArmoRM
from tiny.armorm import write_armorm
from tiny.image_reward import write_image_reward
from tiny.tokenization import bert_tokenizer, llama3_tokenizer
from write_instructions import pick_image

REPOSITORY = Path(__file__).resolve().parent.parent
os.chdir(REPOSITORY)
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


MODELS = Path("demo/models")
#: How many prompts vLLM's engine, or a batch, has at once.
AT_ONCE = 8
#: Milliseconds that a step of vLLM's waits, as for a device.
STEP_WAITS = (0, 5, 20)
LIMIT = 1.10
MILLISECONDS_A_PROMPT = 0.25


class Parameters(dict[str, Any]):
    """A rule's params, by attribute and by name, as Snakemake gives them."""

    __getattr__ = dict.__getitem__


def run_rule(
    module: Any,
    rule: str,
    wildcards: dict[str, str],
    inputs: Any,
    output: Path,
    root: Path,
    settings: Block,
    **params: Any,
) -> float:
    """Runs a rule's script with an empty journal; the seconds it took, less those of loading the
    model.
    """
    job = "/".join(wildcards.values())
    for left in (root / "work" / rule / f"{job}.journal.jsonl", output):
        left.unlink(missing_ok=True)
    common = {"root": str(root), "device": "cpu", "seed": 0, "max_failed_fraction": 1.0}
    names = type("Wildcards", (list,), wildcards)(wildcards.values())
    module.main(
        SimpleNamespace(
            rule=rule,
            wildcards=names,
            input=inputs,
            output=[str(output)],
            params=Parameters(common=common, settings=settings.model_dump(mode="json"), **params),
        )
    )
    record = json.loads((root / "work" / rule / f"{job}.json").read_text())
    assert record["computed"], record
    return float(record["wall_seconds"] - record["load_seconds"])


def timed(work: Callable[[], Any]) -> float:
    """Seconds of a call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


class Stages:
    """The four stages, each as (workflow, bare, published way) on the same prompts."""

    def __init__(self, root: Path, prompts: int, larger: bool) -> None:
        self.root = root
        texts = [
            f"scene {number}: {number % 7 + 2} red cats beside a boat on a lake at noon"
            for number in range(prompts)
        ]
        self.prompts = make_shards([Prompt("art", text) for text in texts], 1)[0]
        self.prompts_file = root / "prompts.jsonl"
        write_jsonl(self.prompts_file, [prompt.row() for prompt in self.prompts.prompts])
        size, steps = (256, 8) if larger else (64, 6)  # of the random run: demo/random.yaml
        self.images = StableDiffusion3.Settings(
            model=str(MODELS / "stable-diffusion-3-medium"),
            dtype="float32",
            height=size,
            width=size,
            steps=steps,
            max_sequence_length=64,
        )
        self.pipeline = StableDiffusion3.load(self.images, "cpu")
        rewards = MODELS
        if larger:
            rewards = root
            write_image_reward(
                root / "image-reward",
                tokenizer=bert_tokenizer(),
                vision_width=256,
                vision_layers=8,
                image_size=128,
            )
            write_armorm(root / "armorm", tokenizer=llama3_tokenizer(), width=256, layers=8)
        self.scoring = ImageReward.Settings(
            kind="image-reward", model=str(rewards / "image-reward")
        )
        self.scorer = rank_images.load_scorer(self.scoring, "cpu")
        self.policy = TransformersPolicy.Settings(
            model=str(MODELS / "llava-v1.6-mistral"), dtype="float32"
        )
        self.responding = GenerateResponsesJob(
            policy=self.policy,
            max_new_tokens=64,
        )
        self.generator = self._generator(self.policy, 1)
        self.ranking = ArmoRM.Settings(
            model=str(rewards / "armorm"), dtype="float32", max_length=512
        )
        self.armorm = rank_responses.load_reward(self.ranking, "cpu")

    def _generator(
        self, policy: TransformersPolicy.Settings | VllmPolicy.Settings, at_once: int
    ) -> Any:
        job = self.responding
        settings = generator_settings(job, policy)
        sampling = Sampling(job.max_new_tokens, job.temperature, job.top_p)
        return GENERATORS.load(settings.backend).load(
            settings, "cpu", sampling, with_images=True, batch_size=at_once
        )

    @cached_property
    def streaming(self) -> VllmGenerator:
        """The policy model in vLLM's engine, loaded once: a process cannot hold several."""
        generator: VllmGenerator = self._generator(self._under_vllm, AT_ONCE)
        return generator

    @property
    def _under_vllm(self) -> VllmPolicy.Settings:
        return VllmPolicy.Settings(backend="vllm", model=self.policy.model, dtype=self.policy.dtype)

    def path(self, stage: str) -> Path:
        """A stage's shard file."""
        return self.root / stage / "art" / "00.jsonl"

    def images_workflow(self) -> float:
        """Rule generate_images."""
        shutil.rmtree(self.root / "images", ignore_errors=True)  # a first run replaces no files
        wildcards = {"topic": "art", "shard": "00"}
        return run_rule(
            generate_images,
            "generate_images",
            wildcards,
            [],
            self.path("images"),
            self.root,
            GenerateImagesJob(generator=self.images, prompts=self.prompts_file),
        )

    def _draw_all(self, one_by_one: bool) -> None:
        for prompt in self.prompts.prompts:
            scales = [scale for scale, _ in self.images.drawn]
            seeds = [seed_of(0, "image", prompt.id, scale) for scale in scales]
            for part in zip(scales, seeds, strict=True) if one_by_one else ():
                self.pipeline.generate(prompt.text, [part[0]], [part[1]])
            if not one_by_one:
                self.pipeline.generate(prompt.text, scales, seeds)

    def images_bare(self) -> float:
        """The pipeline alone, a prompt's candidates in one batch."""
        return timed(lambda: self._draw_all(one_by_one=False))

    def images_published(self) -> float:
        """One call an image."""
        return timed(lambda: self._draw_all(one_by_one=True))

    def scores_workflow(self) -> float:
        """Rule rank_images."""
        wildcards = {"scorer": "image-reward", "topic": "art", "shard": "00"}
        output = self.path("image_ranking/image-reward")
        return run_rule(
            rank_images,
            "rank_images",
            wildcards,
            [str(self.path("images"))],
            output,
            self.root,
            RankImagesJob(scorer=self.scoring),
        )

    def _score_all(self, one_by_one: bool) -> None:
        for row in present(read_shard(self.path("images"), ImagesRow).values()):
            images = [read_image(self.root / candidate["file"]) for candidate in row["candidates"]]
            for batch in [[image] for image in images] if one_by_one else [images]:
                self.scorer.score(row["prompt"], batch)

    def scores_bare(self) -> float:
        """Reading the images and ImageReward alone, a prompt's images in one batch."""
        return timed(lambda: self._score_all(one_by_one=False))

    def scores_published(self) -> float:
        """One score an image."""
        return timed(lambda: self._score_all(one_by_one=True))

    def instructions(self) -> list[InstructionRow]:
        """An instruction for each prompt about its picked image, as write_instructions publishes
        them.
        """
        images = read_shard(self.path("images"), ImagesRow)
        candidates = {row["id"]: row["candidates"] for row in present(images.values())}
        ranked = read_shard(self.path("image_ranking/image-reward"), ImageRankingRow)
        rows: list[InstructionRow] = []
        for row in present(ranked.values()):
            image = pick_image(row, candidates[row["id"]], "best", 0)
            picked: PickedRow = {**prompt_of(row), "image": image}
            rows.append(cast("InstructionRow", {**picked, "instruction": "What is there?"}))
        return rows

    def responses_workflow(self, prompts_per_batch: int = 1, **changed: Any) -> float:
        """Rule generate_responses. `changed`: of its settings."""
        path = self.path("instructions")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in self.instructions()))
        inputs = SimpleNamespace(instructions=str(path), images=str(self.path("images")))
        output = self.path("responses/llava-v1.6-mistral")
        wildcards = {"policy": "llava-v1.6-mistral", "topic": "art", "shard": "00"}
        changed["prompts_per_batch"] = prompts_per_batch
        settings = self.responding.model_copy(update=changed)
        return run_rule(
            generate_responses, "generate_responses", wildcards, inputs, output, self.root, settings
        )

    def responses_bare(self) -> float:
        """The policy model alone, one response at a time; the published code's way as well."""
        requests = self._requests()
        return timed(lambda: [self.generator.generate([request]) for request in requests])

    def _requests(self) -> list[Request]:
        identity = weights.identity(self.policy.model, "main")
        return [
            Request(
                row["instruction"],
                seed_of(0, "response", identity, row["id"]),
                self.root / row["image"]["file"],
            )
            for row in self.instructions()
        ]

    def streamed_workflow(self) -> float:
        """Rule generate_responses with vLLM."""
        with mock.patch.object(VllmGenerator, "load", return_value=self.streaming):
            return self.responses_workflow(AT_ONCE, policy=self._under_vllm)

    def streamed_bare(self) -> float:
        """The streamed engine itself."""
        requests = self._requests()
        items = [Item(str(number), "", request) for number, request in enumerate(requests)]

        def answer() -> None:
            for ended in self.streaming.stream(handing_out(items), note=print):
                assert not any(isinstance(answer, Exception) for _, answer in ended)

        return timed(answer)

    def all_at_once(self) -> float:
        """vLLM's `LLM.generate` with all requests."""
        requests = self._requests()
        generator = self.streaming

        def generate() -> None:
            prompts = [generator.prompt_of(request) for request in requests]
            generator.llm.generate(
                [
                    {"prompt": each.text, "multi_modal_data": {"image": each.read_images()}}
                    for each in prompts
                ],
                [each.parameters for each in prompts],
                use_tqdm=False,
            )

        return timed(generate)

    def streamed_published(self) -> float:
        """vLLM with one request after the other."""
        requests = self._requests()
        return timed(lambda: [self.streaming.generate([request]) for request in requests])

    def rewards_workflow(self) -> float:
        """Rule rank_responses."""
        policies = ["a", "b", "c", "d"]
        answered = read_shard(self.path("responses/llava-v1.6-mistral"), ResponseRow)
        for number, policy in enumerate(policies):
            path = self.path(f"responses/{policy}")
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = [
                {**row, "response": f"{row['response']} {number}", "finish_reason": "stop"}
                for row in present(answered.values())
            ]
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        settings = RankResponsesJob(reward=self.ranking, policies=policies)
        inputs = [str(self.path(f"responses/{policy}")) for policy in policies]
        return run_rule(
            rank_responses,
            "rank_responses",
            {"topic": "art", "shard": "00"},
            inputs,
            self.path("response_ranking"),
            self.root,
            settings,
        )

    def _reward_all(self, one_by_one: bool) -> None:
        ranked = read_shard(self.path("response_ranking"), ResponseRankingRow)
        for row in present(ranked.values()):
            texts = [
                response["text"]
                for response in row["responses"].values()
                if "invalid" not in response
            ]
            asked = {"role": "user", "content": row["instruction"]}
            conversations = [[asked, {"role": "assistant", "content": text}] for text in texts]
            for batch in [[one] for one in conversations] if one_by_one else [conversations]:
                self.armorm.rate(batch)

    def rewards_bare(self) -> float:
        """ArmoRM alone, a prompt's responses in one batch."""
        return timed(lambda: self._reward_all(one_by_one=False))

    def rewards_published(self) -> float:
        """One score a response."""
        return timed(lambda: self._reward_all(one_by_one=True))


@contextmanager
def waiting_steps(milliseconds: float) -> Iterator[None]:
    """Has each of vLLM's steps wait besides what it computes, other threads being free to go on."""
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    execute = GPUModelRunner.execute_model

    def wait_and_execute(*arguments: Any, **named: Any) -> Any:
        time.sleep(milliseconds / 1000)
        return execute(*arguments, **named)

    with mock.patch.object(GPUModelRunner, "execute_model", wait_and_execute):
        yield


def beside_all_at_once(stages: Stages, repeats: int) -> Table:
    """The workflow with vLLM beside `LLM.generate`, the fastest of so many repeats."""
    table = Table(title="The workflow beside vLLM's LLM.generate", title_justify="left")
    for column in ("a step waits, ms", "workflow, s", "LLM.generate, s", "ratio"):
        table.add_column(column, justify="right")
    for milliseconds in STEP_WAITS:
        with waiting_steps(milliseconds):
            pairs = [(stages.streamed_workflow(), stages.all_at_once()) for _ in range(repeats)]
        ours, theirs = map(min, zip(*pairs, strict=True))
        cells = (ours, theirs, ours / theirs)
        table.add_row(str(milliseconds), *(f"{cell:.2f}" for cell in cells))
    return table


def main() -> None:
    """Prints the tables; exits with 1 if the workflow costs more than the limit over the bare
    libraries.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--models", choices=("tiny", "larger"), default="tiny")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=30, help="at least, for each stage")
    parser.add_argument(
        "--stages", nargs="+", default=[""], metavar="STAGE", help="those that begin so"
    )
    arguments = parser.parse_args()
    logging.disable(logging.INFO)
    import torch

    torch.set_num_threads(1)
    table = Table(
        title=f"One shard of {arguments.prompts} prompts, models: {arguments.models}, one thread",
        title_justify="left",
    )
    for column in (
        "stage",
        "items",
        "workflow, items/s",
        "bare, ms a prompt",
        "added, ms a prompt",
        "workflow / bare",
        "published way / workflow",
    ):
        table.add_column(column, justify="left" if column == "stage" else "right")
    over: list[str] = []
    beside: Table | None = None
    with tempfile.TemporaryDirectory() as name:
        stages = Stages(Path(name), arguments.prompts, arguments.models == "larger")
        plan: list[
            tuple[str, int, Callable[[], float], Callable[[], float], Callable[[], float]]
        ] = [
            ("images", 4, stages.images_workflow, stages.images_bare, stages.images_published),
            (
                "image scores",
                4,
                stages.scores_workflow,
                stages.scores_bare,
                stages.scores_published,
            ),
            (
                "responses",
                1,
                stages.responses_workflow,
                stages.responses_bare,
                stages.responses_bare,
            ),
            (
                f"responses, {AT_ONCE} prompts a batch",
                1,
                lambda: stages.responses_workflow(AT_ONCE),
                stages.responses_bare,
                stages.responses_bare,
            ),
            (
                f"responses, vLLM, {AT_ONCE} at once",
                1,
                stages.streamed_workflow,
                stages.streamed_bare,
                stages.streamed_published,
            ),
            (
                "response rewards",
                4,
                stages.rewards_workflow,
                stages.rewards_bare,
                stages.rewards_published,
            ),
        ]
        for stage, per_prompt, workflow, bare, published in plan:
            # the first calls of a model are slower, and later stages read what this one publishes
            workflow()
            if not stage.startswith(tuple(arguments.stages)):
                continue
            seconds: list[tuple[float, float, float]] = []
            ends = time.monotonic() + arguments.seconds
            while len(seconds) < arguments.repeats or time.monotonic() < ends:
                seconds.append((workflow(), bare(), published()))
            ours, alone, theirs = map(min, zip(*seconds, strict=True))
            cost, items = ours / alone, arguments.prompts * per_prompt
            added = 1000 * (ours - alone) / arguments.prompts
            table.add_row(
                stage,
                str(items),
                f"{items / ours:.1f}",
                f"{1000 * alone / arguments.prompts:.1f}",
                f"{added:.2f}",
                f"{cost:.2f}",
                f"{theirs / ours:.2f}",
            )
            if cost > LIMIT and added > MILLISECONDS_A_PROMPT:
                over.append(f"{stage}: {cost:.2f}")
            if workflow == stages.streamed_workflow:
                beside = beside_all_at_once(stages, arguments.repeats)
    console = Console(width=120)
    console.print(table, *([beside] if beside else []))
    sys.exit(f"workflow / bare over {LIMIT}: {'; '.join(over)}" if over else 0)


if __name__ == "__main__":
    main()
