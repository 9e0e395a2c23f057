"""Rule build_pairs: best and worst response of each prompt become its preference pair (paper 3.3,
Eq. 10), or the reason why not.

Chosen is the first maximum of the response rewards, rejected the first minimum, among the valid
responses only. An ensemble's rewards may disagree about the two, by more than the configuration
allows. A prompt that a benchmark has in common with the training data (rule
check_contamination) gives no pair where the configuration says so.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from lib import weights
from lib.blocks import deciding
from lib.chat_template import FILES, INSTRUCTION, asked_as, with_own_mark
from lib.config.pairs import BuildPairsJob
from lib.data.ensembles import disagreement
from lib.data.image_files import image_size
from lib.data.lengths import log_length
from lib.data.reviews import reviewed, reviews_of_pair
from lib.data.rows import (
    ContentRow,
    MissingRow,
    OverlapsRow,
    Pair,
    PairRow,
    PairSide,
    PickedImage,
    RankedResponse,
    ResponseRankingRow,
)
from lib.data.shards import (
    files_by_name,
    present,
    read_whole_shard,
    read_whole_shards,
    stage_rows,
)
from lib.jobs.batches import Batches
from lib.jobs.job import Job
from lib.jobs.script import run_script
from lib.jobs.streams import Item

if TYPE_CHECKING:
    from tokenizers import Tokenizer

VERSION = 1
IN_A_BENCHMARK = "in a benchmark"
#: The architecture whose images all take the same number of tokens.
LLAVA = "llava"
Tokens = Sequence[int]
CountTokens = Callable[[PickedImage], int]


class PairOrReason(TypedDict):
    """A pair, or why there is none."""

    pair: NotRequired[Pair]
    no_pair: NotRequired[str]


class PairResult(PairOrReason):
    """The result of an item: `PairRow` without its prompt."""

    image: PickedImage
    instruction: str
    invalid_responses: dict[str, str]


@dataclass(frozen=True)
class RankedPrompt:
    """What a pair is made of; `responses`: by policy model, in the configured order; `findings`:
    content checker -> the places where it found something.
    """

    row: ResponseRankingRow
    responses: Mapping[str, RankedResponse]
    in_a_benchmark: bool
    findings: Mapping[str, Sequence[str]]


class VisionConfig(TypedDict):
    """Of a LLaVA model's `config.json`: its images in pixels."""

    image_size: int
    patch_size: int


class LlavaConfig(TypedDict):
    """Of a LLaVA model's `config.json`: what says how many tokens an image takes."""

    model_type: NotRequired[str]
    vision_config: VisionConfig
    image_seq_length: NotRequired[int]


@dataclass(frozen=True)
class ContextOfTraining:
    """What training reads of a pair: the base model's tokenizer, and the room in its context."""

    tokenizer: "Tokenizer"
    image_tokens: CountTokens
    prompt_template: str
    max_length: int

    def room_behind(self, image: PickedImage, instruction: str) -> int:
        """The tokens that image and instruction leave for a response."""
        prompt = self.prompt_template.replace(INSTRUCTION, instruction)
        taken = self.image_tokens(image) + len(self.tokenizer.encode(prompt).ids)
        return self.max_length - taken


