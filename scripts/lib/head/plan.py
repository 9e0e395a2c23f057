"""What there is to do, known before anything runs: the shards, the files of each stage, and what is
to be tried again.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from lib import weights
from lib.blocks import Block, models_in
from lib.config.images import GenerateImagesJob
from lib.config.instructions import WriteInstructionsJob
from lib.config.run import Config
from lib.data.prompts import Prompt, Shard, make_shards, read_topics, shard_of
from lib.errors import UserError
from lib.files import digest, write_jsonl
from lib.head.run_start import RunStart
from lib.jobs.job import digest_of_params
from lib.jobs.record import read_record
from lib.patches.snakemake_graph import own_name
from lib.registry import Registry

TABLES = (
    "vision_language_table",
    "hallucination_table",
    "size_table",
    "common_selections_table",
    "image_judge_table",
    "reasons_table",
)
FIGURES = ("candidates_figure", "guidance_figure", "similarity_figure", "answers_figure")


class Plan:
    """The paths and parameters that the rules share."""

    def __init__(self, config: Config, start: RunStart | None = None) -> None:
        """`start`: in a job, what its run began with; prompts are then not read anew."""
        self.config = config
        self._start = start
        self.root = config.root.as_posix()
        self._rows_given: dict[Path, Sequence[Mapping[str, Any]]] = {}

    @cached_property
    def shards(self) -> dict[tuple[str, str], Shard]:
        """All shards that hold a prompt, by (topic, shard name). Read once a run."""
        config = self.config
        if self._start:
            return {
                (topic, shard.name): shard
                for topic, texts in self._start.prompts.items()
                for shard in make_shards(
                    [Prompt(topic, text) for text in texts], config.shards_per_topic
                )
            }
        return read_topics(
            Path(config.prompts),
            config.topics,
            config.shards_per_topic,
            config.max_prompt_characters,
        )

    @cached_property
    def written(self) -> dict[str, str]:
        """The instructions that the user wrote, by prompt id, where that is how they come about.
        Read once a run. Errors: UserError where one cannot be used, or a prompt has none.
        """
        if self._start:
            return self._start.written
        prompts = [prompt for shard in self.shards.values() for prompt in shard.prompts]
        return dict(self.config.instructions.read_written(prompts))

    def start(self, config: Mapping[str, Any]) -> RunStart:
        """What this run began with. `config`: as Snakemake merged it."""
        prompts: dict[str, list[str]] = {}
        for (topic, _), shard in self.shards.items():
            prompts.setdefault(topic, []).extend(prompt.text for prompt in shard.prompts)
        return RunStart(dict(config), prompts, self.written)

    def images_job(self, topic: str, shard: str) -> GenerateImagesJob:
        """What a job of generate_images is told: editing one prompt reruns one shard."""
        prompts = self._given([prompt.row() for prompt in self.shard(topic, shard).prompts])
        return GenerateImagesJob(generator=self.config.images, prompts=prompts)

    def instructions_job(self, topic: str, shard: str) -> WriteInstructionsJob:
        """What a job of write_instructions is told: editing one line of the user's own
        instructions reruns one shard.
        """
        ids = [prompt.id for prompt in self.shard(topic, shard).prompts]
        written = [
            {"id": name, "instruction": self.written[name]} for name in ids if name in self.written
        ]
        return WriteInstructionsJob(
            author=self.config.instructions,
            min_image_reward=self.config.image_ranking.min_image_reward,
            pick=self.config.image_ranking.pick,
            written=self._given(written),
        )

    def _given(self, rows: Sequence[Mapping[str, Any]]) -> Path:
        """The file that gives a job these rows, named by what it holds; `give` writes it."""
        path = Path(self.root, "work", "given", f"{digest(rows)[:16]}.jsonl")
        self._rows_given[path] = rows
        return path

    def give(self) -> None:
        """Writes the files that jobs are given. Called once a run, before the first job starts."""
        for topic, shard in self.shards:
            self.images_job(topic, shard)
            self.instructions_job(topic, shard)
        for path, rows in self._rows_given.items():
            if not path.is_file():
                write_jsonl(path, rows)

    def shard_files(self, stage: str) -> list[str]:
        """The published files of a stage, e.g. `images` or `responses/<policy>`, in canonical
        order.
        """
        return [f"{self.root}/{stage}/{topic}/{shard}.jsonl" for topic, shard in self.shards]

    def pairs_of_size(self, size: int) -> list[str]:
        """The files that a data set of `size` pairs is made from; a UserError if there are fewer
        prompts than that.
        """
        prompts = sum(len(shard.prompts) for shard in self.shards.values())
        if size > prompts:
            raise UserError(
                f"pairs.sizes: {size} is larger than the {prompts} prompts there are in"
                f" '{self.config.prompts}', and a prompt gives at most one pair. Lower it (and the"
                " experiments that use it), or add prompts, e.g. those that `generate_prompts`"
                " proposes."
            )
        return self.shard_files("pairs")

    def stages_of_prompt(self, prompt_id: str) -> dict[str, str]:
        """The files that tell of one prompt, by stage."""
        topic = prompt_id.rsplit("-", 1)[0]
        shard = shard_of(prompt_id, self.config.shards_per_topic)
        stages = [
            "images",
            *(f"image_ranking/{scorer}" for scorer in self.config.image_ranking.scorers),
            "response_ranking",
            "pairs",
        ]
        return {stage: f"{self.root}/{stage}/{topic}/{shard}.jsonl" for stage in stages}

    def digests(self, topic: str | None = None, name: str | None = None) -> dict[str, str]:
        """What the shards' prompts are known by (`Shard.digest`), by "topic/shard": of one shard
        (nothing where it holds no prompt), or of all.
        """
        return {
            f"{shard.topic}/{shard.name}": shard.digest
            for shard in self.shards.values()
            if topic is None or (shard.topic, shard.name) == (topic, name)
        }

    def digests_for(self, prompt_id: str) -> dict[str, str]:
        """`digests` of the shard that a prompt falls into."""
        topic = prompt_id.rsplit("-", 1)[0]
        return self.digests(topic, shard_of(prompt_id, self.config.shards_per_topic))

    def models(self) -> list[str]:
        """The models to evaluate: the base model and every experiment, in the configured order."""
        return ["base", *self.config.training.experiments]

    def common(self) -> dict[str, Any]:
        """Parameters common to all rules with a job's record (`jobs.job.Common`)."""
        config = self.config
        return {
            "root": self.root,
            "device": config.device,
            "seed": config.seed,
            "max_failed_fraction": config.max_failed_fraction,
        }

    def params(self, job: Block) -> dict[str, Any]:
        """What a rule's jobs are told, as the rule's parameter: the typed block of its script."""
        return job.model_dump(mode="json")

    def made_by(self, block: Block, registry: Registry[Any] | None = None) -> dict[str, Any]:
        """What decides results and stands in no setting: the contents of model folders, and the
        VERSION of the class that plays the role. Snakemake reruns the rule when it changes.
        """
        decides: dict[str, Any] = {
            name: weights.folder_identity(model.model)
            for name, model in models_in(block).items()
            if weights.is_folder(model.model)
        }
        return decides | ({"version": registry.class_of(block).VERSION} if registry else {})

    def shard(self, topic: str, name: str) -> Shard:
        """One shard. A UserError if the topic has no prompt in it."""
        if (topic, name) not in self.shards:
            raise UserError(
                f"topic '{topic}' has no prompt in shard {name}, or is not in `topics`. Ask for"
                " another target."
            )
        return self.shards[topic, name]

    def why_again(self, job: Any, is_remembered: bool) -> str:
        """Why a job of Snakemake's graph is to run again by its record, though its outputs are
        there and newer than its inputs; empty where it is not. `is_remembered`: whether Snakemake
        knows what it was asked.
        """
        rule = own_name(job.rule)
        name = "/".join(job.wildcards) or rule
        record = read_record(Path(self.root, "work", rule, f"{name}.json"))
        if record is None:
            is_there = all(Path(file).exists() for file in job.output)
            return "no record in work/ tells what made it" if is_there else ""
        if record.failed:
            return f"{record.failed} of its items failed"
        if record.lacks_files(Path(self.root)):
            return "one of its files is gone"
        if not is_remembered and record.asked != digest_of_params(dict(job.params.items())):
            return "its record in work/ says that it was asked for something else"
        return ""
