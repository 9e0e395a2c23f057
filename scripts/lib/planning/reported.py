"""What the report says that a run was planned to take: the jobs of models at the rates of the
project, without Snakemake's graph, which would be made anew for it.
"""

from collections.abc import Iterator
from pathlib import Path

from lib.blocks import gpus_of
from lib.config.response_ranking import rewards_of
from lib.files import PROJECT
from lib.head.evaluation import asked_model, parts, tasks
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
        for scorer, block in config.image_ranking.scorers.items():
            yield PlannedJob("rank_images", {"scorer": scorer, **of_shard}, gpus_of(block))
        if config.instructions.needs_gpu:
            yield PlannedJob("write_instructions", of_shard, gpus_of(config.instructions))
        for policy, model in config.responses.policy_models.items():
            yield PlannedJob("generate_responses", {"policy": policy, **of_shard}, gpus_of(model))
        for reward, rates in rewards_of(config.response_ranking).items():
            names = ({"reward": reward} if reward else {}) | of_shard
            yield PlannedJob("rank_responses", names, gpus_of(rates))
    for experiment in plan.experiments():
        gpus = config.training.settings_of(experiment).processes
        yield PlannedJob("train_dpo", {"experiment": experiment}, gpus)
    for name in plan.models():
        gpus = gpus_of(asked_model(plan, name))
        for benchmark in config.evaluation.benchmarks:
            names = {"model": name, "benchmark": benchmark}
            if benchmark not in tasks(plan):
                yield PlannedJob("answer_questions", names, gpus)
                continue
            of_task = parts(plan, benchmark)
            yield PlannedJob("answer_benchmark", names, 0 if of_task else gpus)
            for part in of_task:
                yield PlannedJob("answer_part", {**names, "part": part}, gpus)


def planned_hours(plan: Plan, rates: Path = RATES) -> dict[str, tuple[float, float]]:
    """Hours and GPU-hours by rule; nothing on a machine without a GPU, for which there are no
    rates. Errors: UserError for a rates file that cannot be used.
    """
    if plan.config.device != "cuda":
        return {}
    jobs = list(jobs_with_models(plan))
    shards = {place: len(shard.prompts) for place, shard in plan.shards.items()}
    known = read_rates(rates, all_rules())
    costs = plan_costs(jobs, plan.config, shards, known).costs
    return {
        rule: (round(cost.seconds / 3600, 3), round(cost.gpu_seconds / 3600, 3))
        for rule, cost in costs.items()
    }


def all_rules() -> list[str]:
    """The names of all rules' scripts, which are those of the rules."""
    return [path.stem for path in (PROJECT / "scripts").glob("*.py")]