def tokens_of_llava(config: LlavaConfig) -> int:
    """How many tokens of a LLaVA-1.5 model's context an image takes, whatever its size."""
    if "image_seq_length" in config:
        return config["image_seq_length"]
    vision = config["vision_config"]
    return int((vision["image_size"] // vision["patch_size"]) ** 2)


def config_of(folder: Path) -> LlavaConfig:
    """A base model's `config.json`."""
    config: LlavaConfig = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config


def is_llava(folder: Path) -> bool:
    """Whether the images of a base model all take the same number of tokens."""
    return config_of(folder).get("model_type") == LLAVA


def same_for_all(tokens: int) -> CountTokens:
    """Counts an image's tokens where all images take as many."""
    return lambda image: tokens


def counted_by_processor(folder: Path, prompt_template: str, root: Path) -> CountTokens:
    """Counts an image's tokens as the base model's processor does, from the size that the header
    of its file under `root` says. Errors: UserError.
    """
    from lib.training.image_tokens import ImageTokens, load_processor

    tokens = ImageTokens(load_processor(folder), prompt_template)
    return lambda image: tokens.of_size(image_size(root / image["file"]))


def pair_of(
    responses: Mapping[str, RankedResponse],
    min_margin: float,
    max_disagreement: float | None = None,
) -> PairOrReason:
    """The pair of a prompt's responses, or why they give none.

    `responses`: by policy model in the configured order, either with `text` and `score`, or with
    `invalid`. `max_disagreement`: between the rewards of an ensemble; None where any is allowed.
    """
    valid = {
        policy: response for policy, response in responses.items() if "invalid" not in response
    }
    if len(valid) < 2:
        return {"no_pair": "fewer than two valid responses"}
    best = max(valid, key=lambda policy: valid[policy]["score"])
    worst = min(valid, key=lambda policy: valid[policy]["score"])
    margin = valid[best]["score"] - valid[worst]["score"]
    if margin == 0:
        return {"no_pair": "tie"}
    if margin <= min_margin:
        return {"no_pair": "margin too small"}
    pair: Pair = {
        "chosen": side_of(best, valid[best]),
        "rejected": side_of(worst, valid[worst]),
        "margin": margin,
    }
    if (found := disagreement(valid[best], valid[worst])) is not None:
        if max_disagreement is not None and found > max_disagreement:
            return {"no_pair": "rewards disagree"}
        pair["disagreement"] = found
    return {"pair": pair}


def side_of(policy: str, response: RankedResponse) -> PairSide:
    """A response as one side of a pair."""
    side: PairSide = {"policy": policy, "text": response["text"], "score": response["score"]}
    if "reward" in response:
        side["reward"] = response["reward"]
    return side


def without_length(response: RankedResponse, slope: float) -> RankedResponse:
    """A response whose score is what its length leaves of the reward. `slope`: what the reward
    gains as log length grows by 1.
    """
    if "score" not in response:
        return response
    reward = response["score"]
    score = reward - slope * log_length(response["text"])
    return {**response, "score": score, "reward": reward}


def same_after_truncation(chosen: Tokens, rejected: Tokens, room: int) -> bool:
    """Whether training, which cuts a response to `room` tokens, would see the same text twice."""
    return list(chosen[:room]) == list(rejected[:room])


def unusable_for_training(
    instruction: str, pair: Pair, tokenizer: "Tokenizer", room: int
) -> str | None:
    """Why training could not use a pair as it is written, or None.

    `tokenizer`: the base model's; `room`: tokens left for a response by image and instruction.
    """
    responses = (pair["chosen"]["text"], pair["rejected"]["text"])
    special = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    if any(token in text for token in special for text in (instruction, *responses)):
        return "special token in a text"
    if room <= 0:
        return "no room for a response"
    chosen, rejected = (tokenizer.encode(text, add_special_tokens=False).ids for text in responses)
    return "same after truncation" if same_after_truncation(chosen, rejected, room) else None


def found_by(findings: Mapping[str, Sequence[str]], pair: Pair) -> str | None:
    """The first content checker that found something in what the pair would publish. What it found
    in a response that is no part of the pair does not count.
    """
    sides = {f"responses/{pair[side]['policy']}" for side in ("chosen", "rejected")}
    return next(
        (
            checker
            for checker, places in findings.items()
            if any(place in sides or not place.startswith("responses/") for place in places)
        ),
        None,
    )


def usable_pair(
    prompt: RankedPrompt,
    context: ContextOfTraining,
    min_margin: float,
    max_disagreement: float | None = None,
) -> PairOrReason:
    """The pair of a prompt, or why it gives none."""
    if prompt.in_a_benchmark:
        return {"no_pair": IN_A_BENCHMARK}
    best_and_worst = pair_of(prompt.responses, min_margin, max_disagreement)
    if "pair" not in best_and_worst:
        return best_and_worst
    if checker := found_by(prompt.findings, best_and_worst["pair"]):
        return {"no_pair": f"found by content check {checker}"}
    instruction = prompt.row["instruction"]
    room = context.room_behind(prompt.row["image"], instruction)
    reason = unusable_for_training(instruction, best_and_worst["pair"], context.tokenizer, room)
    return {"no_pair": reason} if reason else best_and_worst


def invalid_responses(responses: Mapping[str, RankedResponse]) -> dict[str, str]:
    """Why responses were not ranked, by policy model."""
    return {
        policy: response["invalid"]
        for policy, response in responses.items()
        if "invalid" in response
    }


def load_context(settings: BuildPairsJob, prompt_template: str, root: Path) -> ContextOfTraining:
    """The base model's tokenizer, and what training asks with. `root`: the run's folder."""
    from tokenizers import Tokenizer

    base = settings.base_model
    folder = weights.fetch(base.model, base.revision, only=FILES)
    prompt_template = with_own_mark(prompt_template, folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    if is_llava(folder):
        count = same_for_all(tokens_of_llava(config_of(folder)))
    else:
        count = counted_by_processor(folder, prompt_template, root)
    return ContextOfTraining(tokenizer, count, prompt_template, settings.max_length)


def in_benchmarks(job: Job[Any], files: Sequence[str]) -> set[str]:
    """The ids of the prompts that a benchmark has too, from the shards of check_contamination."""
    rows = present(read_whole_shards(job, files, OverlapsRow).values())
    return {row["id"] for row in rows if row["overlaps"]}


def content_files(snakemake: Any) -> dict[str, Sequence[str]]:
    """The files of content checkers by their names; none where nobody looks."""
    names = snakemake.params.get("content_checks", [])
    return files_by_name(names, snakemake.input.content) if names else {}


def slope_in(snakemake: Any) -> float | None:
    """The slope of the reward on log length that rule fit_length found; None where it is not asked
    for.
    """
    for path in getattr(snakemake.input, "lengths", []):
        return float(json.loads(Path(path).read_text(encoding="utf-8"))["used_slope"])
    return None


def findings_in(
    job: Job[Any], files: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, list[str]]]:
    """Where content checkers found something, by prompt id and checker. `files`: the shard's, by
    checker.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for checker, of_checker in files.items():
        for row in present(read_whole_shard(job, of_checker, ContentRow).values()):
            if row["findings"]:
                places = sorted({finding["of"] for finding in row["findings"]})
                found.setdefault(row["id"], {})[checker] = places
    return found


def what_decides(response: RankedResponse) -> dict[str, object]:
    """What of a response decides the pair."""
    decides: dict[str, object] = {
        name: value for name, value in response.items() if name in ("text", "score", "invalid")
    }
    if "parts" in response:
        decides["parts"] = {
            name: (part["standardised"], part["weight"]) for name, part in response["parts"].items()
        }
    return decides


def item_of(
    row: ResponseRankingRow,
    job: Job[BuildPairsJob],
    tokenizer: str,
    asked: Mapping[str, object],
    in_a_benchmark: bool,
    findings: Mapping[str, Sequence[str]],
    slope: float | None = None,
) -> Item[RankedPrompt]:
    """The item of a prompt. `tokenizer`: what identifies it; `asked`: of `how_it_is_asked`;
    `findings`: as in `RankedPrompt`; `slope`: of the reward on log length, where lengths are
    controlled.
    """
    # In the configured order, which decides between equals: JSON files keep their keys sorted.
    responses = {policy: row["responses"][policy] for policy in job.settings.policies}
    if slope is not None:
        responses = {name: without_length(each, slope) for name, each in responses.items()}
    key = job.key(
        responses={policy: what_decides(response) for policy, response in responses.items()},
        image=row["image"],
        instruction=row["instruction"],
        tokenizer=tokenizer,
        **{**deciding(job.settings), **asked},
        **({"in_a_benchmark": True} if in_a_benchmark else {}),
        **({"findings": dict(findings)} if findings else {}),
    )
    return Item(row["id"], key, RankedPrompt(row, responses, in_a_benchmark, findings))


def how_it_is_asked(settings: BuildPairsJob) -> dict[str, object]:
    """What of a key says how training asks, and how an image's tokens are counted where they are
    not LLaVA-1.5's.
    """
    base = settings.base_model
    prompt_template = asked_as(base, settings.prompt_template, settings.system_prompt)
    asked: dict[str, object] = {"prompt_template": prompt_template}
    if not is_llava(weights.fetch(base.model, base.revision, only=FILES)):
        asked["image_tokens"] = "of the processor"
    return asked


def result_of(
    prompt: RankedPrompt, context: ContextOfTraining, settings: BuildPairsJob
) -> PairResult:
    """The result of an item."""
    return {
        "image": prompt.row["image"],
        "instruction": prompt.row["instruction"],
        "invalid_responses": invalid_responses(prompt.responses),
        **usable_pair(prompt, context, settings.min_margin, settings.max_disagreement),
    }


def with_reviews(
    job: Job[BuildPairsJob], rows: Sequence[PairRow | MissingRow]
) -> list[PairRow | MissingRow]:
    """The rows after what people said of their pairs. What they said of pairs that are others by
    now is told, and does not count.
    """
    said = [job.settings.reviews.get(row["id"], []) for row in rows]
    old = [
        row["id"]
        for row, reviews in zip(rows, said, strict=True)
        if reviews_of_pair(row, reviews) != reviews
    ]
    if old:
        job.note(
            f"some reviews of {len(old)} prompts are of other pairs than there are now, and do not"
            f" count: {', '.join(old[:5])}{' ...' if len(old) > 5 else ''}"
        )
    return [reviewed(row, reviews) for row, reviews in zip(rows, said, strict=True)]


def main(snakemake: Any) -> None:
    with Job(snakemake, BuildPairsJob, VERSION) as job:
        settings = job.settings
        rows = read_whole_shard(job, snakemake.input.ranking, ResponseRankingRow)
        excluded = in_benchmarks(job, snakemake.input.overlaps)
        findings = findings_in(job, content_files(snakemake))
        tokenizer = job.identify(settings.base_model)
        slope = slope_in(snakemake)
        asked = how_it_is_asked(settings)
        prompt_template = str(asked["prompt_template"])

        def load() -> ContextOfTraining:
            return load_context(settings, prompt_template, job.root)

        def build(
            context: ContextOfTraining, batch: Sequence[Item[RankedPrompt]]
        ) -> list[PairResult]:
            return [result_of(item.inputs, context, settings) for item in batch]

        outcomes = Batches(job, load=load, compute=build).run(
            [
                item_of(
                    row,
                    job,
                    tokenizer,
                    asked,
                    row["id"] in excluded,
                    findings.get(row["id"], {}),
                    slope,
                )
                for row in present(rows.values())
            ]
        )
        made: list[Any] = stage_rows(rows, outcomes, job.rule)
        job.publish(snakemake.output[0], with_reviews(job, made))


if __name__ == "__main__":
    run_script(main)
