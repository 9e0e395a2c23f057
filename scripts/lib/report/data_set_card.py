"""The card of a data set (`README.md`): what is in it, how it was made, what its limits are."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from lib.blocks import Block
from lib.data.data_sets import PAIRS, TRAIN, reason_of
from lib.data.evaluation_files import Coverage
from lib.data.export_forms.base import Contents
from lib.data.export_forms.registry import FORMS
from lib.data.rows import ListedOverlap, MissingRow, PairRow
from lib.data.shards import is_missing
from lib.report.licence import Licence, UsedModel
from lib.report.markdown_card import (
    CITATION,
    PAPER,
    made_with,
    markdown_table,
    models_table,
    with_metadata,
)
from lib.report.review_counts import ReviewCounts
from lib.report.sidecar import Label
from lib.report.tables import markdown_text

#: The rules that a prompt goes through, in their order.
STEPS = {
    "generate_images": "with candidates (images)",
    "rank_images": "with a picked image",
    "write_instructions": "with an instruction",
    "generate_responses": "with responses",
    "rank_responses": "with ranked responses",
}
NO_CONTENT_CHECK = (
    "Personal and unsafe content was **not looked for**: no classifier has seen the images, and"
    " nothing has searched the texts for personal data."
)
#: The hub's size categories: below so many pairs.
SIZES = {
    "n<1K": 1_000,
    "1K<n<10K": 10_000,
    "10K<n<100K": 100_000,
    "100K<n<1M": 1_000_000,
    "1M<n<10M": 10_000_000,
}


class DataSetCardJob(Block):
    """What rule data_set_card is told.

    license           that its maker gives, by the hub's name
    instructions      where they come from, as a clause: "the instruction was ..."
    code              address of the repository of the code
    content_checks    who looked for unsafe or personal content, in words, by name
    configuration     the blocks that decide the data, as they were configured
    rewards_that_see  how many of the rewards that rank the answers see the picture
    """

    run: str
    label: Label
    license: str | None
    languages: list[str]
    code: str | None
    models: list[UsedModel]
    instructions: str
    content_checks: dict[str, str] = Field(default_factory=dict)
    configuration: dict[str, Any]
    rewards_that_see: Literal["none", "some", "all"] = "none"

    @property
    def has_own_pictures(self) -> bool:
        """Whether the images are pictures that no model of the run drew."""
        return bool(self.configuration.get("images", {}).get("kind") == "folder")


@dataclass
class Gathered:
    """What the pairs of a data set tell of themselves.

    longer          how often the chosen response has more characters than the rejected one, and
                    how often fewer
    characters      of all chosen and of all rejected responses
    """

    pairs: int = 0
    topics: Counter[str] = field(default_factory=Counter)
    policies: dict[str, Counter[str]] = field(
        default_factory=lambda: {"chosen": Counter(), "rejected": Counter()}
    )
    longer: int = 0
    shorter: int = 0
    characters: Counter[str] = field(default_factory=Counter)

    def add(self, row: PairRow) -> None:
        """Takes the next pair."""
        self.pairs += 1
        self.topics[row["topic"]] += 1
        chosen, rejected = row["pair"]["chosen"], row["pair"]["rejected"]
        for side, response in (("chosen", chosen), ("rejected", rejected)):
            self.policies[side][response["policy"]] += 1
            self.characters[side] += len(response["text"])
        difference = len(chosen["text"]) - len(rejected["text"])
        self.longer += difference > 0
        self.shorter += difference < 0


@dataclass(frozen=True)
class Findings:
    """What else the card tells: why prompts gave no pair and where they stopped, and what was held
    against benchmarks (None where nothing was), and what people said of pairs, in sentences.
    """

    reasons: Counter[str]
    stopped_at: Counter[str]
    coverage: Mapping[str, Coverage] | None = None
    overlaps: Sequence[ListedOverlap] = ()
    reviews: Sequence[str] = ()


def why_not(rows: Iterable[PairRow | MissingRow]) -> Findings:
    """Why prompts gave no pair, and at which rule they stopped."""
    reasons: Counter[str] = Counter()
    stopped: Counter[str] = Counter()
    reviews = ReviewCounts()
    for row in rows:
        reviews.add(row)
        reasons[reason_of(row)] += 1
        if is_missing(row):
            stopped[row["missing"]["rule"]] += 1
    return Findings(reasons, stopped, reviews=reviews.lines())


def data_set_card(
    job: DataSetCardJob,
    contents: Contents,
    gathered: Gathered,
    findings: Findings,
    licence: Licence,
    root: Path,
) -> str:
    """The card. `root`: the run's folder, whose records tell the models' commits."""
    sections = [
        f"# {title_of(job, contents)}",
        introduction(job, contents, findings),
        "## Use\n\n" + how_to_use(contents),
        "## What is in it\n\n" + what_is_in_it(job, contents, gathered),
        "## Licence\n\n" + f"{licence.reason} [LICENSE.md](LICENSE.md) names all terms.",
        "## How it was made\n\n" + how_it_was_made(job, findings, gathered, root),
        "## What was left out, and why\n\n" + left_out(findings),
        "## Known limits\n\n" + known_limits(job, gathered, findings),
        "## Cite\n\n" + CITATION,
        "## Exact configuration\n\n" + exact_configuration(job),
    ]
    return with_metadata(metadata_of(job, contents, licence), "\n\n".join(sections) + "\n")


def title_of(job: DataSetCardJob, contents: Contents) -> str:
    """The data set's name for people."""
    return f"PDS-DPO preference pairs: {job.run}, {contents.pairs} pairs"


