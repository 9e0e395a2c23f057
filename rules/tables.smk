# The columns of the paper's tables that a run can fill: "benchmark/score" by column of published/*.yaml.
HALLUCINATION_SCORES = {
    "mmhal_score": "mmhal_bench/score",
    "mmhal_hallucination": "mmhal_bench/hallucination",
    "amber_accuracy": "amber/accuracy",
    "amber_f1": "amber/f1",
    "pope": "pope/f1",
}
SIZE_SCORES = {
    "object_halbench_response": "object_halbench/response",
    "object_halbench_mention": "object_halbench/mention",
    "pope": "pope/f1",
}
BY_SIZE = sorted(
    CONFIG.training.experiments,
    key=lambda name: (CONFIG.training.experiments[name].size, name),
)
LARGEST = [
    name
    for name in BY_SIZE
    if CONFIG.training.experiments[name].size
    == max(experiment.size for experiment in CONFIG.training.experiments.values())
]


def compared_models(experiments):
    """The rows of ours in a table of models: base model first, with the number of pairs that each was trained on."""
    sizes = {name: CONFIG.training.experiments[name].size for name in experiments}
    feedback = {name: "RM" for name in experiments}
    return {
        name: {"pairs": size, "feedback": feedback.get(name, "")}
        for name, size in {"base": 0, **sizes}.items()
    }


def table_settings(experiments, wanted):
    """What a table of models is told."""
    return {
        "models": compared_models(experiments),
        "wanted": wanted,
        "label": CONFIG.label,
        "base_model": CONFIG.training.base_model.model,
    }


def wanted_scores(experiments, wanted):
    """The scores that a table of models shows, of those benchmarks that this run has."""
    benchmarks = dict.fromkeys(score.split("/")[0] for score in wanted.values())
    return [
        f"{ROOT}/evaluation/{model}/{benchmark}/scores.json"
        for model in ["base", *experiments]
        for benchmark in benchmarks
        if benchmark in CONFIG.evaluation.benchmarks
    ]


def table_files(name):
    """The three files of a table."""
    return {
        "csv": f"{ROOT}/tables/{name}.csv",
        "markdown": f"{ROOT}/tables/{name}.md",
        "latex": f"{ROOT}/tables/{name}.tex",
    }


rule tables:
    input:
        table_files("hallucination_table").values(),
        table_files("size_table").values(),
        table_files("common_selections_table").values(),
        table_files("reasons_table").values(),
    message:
        "Tables: {ROOT}/tables"


rule hallucination_table:
    input:
        published="published/table2.yaml",
        scores=wanted_scores(LARGEST, HALLUCINATION_SCORES),
    output:
        **table_files("hallucination_table"),
    log:
        f"{ROOT}/logs/hallucination_table.log",
    conda:
        "../envs/workflow.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        common=PLAN.common(),
        settings=table_settings(LARGEST, HALLUCINATION_SCORES),
    message:
        "Table: hallucination benchmarks (the paper's Table 2)"
    script:
        "../scripts/hallucination_table.py"


rule size_table:
    input:
        published="published/table3.yaml",
        scores=wanted_scores(BY_SIZE, SIZE_SCORES),
    output:
        **table_files("size_table"),
    log:
        f"{ROOT}/logs/size_table.log",
    conda:
        "../envs/workflow.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        common=PLAN.common(),
        settings=table_settings(BY_SIZE, SIZE_SCORES),
    message:
        "Table: size of the preference data (the paper's Table 3)"
    script:
        "../scripts/size_table.py"


rule common_selections_table:
    input:
        published="published/table4.yaml",
        rankings=[
            path
            for scorer in CONFIG.image_ranking.scorers
            for path in PLAN.shard_files(f"image_ranking/{scorer}")
        ],
    output:
        **table_files("common_selections_table"),
    log:
        f"{ROOT}/logs/common_selections_table.log",
    conda:
        "../envs/workflow.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=20,
    params:
        common=PLAN.common(),
        settings={
            "scorers": {
                name: scorer.kind
                for name, scorer in CONFIG.image_ranking.scorers.items()
            },
            "label": CONFIG.label,
        },
    message:
        "Table: common selections of the image scorers (the paper's Table 4)"
    script:
        "../scripts/common_selections_table.py"


rule reasons_table:
    input:
        PLAN.shard_files("pairs"),
    output:
        **table_files("reasons_table"),
    log:
        f"{ROOT}/logs/reasons_table.log",
    conda:
        "../envs/workflow.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        common=PLAN.common(),
        settings={"label": CONFIG.label},
    message:
        "Table: why prompts gave no pair"
    script:
        "../scripts/reasons_table.py"
