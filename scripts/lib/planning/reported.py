"""What the report says that a run was planned to take: the jobs of models at the rates of the
project, without Snakemake's graph, which would be made anew for it.
"""

from collections.abc import Iterator
from pathlib import Path

from lib.config.report import PlannedTime
from lib.files import PROJECT
from lib.head.evaluation import parts, tasks
from lib.head.plan import Plan
from lib.planning.costs import plan_costs
from lib.planning.graph import PlannedJob
from lib.planning.rates import read_rates

RATES = PROJECT / "profiles/slurm/rates.yaml"


def jobs_with_models(plan: Plan) -> Iterator[PlannedJob]:
    """The jobs that hold a GPU."""
    config = plan.config
    for topic, shard in plan.shards:
        of_shard = {"topic": topic, "shard": shard}
        yield PlannedJob("generate_images", of_shard, 1)
        for scorer in config.image_ranking.scorers:
            yield PlannedJob("rank_images", {"scorer": scorer, **of_shard}, 1)
        for policy in config.responses.policy_models:
            yield PlannedJob("generate_responses", {"policy": policy, **of_shard}, 1)
        yield PlannedJob("rank_responses", of_shard, 1)
    for experiment in plan.experiments():
        gpus = config.training.settings_of(experiment).processes
        yield PlannedJob("train_dpo", {"experiment": experiment}, gpus)
    for model in plan.models():
        for benchmark in config.evaluation.benchmarks:
            names = {"model": model, "benchmark": benchmark}
            if benchmark not in tasks(plan):
                yield PlannedJob("answer_questions", names, 1)
                continue
            of_task = parts(plan, benchmark)
            yield PlannedJob("answer_benchmark", names, 0 if of_task else 1)
            for part in of_task:
                yield PlannedJob("answer_part", {**names, "part": part}, 1)


def planned_time(plan: Plan, rates: Path = RATES) -> dict[str, PlannedTime]:
    """What the jobs of each rule are planned to take; nothing on a machine without a GPU, for
    which there are no rates. Errors: UserError for a rates file that cannot be used.
    """
    if plan.config.device != "cuda":
        return {}
    jobs = list(jobs_with_models(plan))
    shards = {place: len(shard.prompts) for place, shard in plan.shards.items()}
    known = read_rates(rates, all_rules())
    costs = plan_costs(jobs, plan.config, shards, known).costs
    return {
        rule: PlannedTime(
            hours=round(cost.seconds / 3600, 3),
            gpu_hours=round(cost.gpu_seconds / 3600, 3),
            gpus=max(job.gpus for job in jobs if job.rule == rule),
        )
        for rule, cost in costs.items()
    }


def all_rules() -> list[str]:
    """The names of all rules' scripts, which are those of the rules."""
    return [path.stem for path in (PROJECT / "scripts").glob("*.py")]