def metadata_of(job: DataSetCardJob, contents: Contents, licence: Licence) -> dict[str, Any]:
    """The hub's metadata."""
    size = next((name for name, limit in SIZES.items() if contents.pairs < limit), "n>1T")
    return {
        **licence.metadata(),
        "language": job.languages,
        "pretty_name": title_of(job, contents),
        "task_categories": ["image-text-to-text", "visual-question-answering"],
        "size_categories": [size],
        "annotations_creators": ["machine-generated"],
        "language_creators": ["machine-generated"],
        "source_datasets": ["original"],
        "tags": ["dpo", "preference", "rlaif", "synthetic", "multimodal", "pds-dpo", "trl"],
        "configs": [config_of("default", "", contents)],
    }


def config_of(name: str, folder: str, contents: Contents) -> dict[str, Any]:
    """What the hub, and `datasets`, load by a name. `folder`: from the card on, with its slash."""
    files = [
        {"split": split, "path": f"{folder}data/{split}-*.parquet"} for split in contents.splits
    ]
    return {"config_name": name, "data_files": files}


def introduction(job: DataSetCardJob, contents: Contents, findings: Findings) -> str:
    """What it is, in a paragraph."""
    demo = (
        " **It is a demonstration's: tiny models made it, and no model is to be trained on it.**"
        if job.label == "demo"
        else ""
    )
    control = job.configuration.get("pairs", {}).get("length_control", "none")
    less = (
        " Answers were ranked by what is left of its reward when what it gains with their length is"
        " taken out; the scores here are that."
        if control != "none"
        else ""
    )
    rewards = job.configuration.get("response_ranking", {}).get("rewards", {})
    judge = (
        f"{len(rewards)} reward models together, by the mean of their standardised scores"
        if len(rewards) > 1
        else "a reward model"
    )
    made = (
        "The image is a picture of its maker's own, and models wrote the"
        if job.has_own_pictures
        else "Models made the image and wrote the"
    )
    people = (
        "people looked at some of its pairs (below)"
        if findings.reviews
        else "no human labelled anything"
    )
    return (
        f"{contents.pairs} preference pairs for aligning vision-language models: an image, an"
        " instruction about it, a chosen and a rejected answer."
        f" {made} answers; the instruction {job.instructions}. Which answer is the better one was"
        f" said by {judge}: {people}.{less} The method is that of"
        f" [PDS-DPO]({PAPER}).{demo}"
    )


def how_to_use(contents: Contents) -> str:
    """A line for each form."""
    forms = [form for form in FORMS if form.is_for(contents)]
    return "\n".join(f"- **{form.NAME}.** {form.USE.format(name=contents.name)}" for form in forms)


def what_is_in_it(job: DataSetCardJob, contents: Contents, gathered: Gathered) -> str:
    """Splits, columns and counts."""
    of_picture = (
        "`image_reward`"
        if job.has_own_pictures
        else "`image_reward`, `guidance_scale` and `image_seed`"
    )
    splits = markdown_table(["Split", "Pairs"], list(contents.splits.items()))
    held_out = (
        ""
        if TRAIN in contents.splits and len(contents.splits) == 1
        else "\n\nThe validation split was drawn by a hash of the text-to-image prompt, so that no"
        " prompt is on both sides."
    )
    topics = markdown_table(["Topic", "Pairs"], sorted(gathered.topics.items()))
    names = sorted({*gathered.policies["chosen"], *gathered.policies["rejected"]})
    policies = [
        [name, gathered.policies["chosen"][name], gathered.policies["rejected"][name]]
        for name in names
    ]
    return (
        f"{splits}{held_out}\n\n{topics}\n\n"
        + markdown_table(["Answering model", "Chosen", "Rejected"], policies)
        + "\n\n`prompt`, `chosen` and `rejected` are messages and `images` the picture; beside them"
        " stand `image_prompt` (the text-to-image prompt, which is not what is asked), `topic`, who"
        " answered (`chosen_policy`, `rejected_policy`), the rewards (`chosen_score`,"
        " `rejected_score`, their parts in `..._attributes` where the reward model gives any, and"
        f" the `margin` between them), and the picture's {of_picture}. `SHA256SUMS` has every"
        " file's digest (`sha256sum -c SHA256SUMS`), [CHANGELOG.md](CHANGELOG.md) what changed"
        " since it was made before."
    )


