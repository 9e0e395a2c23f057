from lib import evaluation


rule tables:
    input:
        evaluation.table_files(PLAN, "hallucination_table").values(),
        evaluation.table_files(PLAN, "size_table").values(),
        evaluation.table_files(PLAN, "common_selections_table").values(),
        evaluation.table_files(PLAN, "reasons_table").values(),
    message:
        "Tables: {ROOT}/tables"


rule hallucination_table:
    input:
        published="published/table2.yaml",
        scores=evaluation.score_files(
            PLAN, evaluation.largest_experiments(PLAN), evaluation.HALLUCINATION_SCORES
        ),
    output:
        **evaluation.table_files(PLAN, "hallucination_table"),
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
        settings=evaluation.table_settings(
            PLAN, evaluation.largest_experiments(PLAN), evaluation.HALLUCINATION_SCORES
        ),
    message:
        "Table: hallucination benchmarks (the paper's Table 2)"
    script:
        "../scripts/hallucination_table.py"


rule size_table:
    input:
        published="published/table3.yaml",
        scores=evaluation.score_files(
            PLAN, evaluation.experiments_by_size(PLAN), evaluation.SIZE_SCORES
        ),
    output:
        **evaluation.table_files(PLAN, "size_table"),
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
        settings=evaluation.table_settings(
            PLAN, evaluation.experiments_by_size(PLAN), evaluation.SIZE_SCORES
        ),
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
        **evaluation.table_files(PLAN, "common_selections_table"),
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
        **evaluation.table_files(PLAN, "reasons_table"),
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
