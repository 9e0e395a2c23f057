"""What the report says that a run was planned to take, and what the time that is left goes by: the
jobs of models at the rates of the project, without Snakemake's graph, which would be made anew for
it.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lib.benchmarks.lmms_eval.parts import WHOLE
from lib.blocks import gpus_of
from lib.config.report import PlannedTime
from lib.config.response_ranking import rewards_of
from lib.config.run import Config
from lib.data.layouts import PromptCounts
from lib.files import PROJECT
from lib.head.evaluation import asked_model, parts, questions_apart, questions_together, tasks
from lib.head.plan import Plan
from lib.planning.costs import Cost, plan_costs
from lib.planning.graph import PlannedJob
from lib.planning.rates import Rates, read_rates

RATES = PROJECT / "profiles/slurm/rates.yaml"
#: A rule, its wildcards besides the shard, its job's GPUs, and the wildcards of the jobs that one
#: does.
OfShard = tuple[str, dict[str, str], int, list[dict[str, str]]]


def jobs_with_models(plan: Plan) -> Iterator[PlannedJob]:
    """The jobs that hold a GPU."""
    config = plan.config
    for rule, wildcards, gpus, together in _jobs_of_a_shard(config):
        for topic, shard in plan.stages.layout(rule).shards:
            names = {**wildcards, "topic": topic, "shard": shard}
            done = tuple({**part, "topic": topic, "shard": shard} for part in together)
            yield PlannedJob(rule, names, gpus, together=done)
    for experiment in plan.experiments():
        gpus = config.training.settings_of(experiment).processes
        yield PlannedJob("train_dpo", {"experiment": experiment}, gpus)
    for name in plan.models():
        gpus = gpus_of(asked_model(plan, name))
        if in_one := config.evaluation.asked_together:
            done = tuple({"model": name, "benchmark": task, "part": WHOLE} for task in in_one)
            yield PlannedJob("answer_part", {"model": name}, gpus, together=done)
        if questions := questions_together(plan):
            done = tuple({"model": name, "benchmark": benchmark} for benchmark in questions)
            yield PlannedJob("answer_questions", {"model": name}, gpus, together=done)
        for benchmark in questions_apart(plan):
            names = {"model": name, "benchmark": benchmark}
            yield PlannedJob("answer_questions", names, gpus)
        for benchmark in tasks(plan):
            names = {"model": name, "benchmark": benchmark}
            of_task = parts(plan, benchmark)
            yield PlannedJob("answer_benchmark", names, 0 if of_task else gpus)
            for part in of_task if benchmark not in in_one else ():
                yield PlannedJob("answer_part", {**names, "part": part}, gpus)


def _jobs_of_a_shard(config: Config) -> Iterator[OfShard]:
    yield "generate_images", {}, int(config.images.IS_DRAWN), []
    together = config.image_ranking.scored_together
    for scorer, block in config.image_ranking.scorers.items():
        if scorer not in together:
            yield "rank_images", {"scorer": scorer}, gpus_of(block), []
    if together:
        yield "rank_images", {}, 1, [{"scorer": scorer} for scorer in together]
    if config.instructions.needs_gpu:
        yield "write_instructions", {}, gpus_of(config.instructions), []
    for policy, answering in config.responses.policy_models.items():
        yield "generate_responses", {"policy": policy}, gpus_of(answering), []
    for reward, rating in rewards_of(config.response_ranking).items():
        yield "rank_responses", {"reward": reward} if reward else {}, gpus_of(rating), []


def planned_time(plan: Plan, rates: Path = RATES) -> dict[str, PlannedTime]:
    """What the jobs of each rule are planned to take; nothing on a machine without a GPU, for
    which there are no rates. Errors: UserError for a rates file that cannot be used.
    """
    if plan.config.device != "cuda":
        return {}
    jobs = list(jobs_with_models(plan))
    costs = _costs_of(jobs, plan, read_rates(rates, all_rules()))
    return {
        rule: PlannedTime(
            hours=round(cost.seconds / 3600, 3),
            gpu_hours=round(cost.gpu_seconds / 3600, 3),
            gpus=max(job.gpus for job in jobs if job.rule == rule),
        )
        for rule, cost in costs.items()
    }


def planned_seconds(plan: Plan, scripts: Mapping[str, str]) -> dict[str, float]:
    """What a job of each rule is planned to take, on average, on a GPU. `scripts`: the name of the
    script of each. Errors: UserError for a rates file that cannot be used.
    """
    rates = read_rates(RATES, all_rules())
    costs = _costs_of(list(jobs_with_models(plan)), plan, rates)
    means = {rule: cost.seconds / cost.jobs for rule, cost in costs.items()}
    other = rates.every_job.seconds + rates.other_jobs.seconds
    return {rule: means.get(script, other) for rule, script in scripts.items()}


def _costs_of(jobs: Sequence[PlannedJob], plan: Plan, rates: Rates) -> Mapping[str, Cost]:
    prompts = PromptCounts({place: len(shard.prompts) for place, shard in plan.shards.items()})
    return plan_costs(jobs, plan.config, prompts, rates).costs


def all_rules() -> list[str]:
    """The names of all rules' scripts, which are those of the rules."""
    return [path.stem for path in (PROJECT / "scripts").glob("*.py")]
