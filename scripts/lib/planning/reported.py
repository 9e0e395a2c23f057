"""What the report says that a run was planned to take: the jobs of models at the rates of the
project, without Snakemake's graph, which would be made anew for it.
"""

from collections.abc import Iterator
from pathlib import Path

from lib.data.layouts import PromptCounts
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
    models: dict[str, list[dict[str, str]]] = {
        "generate_images": [{}],
        "rank_images": [{"scorer": scorer} for scorer in config.image_ranking.scorers],
        "generate_responses": [{"policy": policy} for policy in config.responses.policy_models],
        "rank_responses": [{}],
    }
    for rule, wildcards in models.items():
        for topic, shard in plan.layout(rule).shards:
            for of_model in wildcards:
                yield PlannedJob(rule, {**of_model, "topic": topic, "shard": shard}, 1)
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


def planned_hours(plan: Plan, rates: Path = RATES) -> dict[str, tuple[float, float]]:
    """Hours and GPU-hours by rule; nothing on a machine without a GPU, for which there are no
    rates. Errors: UserError for a rates file that cannot be used.
    """
    if plan.config.device != "cuda":
        return {}
    jobs = list(jobs_with_models(plan))
    prompts = PromptCounts({place: len(shard.prompts) for place, shard in plan.shards.items()})
    known = read_rates(rates, all_rules())
    costs = plan_costs(jobs, plan.config, prompts, known).costs
    return {
        rule: (round(cost.seconds / 3600, 3), round(cost.gpu_seconds / 3600, 3))
        for rule, cost in costs.items()
    }


def all_rules() -> list[str]:
    """The names of all rules' scripts, which are those of the rules."""
    return [path.stem for path in (PROJECT / "scripts").glob("*.py")]
