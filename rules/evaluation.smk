import re

# The names that there are, as patterns: anything else asked for is told as a file that no rule makes.
EVALUATED = "|".join(map(re.escape, PLAN.models()))
BENCHMARKS = "|".join(map(re.escape, CONFIG.evaluation.benchmarks))


def merged_model(wildcards):
    """The folder of an experiment's merged model; nothing for the base model, which the run does not make."""
    return (
        [] if wildcards.model == "base" else f"{ROOT}/models/{wildcards.model}/merged"
    )


def answer_settings(wildcards):
    """What a model is asked and how; where the base model comes from, for the jobs that ask it."""
    benchmark = CONFIG.evaluation.benchmarks[wildcards.benchmark]
    base = CONFIG.training.base_model
    identity = PLAN.settings(base) if wildcards.model == "base" else {}
    return {
        **benchmark.model_dump(mode="json", exclude={"percent"}),
        "dtype": base.dtype,
        "base_model": base.model,
        "base_revision": base.revision,
        "base_identity": identity.get("identity"),
    }


rule answer_benchmark:
    input:
        merged=merged_model,
        data=lambda w: list(
            (CONFIG.evaluation.benchmarks[w.benchmark].data or {}).values()
        ),
    output:
        answers=f"{ROOT}/evaluation/{{model}}/{{benchmark}}/answers.jsonl",
        results=f"{ROOT}/evaluation/{{model}}/{{benchmark}}/results.json",
    log:
        f"{ROOT}/logs/answer_benchmark/{{model}}/{{benchmark}}.log",
        harness=f"{ROOT}/logs/answer_benchmark/{{model}}/{{benchmark}}.lmms-eval.log",
    wildcard_constraints:
        model=EVALUATED,
        benchmark=BENCHMARKS,
    conda:
        "../envs/evaluation.yaml"
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=32000,
        runtime=1440,
    params:
        common=PLAN.common(),
        settings=answer_settings,
        retry="",
    message:
        "Answers: model {wildcards.model}, benchmark {wildcards.benchmark}"
    script:
        "../scripts/answer_benchmark.py"


rule score_benchmark:
    input:
        answers=f"{ROOT}/evaluation/{{model}}/{{benchmark}}/answers.jsonl",
        results=f"{ROOT}/evaluation/{{model}}/{{benchmark}}/results.json",
    output:
        f"{ROOT}/evaluation/{{model}}/{{benchmark}}/scores.json",
    log:
        f"{ROOT}/logs/score_benchmark/{{model}}/{{benchmark}}.log",
    wildcard_constraints:
        model=EVALUATED,
        benchmark=BENCHMARKS,
    conda:
        "../envs/workflow.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=20,
    params:
        common=PLAN.common(),
        settings=lambda w: CONFIG.evaluation.benchmarks[w.benchmark].model_dump(
            mode="json", include={"metrics", "percent"}
        ),
    message:
        "Scores: model {wildcards.model}, benchmark {wildcards.benchmark}"
    script:
        "../scripts/score_benchmark.py"