def how_it_was_made(job: DataSetCardJob, findings: Findings, gathered: Gathered, root: Path) -> str:
    """Models, seeds, and how many prompts came through each step."""
    seed = job.configuration.get("seed")
    left = sum(findings.reasons.values())
    steps: list[list[object]] = [["Prompts", left]]
    for rule, what in STEPS.items():
        left -= findings.stopped_at[rule]
        steps.append([f"Prompts {what}", left])
    steps += [["Pairs", findings.reasons[PAIRS]], ["Pairs in this data set", gathered.pairs]]
    seeds = (
        "of every answer is a hash of it and of the prompt's text"
        if job.has_own_pictures
        else "of every image and answer is a hash of it and of the prompt's text, and that of each"
        " image stands in `image_seed`"
    )
    return (
        f"{models_table(job.models, root)}\n\nThe run's seed is {seed}; the seed"
        f" {seeds}. {made_with(job.code)}\n\n{markdown_table(['Step', 'Number'], steps)}"
    )


def left_out(findings: Findings) -> str:
    """Why prompts gave no pair."""
    reasons = [
        [reason, count] for reason, count in findings.reasons.most_common() if reason != PAIRS
    ]
    told = (
        markdown_table(["Reason", "Prompts"], reasons) if reasons else "Every prompt gave a pair."
    )
    return "\n\n".join([told, *map(markdown_text, findings.reviews)])  # with reviewers' names


def content_checked(job: DataSetCardJob, findings: Findings) -> str:
    """What was looked for in pictures and texts, and how often it was found."""
    if not job.content_checks:
        return NO_CONTENT_CHECK
    told = "; ".join(
        f"{name}: {words}, found in {findings.reasons[f'found by content check {name}']} prompts"
        for name, words in job.content_checks.items()
    )
    return (
        f"Personal and unsafe content was looked for, and pairs with it were left out ({told})."
        " What these do not know they do not find."
    )


def known_limits(job: DataSetCardJob, gathered: Gathered, findings: Findings) -> str:
    """What whoever trains on it has to know."""
    limits = [*limits_of_rewards(job, gathered), limit_of_contamination(findings)]
    limits.append(content_checked(job, findings))
    return "\n".join(f"- {limit}" for limit in limits)


#: What a reward cannot tell, by whether the rewards that rank the answers see the picture.
BLIND = {
    "none": (
        "The reward that ranks the answers reads texts only: it has not seen the picture, and may"
        " prefer an answer that says what is not there."
    ),
    "some": (
        "Not all rewards that rank the answers see the picture: those that read texts only may"
        " prefer an answer that says what is not there."
    ),
    "all": (
        "The answers were ranked by models that see the picture, and that may take for shown what"
        " is not there."
    ),
}


def limits_of_rewards(job: DataSetCardJob, gathered: Gathered) -> list[str]:
    """What the rewards cannot tell."""
    count = max(gathered.pairs, 1)
    longer, shorter = gathered.longer / count, gathered.shorter / count
    means = {side: gathered.characters[side] / count for side in ("chosen", "rejected")}
    length = (
        f"Length: the chosen answer is the longer one in {longer:.1%} of the pairs and the shorter"
        f" one in {shorter:.1%} ({means['chosen']:.0f} against {means['rejected']:.0f} characters"
        " on average). A model may learn that instead of what the answers say."
    )
    return [BLIND[job.rewards_that_see], length]


def limit_of_contamination(findings: Findings) -> str:
    """What was held against benchmarks, and what was found."""
    if findings.coverage is None:
        return "Contamination: the pairs were **not held against any benchmark**."
    checked = sorted(name for name, each in findings.coverage.items() if each["checked"])
    unchecked = sorted(name for name, each in findings.coverage.items() if not each["checked"])
    found = Counter(overlap["benchmark"] for overlap in findings.overlaps)
    prompts = len({overlap["id"] for overlap in findings.overlaps})
    told = ", ".join(f"{name} {number}" for name, number in sorted(found.items()))
    text = (
        f"Contamination: held against {', '.join(checked) or 'no benchmark'}; {prompts} of these"
        f" pairs have something in common with one{f' ({told} overlaps)' if told else ''}."
    )
    return text + (f" **Not checked:** {', '.join(unchecked)}." if unchecked else "")


def exact_configuration(job: DataSetCardJob) -> str:
    """The configuration that a run of the workflow takes (`--configfile`)."""
    import yaml

    told = yaml.safe_dump(job.configuration, sort_keys=False, allow_unicode=True, width=100)
    return f"<details><summary>YAML</summary>\n\n```yaml\n{told}```\n\n</details>"
