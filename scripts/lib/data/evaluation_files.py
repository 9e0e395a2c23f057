"""What `results/<run>/evaluation/<model>/<benchmark>/` holds, and what `contamination/` does."""

from typing import Any, NotRequired, TypedDict

from lib.data.rows import Missing


class JudgeName(TypedDict):
    """A judge: the model as configured, and the version that answered."""

    model: str
    version: str


class ComputedBy(TypedDict):
    """What made a score of the answers.

    scorer          its name and version, in words
    parser          how an answer was read, in words; None where the scorer's name says it
    judge           whose judgements it is made of
    language_tools  tokenizer, tagger, lemmatiser and word vectors, where a scorer uses any
    """

    scorer: str
    parser: str | None
    judge: JudgeName | None
    language_tools: str | None


class TaskAnswer(TypedDict):
    """A line of answers.jsonl of rule answer_benchmark: lmms-eval's sample, as far as it is kept.

    What stands after `tokens` is there where the task says it; `picture`: what the pictures of its
    row are known by (`digest_of_pictures`), which answers from before do not say.
    """

    id: int
    question: str
    target: Any
    response: str
    tokens: int
    question_id: NotRequired[Any]
    category: NotRequired[Any]
    score: NotRequired[Any]
    eval_model: NotRequired[str]
    capability: NotRequired[Any]
    bare_question: NotRequired[str]
    picture: NotRequired[str]


class KeptResults(TypedDict):
    """lmms-eval's metrics, and how many questions it asked of those there are. `unjudged`: metrics
    that are not there because a judge would have had to give them, and was not asked.
    """

    metrics: dict[str, float]
    questions: int
    questions_in_data: int
    unjudged: NotRequired[list[str]]
    environment: NotRequired[dict[str, str]]


class TaskResults(KeptResults):
    """results.json of rule answer_benchmark. `data`: what was asked, the commit by the name of the
    hub's data set, or sha256 by split of local data.
    """

    model: str
    benchmark: str
    model_identity: str
    task: str
    limit: int | None
    data: dict[str, str]
    lmms_eval: str
    judge: JudgeName | None


class QuestionAnswer(TypedDict):
    """A line of answers.jsonl of rule answer_questions: a question with its answer, or the reason
    why there is none. `image`: the name of its file, by which, with the question, a scorer finds
    what is right.
    """

    id: str
    question: str
    image_sha256: str
    image: NotRequired[str]
    kind: NotRequired[str]
    response: NotRequired[str]
    finish_reason: NotRequired[str]
    tokens: NotRequired[int]
    missing: NotRequired[Missing]


class Asked(TypedDict):
    """asked.json of rule answer_questions: whose answers they are, and how they came about."""

    model: str
    benchmark: str
    model_identity: str
    limit: int | None
    questions: int
    questions_in_data: int
    generation: dict[str, Any]
    environment: dict[str, str]
    prompts: str | dict[str, str]
    files: dict[str, str]


class ScoresOf(TypedDict):
    """What scores.json begins with: whose scores they are, and of how many questions."""

    model: str
    benchmark: str
    model_identity: str
    limit: int | None
    questions: int
    questions_in_data: int


class BenchmarkScores(ScoresOf):
    """scores.json: the scores by name, why others are missing, and what to know of them.

    `not_comparable`: the scores that are not comparable with published ones, and why.
    """

    scores: dict[str, float]
    missing: dict[str, str]
    doubts: dict[str, Any]
    not_comparable: NotRequired[dict[str, str]]


class TaskScores(BenchmarkScores):
    """scores.json of rule score_benchmark. `also`: our scorer's, where there is one."""

    task: str
    lmms_eval: str
    also: NotRequired["OtherScores"]


class OtherScores(TypedDict):
    """The scores of our scorer beside lmms-eval's. `judgements`: raw ones by question."""

    scores: dict[str, float]
    computed_by: ComputedBy
    doubts: dict[str, Any]
    per_type: dict[str, dict[str, float]]
    problems: int
    intervals: dict[str, list[float]]
    judgements: NotRequired[dict[str, list[str | None]]]


class QuestionScore(TypedDict):
    """A line of by_question.jsonl: what one answer was given.

    line     of the answer in answers.jsonl, from 1
    score    larger is better; 0 or 1 where an answer is right or wrong
    picture  what the question is about, by a name that questions of one picture share; the
             question's own where no picture is known
    target   what is right, or there to be seen, in words, as far as the scorer says it
    """

    id: str
    line: int
    score: float
    picture: str
    target: str


class Problems(TypedDict):
    """How many rows of the answers are bad, and what is wrong with the first."""

    count: int
    first: list[str]


class AnswerScores(BenchmarkScores):
    """scores.json of rule score_answers. `names`: score -> what it is; `reference`: the digests of
    what the answers are held against.
    """

    per_type: dict[str, dict[str, float]]
    intervals: dict[str, list[float]]
    problems: Problems
    names: dict[str, str]
    reference: dict[str, str]


class IndexedQuestion(TypedDict):
    """A line of contamination/benchmarks.jsonl: a question with the perceptual hash of its image,
    or of one of several.
    """

    benchmark: str
    id: str
    question: str
    image: str | None


class Coverage(TypedDict):
    """What contamination/coverage.json says of a benchmark: whether it is in the index, and why
    not.
    """

    checked: bool
    why: NotRequired[str]
    questions: NotRequired[int]
    different_images: NotRequired[int]
    files: NotRequired[dict[str, str]]
