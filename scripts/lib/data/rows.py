"""The rows of the published shard files, stage by stage: what `results/<run>/<stage>/` holds.

Each row begins with its prompt's id, topic and text; in the files all keys are sorted.
"""

from typing import Any, NotRequired, TypedDict


class PromptRow(TypedDict):
    """What every row begins with."""

    id: str
    topic: str
    prompt: str


class Missing(TypedDict):
    """The rule that has no result for a prompt, and why."""

    rule: str
    reason: str


class MissingRow(PromptRow):
    """The row of a prompt that this or an earlier stage has no result for."""

    missing: Missing


class PictureSource(TypedDict):
    """The file that a picture of the user's own was taken from: its name from the folder on, its
    sha256 (hex) and its size, and what was changed; nothing where it is the same bytes.
    """

    name: str
    sha256: str
    bytes: int
    changed: list[str]


class Candidate(TypedDict):
    """One image of a prompt: its guidance scale, its seed, its file (relative to the run's folder),
    that file's sha256 (hex), and whether it shows one colour only. A picture of the user's own has
    neither scale nor seed, but a `source`.
    """

    guidance_scale: float | None
    seed: int | None
    file: str
    sha256: str
    blank: bool
    source: NotRequired[PictureSource]


class ImagesRow(PromptRow):
    """Stage images (rule generate_images)."""

    candidates: list[Candidate]


class ImageRankingRow(PromptRow):
    """Stage image ranking (rule rank_images).

    scores   of each candidate, in their order
    ranking  indexes of the candidates, best first
    winner   the first of `ranking`
    blank    indexes of the blank candidates
    """

    scores: list[float]
    ranking: list[int]
    winner: int
    blank: list[int]
    prompt_truncated: bool


class PickedImage(TypedDict):
    """The candidate that goes on, with its image reward; `drawn` where it was picked by chance."""

    file: str
    sha256: str
    guidance_scale: float | None
    score: float
    drawn: NotRequired[bool]


class PickedRow(PromptRow):
    """A prompt with its picked image."""

    image: PickedImage


class InstructionRow(PickedRow):
    """Stage instructions (rule write_instructions); `template` where one was drawn."""

    instruction: str
    template: NotRequired[str]


class ResponseRow(PickedRow):
    """Stage responses (rule generate_responses); `tokens` counts the end token too, and is not
    there where who answered did not say.
    """

    instruction: str
    response: str
    finish_reason: str
    tokens: NotRequired[int]


class Sample(TypedDict, total=False):
    """One of several answers of a policy model, or why it `failed`."""

    response: str
    finish_reason: str
    tokens: int
    failed: str


class SampledResponsesRow(PickedRow):
    """Stage responses of a policy model that answers several times (lib/data/samples.py)."""

    instruction: str
    samples: list[Sample]


class Claim(TypedDict):
    """A claim of a response, and the share of Yes among Yes and No where a model is asked whether
    the picture shows it. `rated_by`: of a model at an endpoint, whether the share is of the
    "probabilities" that it tells, or 1 or 0 by the "text" that it wrote.
    """

    text: str
    yes: float
    rated_by: NotRequired[str]


class RewardPart(TypedDict):
    """What one reward of an ensemble says of a response.

    score         as it gave it
    standardised  in standard deviations of the responses to one prompt, from the run's mean
    weight        its share of the weights
    details       what else it says of the response
    """

    score: float
    standardised: float
    weight: float
    details: dict[str, Any]


class RankedResponse(TypedDict, total=False):
    """One policy model's response with its reward, or why it is invalid.

    invalid  "empty", "truncated", "repeating", "failed" or "nan"
    detail   why it failed; which reward of an ensemble found it invalid, where others did not
    reward   in build_pairs: the response reward, where `score` is what length leaves of it
    score    the response reward; what else the reward model says of the response stands beside it
             (ArmoRM: attributes, rewards, gating, cut_for_scoring; docs/adding-a-model.md)
    spread   of an ensemble: the standard deviation between its rewards' standardised scores
    parts    ... what each of them says; their scores are its attributes, too
    rated_by  what a judge at an endpoint was read by: "probabilities" of its ratings, or "text"
    """

    text: str
    finish_reason: str
    invalid: str
    detail: str
    score: float
    reward: float
    attributes: dict[str, float]
    rewards: dict[str, float]
    gating: dict[str, float]
    cut_for_scoring: bool
    ratings: dict[str, float]
    rating_probability: float
    claims: list[Claim]
    failed_claims: list[str]
    spread: float
    parts: dict[str, RewardPart]
    rated_by: str


class ResponseRankingRow(PickedRow):
    """Stage response ranking (rule rank_responses; of an ensemble, combine_rewards): the responses
    by policy model; those of one that answers several times as `<name>#1`, `<name>#2`, ...
    """

    instruction: str
    responses: dict[str, RankedResponse]


class PairSide(TypedDict):
    """The chosen or the rejected response of a pair. `score`: what it was ranked by; where that is
    what length leaves of the reward (`pairs.length_control`), the reward is the `reward`.
    """

    policy: str
    text: str
    score: float
    reward: NotRequired[float]


class Pair(TypedDict):
    """A preference pair and the difference of its scores. `disagreement`: of an ensemble, the share
    of its rewards, by weight, that would have it the other way round (where reviewers swapped it:
    would have had it so before).
    """

    chosen: PairSide
    rejected: PairSide
    margin: float
    disagreement: NotRequired[float]


class PairReview(TypedDict):
    """What people said of a pair (lib/data/reviews.py): what counts, what each of them said and
    noted, and the size of the largest drawn sample that it was looked at as part of; 0 of none.
    """

    verdict: str
    by: dict[str, str]
    sample: int
    notes: NotRequired[dict[str, str]]


class PairRow(PickedRow):
    """Stage pairs (rule build_pairs): the prompt's pair, or the reason why there is none.

    `invalid_responses`: policy model -> why its response was not ranked. `review`: where people
    reviewed the pair; `left_out`: the pair that they had left out.
    """

    instruction: str
    invalid_responses: dict[str, str]
    pair: NotRequired[Pair]
    no_pair: NotRequired[str]
    review: NotRequired[PairReview]
    left_out: NotRequired[Pair]


class ContentFinding(TypedDict):
    """What a content checker found: where ("image", "prompt", "instruction", "responses/<policy>"),
    what, and how sure it is. The text itself is not repeated.
    """

    of: str
    what: str
    score: float


class ContentRow(PromptRow):
    """Rule check_content: what a content checker found in what a pair would publish."""

    findings: list[ContentFinding]


class OverlapEntry(TypedDict):
    """An `Overlap` (lib/contamination.py)."""

    of: str
    benchmark: str
    question: str
    questions: int
    measure: str
    value: float
    text: str


class OverlapsRow(PromptRow):
    """Rule check_contamination: what the prompt has in common with benchmarks."""

    overlaps: list[OverlapEntry]


class ListedOverlap(OverlapEntry):
    """Rule list_overlaps: an overlap with its prompt's id and topic."""

    id: str
    topic: str


class EmbeddingsRow(PromptRow):
    """Rule embed_texts: packed vectors of "prompt", "instruction" and "responses/<policy>"."""

    embeddings: dict[str, str]
