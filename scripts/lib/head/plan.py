"""What there is to do, known before anything runs: the shards, the files of each stage, and what is
to be tried again.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from lib import weights
from lib.blocks import Block, models_in
from lib.config.figures import AnswersSheet
from lib.config.image_ranking import RankImagesJob
from lib.config.images import GenerateImagesJob, TakePicturesJob
from lib.config.instructions import WriteInstructionsJob
from lib.config.pairs import ALL, BuildPairsJob, Size
from lib.config.prompts import AddPromptsJob
from lib.config.quality import CheckPairsJob
from lib.config.response_ranking import rewards_of, scores_input
from lib.config.responses import GenerateResponsesJob
from lib.config.run import Config
from lib.data.blind_verdicts import BlindVerdict
from lib.data.data_sets import ordered_pairs
from lib.data.export_forms.registry import FORM_FILES
from lib.data.layouts import PromptIds
from lib.data.pair_forms.settings import OwnPairs
from lib.data.prompts import Prompt, Shard, make_shards, read_topics
from lib.data.reviews import ReviewFiles, Reviews
from lib.data.rows import PairRow
from lib.data.shards import read_shards
from lib.errors import UserError
from lib.files import digest, write_jsonl
from lib.head.run_start import RunStart
from lib.head.stages import GATHER, Stages
from lib.jobs.job import digest_of_params
from lib.jobs.published import record_of
from lib.jobs.record import read_record
from lib.jobs.turns import parts_of
from lib.models.image_scorers.registry import IMAGE_SCORERS
from lib.models.response_generators.registry import GENERATORS
from lib.models.response_generators.settings import GeneratorSettings
from lib.patches.snakemake_graph import own_name
from lib.registry import Registry

TABLES = (
    "vision_language_table",
    "hallucination_table",
    "size_table",
    "all_scores_table",
    "common_selections_table",
    "image_judge_table",
    "reasons_table",
    "reward_length_table",
)
FIGURES = ("candidates_figure", "guidance_figure", "similarity_figure", "answers_figure")
#: The files of a data set in its folder whose names do not depend on what is in it: of its pairs,
#: and what is said of them.
CARD_FILES = ("README.md", "LICENSE.md", "croissant.json", "SHA256SUMS")
DATA_SET_FILES = (*FORM_FILES, "prompt_ids.txt", "CHANGELOG.md", "dataset.json", *CARD_FILES)
#: What a data set needs to be trained on, and to be held against the pairs as they are now; those
#: from before there were more forms have it, too.
NEEDED_FILES = ("llava.json", "data", "dataset.json")


def pattern_of_shards(shards: Iterable[str]) -> str:
    """A regular expression of the files of these shards ("topic/shard"), in the folder of whatever
    stage.
    """
    of_topics: dict[str, list[str]] = {}
    for place in shards:
        topic, _, shard = place.partition("/")
        of_topics.setdefault(topic, []).append(shard)
    patterns = [rf"{topic}/(?:{'|'.join(names)})\.jsonl$" for topic, names in of_topics.items()]
    return f"(?:{'|'.join(patterns)})" if patterns else "(?!)"


class Plan:
    """The paths and parameters that the rules share."""

    def __init__(
        self, config: Config, start: RunStart | None = None, *, is_whole: bool = True
    ) -> None:
        """`start`: in a job, what its run began with; prompts are then not read anew. `is_whole`:
        whether the run is asked for all that its configuration names.
        """
        self.config = config
        self._start, self._is_whole = start, is_whole
        self.root = config.root.as_posix()
        self._is_giving = False

    @cached_property
    def shards(self) -> dict[tuple[str, str], Shard]:
        """All shards of stage images that hold a prompt, by (topic, shard name). Read once a run;
        there are none where nothing is trained on the run's own pairs.
        """
        config = self.config
        if not self.makes_pairs:
            return {}
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
            to_be_written=[
                topic for topic in config.topics if config.generate_prompts.wanted(topic)
            ],
        )

    @cached_property
    def stages(self) -> Stages:
        """The shards of each stage, and their files."""
        config = self.config
        return Stages(self.root, self.shards, config.shards_per_topic, config.shards)

    @property
    def makes_pairs(self) -> bool:
        """Whether this run makes pairs: unless every experiment has its own."""
        return self.config.training.needs_pairs_of_run

    @cached_property
    def own_pairs(self) -> dict[str, OwnPairs]:
        """The pairs that experiments have of their own, by the names of their folders."""
        return self.config.training.own_pairs

    def data_set_of(self, experiment: str) -> str:
        """The folder of the data set that an experiment is trained on."""
        trained_on = self.config.training.experiments[experiment]
        if trained_on.pairs:
            return f"{self.root}/own_pairs/{trained_on.pairs.folder}"
        return f"{self.root}/dataset/{trained_on.size}"

    @cached_property
    def topics(self) -> list[str]:
        """The topics that have prompts, in the configured order."""
        there = {topic for topic, _ in self.shards}
        return [topic for topic in self.config.topics if topic in there]

    @cached_property
    def lacking(self) -> dict[str, int]:
        """How many prompts each topic lacks of `generate_prompts.count`; those that lack some
        only.
        """
        if not self.makes_pairs:
            return {}
        there = Counter[str]()
        for (topic, _), shard in self.shards.items():
            there[topic] += len(shard.prompts)
        wanted = {topic: self.config.generate_prompts.wanted(topic) for topic in self.config.topics}
        return {
            topic: count - there[topic] for topic, count in wanted.items() if count > there[topic]
        }

    def prompts_file(self, topic: str) -> str:
        """The file with a topic's prompts."""
        return f"{self.config.prompts}/{topic}.txt"

    def add_prompts_job(self) -> AddPromptsJob:
        """What the job of add_prompts is told."""
        config = self.config
        block = config.generate_prompts
        return AddPromptsJob(
            wanted={topic: block.wanted(topic) for topic in self.lacking},
            files={topic: self.prompts_file(topic) for topic in config.topics},
            min_words=block.min_words,
            max_words=block.max_words,
            max_similarity=block.max_similarity,
            max_prompt_characters=config.max_prompt_characters,
        )

    @cached_property
    def written(self) -> dict[str, str]:
        """The instructions that the user wrote, by prompt id, where that is how they come about.
        Read once a run. Errors: UserError where one cannot be used, or a prompt has none.
        """
        if self._start:
            return self._start.written
        if not self.makes_pairs:
            return {}
        return dict(self.config.instructions.read_written(self.all_prompts()))

    def all_prompts(self) -> Iterator[Prompt]:
        """The prompts of the run, one after the other: a million at once are 300 MB."""
        return (prompt for shard in self.shards.values() for prompt in shard.prompts)

    def start(self, config: Mapping[str, Any]) -> RunStart:
        """What this run began with. `config`: as Snakemake merged it."""
        prompts: dict[str, list[str]] = {}
        for (topic, _), shard in self.shards.items():
            prompts.setdefault(topic, []).extend(prompt.text for prompt in shard.prompts)
        answers = {
            f"{policy}/{topic}/{shard}": str(file)
            for policy in self.config.responses.policy_models
            for topic, shard in self.stages.layout("generate_responses").shards
            if (file := self._answers_file(policy, topic, shard))
        }
        pictures = {
            f"{topic}/{shard}": str(self.images_job(topic, shard).prompts)
            for topic, shard in (self.shards if not self.config.images.IS_DRAWN else ())
        }
        return RunStart(
            dict(config),
            prompts,
            self.written,
            self.left_out,
            answers,
            pictures,
            self.reviews,
            self.verdicts,
            self.ranked_together,
        )

    def images_job(self, topic: str, shard: str) -> GenerateImagesJob:
        """What a job of generate_images is told: editing one prompt, or one of the user's own
        pictures, reruns one shard.
        """
        images = self.config.images
        prompts = self.stages.shard("generate_images", topic, shard).prompts
        if images.IS_DRAWN:
            rows = [prompt.row() for prompt in prompts]
            return GenerateImagesJob(generator=images, prompts=self._given(rows))
        megapixels = self.config.max_image_megapixels
        if self._start:
            given = Path(self._start.pictures[f"{topic}/{shard}"])
        else:
            given = self._given(
                [
                    {**prompt.row(), "pictures": self.pictures.get(prompt.id, [])}
                    for prompt in prompts
                ]
            )
        return TakePicturesJob(generator=images, prompts=given, max_image_megapixels=megapixels)

    @cached_property
    def pictures(self) -> dict[str, list[Any]]:
        """The pictures that the user has, by prompt id; nothing where a model draws them. Read once
        a run. Errors: UserError where it cannot be told which prompt one is of.
        """
        return self.config.images.read_pictures(self.all_prompts()) or {}

    def ranking_params(self, scorer: str) -> dict[str, Any]:
        """The parameters of a scorer's jobs of rank_images that are its own."""
        config = self.config
        block = config.image_ranking.scorers[scorer]
        job = RankImagesJob(scorer=block, max_image_megapixels=config.max_image_megapixels)
        return {"settings": self.params(job), "made_by": self.made_by(block, IMAGE_SCORERS)}

    @cached_property
    def ranked_together(self) -> list[str]:
        """The shards, as "topic/shard", whose pictures one job ranks by all scorers that can be
        together: where none of them has ranked the shard yet. Otherwise each has its own job, so
        that one that is new, has changed or fails leaves the others' rankings, and all that is made
        from them, as they are; and so too where the run is not asked for all rankings. Known once a
        run.
        """
        if self._start:
            return self._start.ranked_together
        scorers = self.config.image_ranking.scored_together
        if not scorers or not self._is_whole:
            return []
        # A job that failed for one scorer has left no ranking, but the others' records.
        left = [
            (Path(self.root, folder, scorer), suffix)
            for folder, suffix in (("image_ranking", "jsonl"), ("work/rank_images", "json"))
            for scorer in scorers
        ]
        return [
            f"{topic}/{shard}"
            for topic, shard in self.stages.layout("rank_images").shards
            if not any((folder / topic / f"{shard}.{suffix}").exists() for folder, suffix in left)
        ]

    def ranking_parts(self, topic: str, shard: str) -> list[dict[str, Any]]:
        """The jobs of rank_images that one job of rank_images_together does (`lib.jobs.turns`)."""
        return [
            {
                "wildcards": {"scorer": scorer, "topic": topic, "shard": shard},
                "params": self.ranking_params(scorer),
            }
            for scorer in self.config.image_ranking.scored_together
        ]

    def instructions_job(self, topic: str, shard: str) -> WriteInstructionsJob:
        """What a job of write_instructions is told: editing one line of the user's own
        instructions reruns one shard.
        """
        ids = self.stages.shard("write_instructions", topic, shard).prompts.ids()
        written = [
            {"id": name, "instruction": self.written[name]} for name in ids if name in self.written
        ]
        return WriteInstructionsJob(
            author=self.config.instructions,
            min_image_reward=self.config.image_ranking.min_image_reward,
            pick=self.config.image_ranking.pick,
            written=self._given(written),
        )

    def responses_job(self, policy: str, topic: str, shard: str) -> GenerateResponsesJob:
        """What a job of generate_responses is told: editing one line of the user's own answers
        reruns one shard.
        """
        return self.config.responses.job_of(policy, self._answers_file(policy, topic, shard))

    def _answers_file(self, policy: str, topic: str, shard: str) -> Path | None:
        """The file that gives a job the user's own answers; None where a model answers."""
        if self._start:
            file = self._start.answers.get(f"{policy}/{topic}/{shard}")
            return Path(file) if file else None
        answers = self.answers[policy]
        if answers is None:
            return None
        ids = self.stages.shard("generate_responses", topic, shard).prompts.ids()
        return self._given([{"id": name, "answers": answers[name]} for name in ids])

    @cached_property
    def answers(self) -> dict[str, Mapping[str, Sequence[Any]] | None]:
        """The answers that the user has, by policy model and prompt id; None for a model that gives
        them itself. Read once a run. Errors: UserError where one cannot be used, or a prompt has
        none.
        """
        return {
            name: policy.read_written(self.all_prompts())
            for name, policy in self.config.responses.policy_models.items()
        }

    def _given(self, rows: Sequence[Mapping[str, Any]]) -> Path:
        """The file that gives a job these rows, named by what it holds; written while `give` asks.
        The rows are not kept: of a million prompts they are 200 MB.
        """
        path = Path(self.root, "work", "given", f"{digest(rows)[:16]}.jsonl")
        if self._is_giving and not path.is_file():
            write_jsonl(path, rows)
        return path

    def give(self) -> None:
        """Writes the files that jobs are given. Called once a run, before the first job starts."""
        self._is_giving = True
        for topic, shard in self.shards:
            self.images_job(topic, shard)
        for topic, shard in self.stages.layout("write_instructions").shards:
            self.instructions_job(topic, shard)
        for topic, shard in self.stages.layout("generate_responses").shards:
            for policy in self.config.responses.policy_models:
                self._answers_file(policy, topic, shard)
        self._is_giving = False

    @property
    def reward_stages(self) -> dict[str, str]:
        """The stages in whose files the rewards' scores are, by the rewards' names."""
        return {
            name: f"response_rewards/{name}" if name else "response_ranking"
            for name in rewards_of(self.config.response_ranking)
        }

    def reward_files(self) -> dict[str, list[str]]:
        """The scores of all rewards, as named inputs of a rule."""
        stages = self.reward_stages.items()
        return {scores_input(name): self.stages.files(stage) for name, stage in stages}

    def rewards_of_shard(self) -> dict[str, str]:
        """The scores of all rewards in one shard, as named inputs of its rule, which has the same
        shards.
        """
        return {
            scores_input(name): f"{self.root}/{stage}/{{topic}}/{{shard}}.jsonl"
            for name, stage in self.reward_stages.items()
        }

    def pairs_of_size(self, size: str) -> list[str]:
        """The files that a data set of `size` pairs is made from; a UserError if there are fewer
        prompts than that.
        """
        if size != ALL and int(size) > self.prompts:
            raise UserError(
                f"pairs.sizes: {size} is larger than the {self.prompts} prompts there are in"
                f" '{self.config.prompts}', and a prompt gives at most one pair. Ask for a smaller"
                " data set or for `all`, or write more prompts (target `prompts`)."
            )
        return self.stages.files("pairs")

    @cached_property
    def prompts(self) -> int:
        """How many prompts there are in all."""
        return sum(len(shard.prompts) for shard in self.shards.values())

    @cached_property
    def left_out(self) -> dict[str, str]:
        """The data set sizes that cannot be made, each as text, with the reason. Known once a run:
        what a job finds later changes nothing in it.
        """
        if self._start:
            return self._start.left_out
        if not self.makes_pairs:
            return {}
        reasons = {str(size): self._why_left_out(size) for size in self.config.pairs.sizes}
        return {size: reason for size, reason in reasons.items() if reason}

    def _why_left_out(self, size: Size) -> str:
        """Why there can be no data set of a size; empty where there can be, or may be."""
        if isinstance(size, str) or size in self.frozen_sizes:
            return ""
        if size > self.prompts:
            return f"there are {self.prompts} prompts, and a prompt gives at most one pair"
        if not self.is_up_to_date(size) and (pairs := self._pairs_there) is not None:
            return f"the {self.prompts} prompts gave {pairs} pairs" if size > pairs else ""
        return ""

    def found_too_large(self) -> dict[str, str]:
        """The sizes that this run was to make and cannot, now that its pairs are there, with the
        reasons.
        """
        vars(self).pop("_pairs_there", None)  # what was known when the run began
        reasons = {str(size): self._why_left_out(size) for size in self.sizes()}
        return {size: reason for size, reason in reasons.items() if reason}

    @cached_property
    def frozen_sizes(self) -> list[Size]:
        """The sizes of the data sets that are there, whole, and are to stay (`pairs.freeze`)."""
        return [
            size
            for size in self.config.pairs.sizes
            if self.config.pairs.freeze
            and self.makes_pairs
            and all(Path(self.root, "dataset", str(size), name).exists() for name in NEEDED_FILES)
        ]

    def data_set_files(self, size: Size) -> list[str]:
        """The files of a data set. A frozen one has those that were made with it."""
        files = [f"{self.root}/dataset/{size}/{name}" for name in DATA_SET_FILES]
        if size in self.frozen_sizes:
            return [file for file in files if Path(file).is_file()]
        return files

    def is_up_to_date(self, size: Size) -> bool:
        """Whether a data set is there that was made from the pairs as they are."""
        made = Path(self.root, "dataset", str(size), "dataset.json")
        pairs = [Path(path) for path in self.stages.files("pairs")]
        if not made.is_file() or not all(path.is_file() for path in pairs):
            return False
        return made.stat().st_mtime >= max(path.stat().st_mtime for path in pairs)

    @cached_property
    def _pairs_there(self) -> int | None:
        """How many pairs the prompts gave; None where that is not known, since pairs are still to
        be made, or were made from other prompts or settings.
        """
        for topic, name in self.stages.layout("build_pairs").shards:
            record = read_record(Path(self.root, "work", "build_pairs", topic, f"{name}.json"))
            if record is None or record.asked != digest_of_params(self.pairs_params(topic, name)):
                return None
        files = self.stages.files("pairs")
        if not all(Path(path).is_file() for path in files):
            return None
        try:
            return len(ordered_pairs(read_shards(files, PairRow).values()))
        except UserError:
            return None  # a damaged file: the job that reads it says so

    def sizes(self) -> list[Size]:
        """The sizes of the data sets to make, in the configured order."""
        sizes = self.config.pairs.sizes if self.makes_pairs else []
        return [size for size in sizes if str(size) not in self.left_out]

    def experiments(self) -> list[str]:
        """The experiments whose data set can be made, in the configured order."""
        return [
            name
            for name, experiment in self.config.training.experiments.items()
            if str(experiment.size) not in self.left_out
        ]

    @property
    def answers_sheet(self) -> AnswersSheet | None:
        """The configured sheet of answers; None where there is none, or its experiment is left
        out.
        """
        sheet = self.config.figures.answers
        return sheet if sheet and sheet.experiment in self.experiments() else None

    @cached_property
    def review_files(self) -> ReviewFiles:
        """The files in which people say something of this run's pairs. Read once a run. Errors:
        UserError where one cannot be used.
        """
        ids = PromptIds(self.stages.layout("generate_images"))
        return ReviewFiles(Path(self.config.reviews), self.config.run, ids)

    @property
    def reviews(self) -> Reviews:
        """What people said of pairs, by prompt id."""
        if self._start:
            return self._start.reviews
        return self.review_files.reviews if self.makes_pairs else {}

    @property
    def verdicts(self) -> list[BlindVerdict]:
        """What people said in the report's blind mode."""
        if self._start:
            return self._start.verdicts
        return self.review_files.verdicts if self.makes_pairs else []

    def pairs_job(self, topic: str, name: str) -> BuildPairsJob:
        """What a job of build_pairs is told: a review reruns one shard."""
        config = self.config
        has = self.stages.shard("build_pairs", topic, name).prompts.has
        return BuildPairsJob(
            policies=config.responses.answer_names,
            min_margin=config.pairs.min_margin,
            base_model=config.training.base_model,
            prompt_template=config.training.prompt_template,
            system_prompt=config.training.system_prompt,
            max_length=config.training.settings.max_length,
            length_control=config.pairs.length_control,
            max_disagreement=config.pairs.max_disagreement,
            reviews={each: self.reviews[each] for each in sorted(self.reviews) if has(each)},
        )

    def pairs_settings(self, topic: str, name: str) -> dict[str, Any]:
        """`pairs_job` as the rule's parameter; where nobody reviewed a pair of the shard, as before
        there were reviews.
        """
        settings = self.params(self.pairs_job(topic, name))
        return {key: value for key, value in settings.items() if key != "reviews" or value}

    def check_pairs_job(self) -> CheckPairsJob:
        """What the job of check_pairs is told."""
        quality = self.config.pairs.quality
        return CheckPairsJob(
            max_share=quality.max_share,
            pictures=quality.pictures,
            max_image_megapixels=self.config.max_image_megapixels,
        )

    def pairs_params(self, topic: str, name: str) -> dict[str, Any]:
        """All parameters of a job of build_pairs, as its rule has them."""
        return {
            "common": self.common(),
            "prompts": self.stages.digests_of("build_pairs", topic, name),
            "settings": self.pairs_settings(topic, name),
            "made_by": self.made_by(self.config.training.base_model),
            **self.content_params(),
        }

    def content_params(self) -> dict[str, list[str]]:
        """The parameter of build_pairs that names the content checkers; none where nobody looks, as
        before there were any.
        """
        names = list(self.config.pairs.content_check)
        return {"content_checks": names} if names else {}

    def stages_of_prompt(self, prompt_id: str) -> dict[str, str]:
        """The files that tell of one prompt, by stage."""
        stages = [
            "images",
            *(f"image_ranking/{scorer}" for scorer in self.config.image_ranking.scorers),
            "response_ranking",
            "pairs",
        ]
        return {stage: self.stages.file_of(stage, prompt_id) for stage in stages}

    def models(self) -> list[str]:
        """The models to evaluate: the base model, every experiment that can be made, and models of
        others, in the configured order.
        """
        return ["base", *self.experiments(), *self.config.evaluation.models]

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

    def generated_by(self, generator: GeneratorSettings | None) -> dict[str, Any] | None:
        """`made_by` of what runs a model that writes or answers in a job; None where none does."""
        return self.made_by(generator, GENERATORS) if generator else None

    def _made_by(self, files: Iterable[str]) -> set[str]:
        """The rules whose jobs published these files last, by their records."""
        root = Path(self.root)
        inside = [path for path in map(Path, files) if path.is_relative_to(root)]
        return {record.rule for path in inside if (record := record_of(root, path))}

    def why_again(self, job: Any, is_remembered: bool) -> str:
        """Why a job of Snakemake's graph is to run again by its record, though its outputs are
        there and newer than its inputs; empty where it is not. `is_remembered`: whether Snakemake
        knows what it was asked.
        """
        rule = own_name(job.rule)
        if rule == "add_prompts":
            return "prompts are missing" if all(map(os.path.exists, job.output)) else ""
        reasons = (self._why_again(rule, part, is_remembered) for part in parts_of(job))
        return next(filter(None, reasons), "")

    def _why_again(self, rule: str, job: Any, is_remembered: bool) -> str:
        """`why_again` of one of the jobs that a job of Snakemake's is."""
        is_there = all(Path(file).exists() for file in job.output)
        name = "/".join(job.wildcards) or rule
        record = read_record(Path(self.root, "work", rule, f"{name}.json"))
        if record is None:
            return "no record in work/ tells what made it" if is_there else ""
        if record.failed:
            return f"{record.failed} of its items failed"
        if record.lacks_files(Path(self.root)):
            return "one of its files is gone"
        # Snakemake makes what is gone for those alone that it has reason to run.
        if rule == GATHER and not all(map(os.path.exists, job.input)):
            return "one of the files that it gathers is gone"
        if others := self._made_by(job.output) - {rule}:
            return f"{min(others)} has made its files since"
        if not is_remembered and record.asked != digest_of_params(dict(job.params.items())):
            return "its record in work/ says that it was asked for something else"
        return ""
