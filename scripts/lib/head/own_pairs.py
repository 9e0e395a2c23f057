"""What the rules of pairs that one has already are told, and which files they read and write.

Called by the rules; nothing here runs a model.
"""

from functools import cache

from lib.config.contamination import CheckOwnPairsJob, OverlapMeasures
from lib.config.training import ImportPairsJob
from lib.data.own_pairs import contents_of, count_own_pairs
from lib.data.pair_forms.settings import OwnPairs
from lib.errors import UserError
from lib.head import evaluation
from lib.head.plan import Plan


def import_job(plan: Plan, name: str) -> ImportPairsJob:
    """Which pairs are imported. `name`: of their folder (`OwnPairs.folder`), as below."""
    return ImportPairsJob(
        pairs=plan.own_pairs[name],
        validation=plan.config.pairs.validation,
        max_image_megapixels=plan.config.max_image_megapixels,
    )


def check_job(plan: Plan, name: str) -> CheckOwnPairsJob:
    """Which pairs are held against the benchmarks, and what counts as an overlap."""
    config = plan.config
    return CheckOwnPairsJob(
        **config.evaluation.contamination.model_dump(include=set(OverlapMeasures.model_fields)),
        pairs=plan.own_pairs[name],
        max_image_megapixels=config.max_image_megapixels,
    )


def overlaps(plan: Plan, name: str) -> list[str]:
    """What says which pairs a benchmark has too, where such are to be left out."""
    is_left_out = plan.config.evaluation.contamination.exclude
    return [each for each in contamination_files(plan) if is_left_out and f"/{name}." in each]


def contamination_files(plan: Plan) -> list[str]:
    """What own pairs and benchmarks have in common, a file a source; none where there is nothing to
    hold them against.
    """
    if not evaluation.is_checked(plan):
        return []
    return [f"{plan.root}/contamination/{name}.jsonl" for name in plan.own_pairs]


def contents(plan: Plan, name: str) -> dict[str, str]:
    """What the files of pairs and their pictures contain, by path. Snakemake reruns the rules that
    read them when it changes, whatever the files' times say.
    """
    return _contents(plan.own_pairs[name])


@cache
def _contents(pairs: OwnPairs) -> dict[str, str]:
    """... found once a process: a run is what it was when it started. What is wrong with them is
    told by preflight, and until then stands for it: Snakemake would put a traceback around it.
    """
    try:
        return contents_of(pairs)
    except UserError as error:
        return {pairs.source: str(error)}


def problems_with(plan: Plan, name: str) -> list[str]:
    """What is wrong with pairs that are on this machine, record by record."""
    pairs = plan.own_pairs[name]
    try:
        if pairs.is_readable:
            count_own_pairs(pairs)
    except UserError as error:
        return [f"{key_of(plan, name)}: {error}"]
    return []


def key_of(plan: Plan, name: str) -> str:
    """The configuration key of pairs, of the first experiment that has them."""
    experiments = plan.config.training.experiments.items()
    named = (each for each, of in experiments if of.pairs and of.pairs.folder == name)
    return f"training.experiments.{next(named)}.pairs"
