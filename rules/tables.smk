from lib.head import table_rows, targets

# None where no judge is configured.
JUDGE = CONFIG.image_ranking.judge


# Everything here and in figures.smk is made from kept scores and rankings: no GPU, no model but the
# small one of embed_texts (on the CPU).
rule tables:
    input:
        targets.tables_and_figures(PLAN),
    message:
        f"Tables and figures: {ROOT}/tables, {ROOT}/figures"


rule vision_language_table:
    input:
        **table_rows.with_by_question(
            table_rows.score_files(
                PLAN,
                table_rows.largest_experiments(PLAN),
                table_rows.VISION_LANGUAGE_SCORES,
            )
        ),
        published=project.path("published/table1.yaml"),
        data_set=table_rows.data_set_of_all(PLAN, table_rows.largest_experiments(PLAN)),
    output:
        **all_shown(
            table_rows.table_files(PLAN, "vision_language_table"),
            "vision_language_table",
            "Tables",
            table="Vision-language benchmarks (Table 1)",
        ),
    log:
        f"{ROOT}/logs/vision_language_table.log",
    conda:
        "../envs/workflow.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        common=PLAN.common(),
        settings=lambda w: PLAN.params(
            table_rows.model_table_job(
                PLAN,
                table_rows.largest_experiments(PLAN),
                table_rows.VISION_LANGUAGE_SCORES,
            )
        ),
    message:
        "Table: vision-language benchmarks (the paper's Table 1)"
    script:
        "../scripts/vision_language_table.py"


rule hallucination_table:
    input:
        **table_rows.with_by_question(
            table_rows.score_files(
                PLAN,
                table_rows.largest_experiments(PLAN),
                table_rows.HALLUCINATION_SCORES,
            )
        ),
        published=project.path("published/table2.yaml"),
        data_set=table_rows.data_set_of_all(PLAN, table_rows.largest_experiments(PLAN)),
    output:
        **all_shown(
            table_rows.table_files(PLAN, "hallucination_table"),
            "hallucination_table",
            "Tables",
            table="Hallucination benchmarks (Table 2)",
        ),
    log:
        f"{ROOT}/logs/hallucination_table.log",
    conda:
        "../envs/workflow.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        common=PLAN.common(),
        settings=lambda w: PLAN.params(
            table_rows.model_table_job(
                PLAN,
                table_rows.largest_experiments(PLAN),
                table_rows.HALLUCINATION_SCORES,
            )
        ),
    message:
        "Table: hallucination benchmarks (the paper's Table 2)"
    script:
        "../scripts/hallucination_table.py"


rule size_table:
    input:
        **table_rows.with_by_question(
            table_rows.score_files(
                PLAN, table_rows.experiments_by_size(PLAN), table_rows.SIZE_SCORES
            )
        ),
        published=project.path("published/table3.yaml"),
        data_set=table_rows.data_set_of_all(PLAN, table_rows.experiments_by_size(PLAN)),
    output:
        **all_shown(
            table_rows.table_files(PLAN, "size_table"),
            "size_table",
            "Tables",
            table="Size of the preference data (Table 3)",
        ),
    log:
        f"{ROOT}/logs/size_table.log",
    conda:
        "../envs/workflow.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        common=PLAN.common(),
        settings=lambda w: PLAN.params(
            table_rows.model_table_job(
                PLAN, table_rows.experiments_by_size(PLAN), table_rows.SIZE_SCORES
            )
        ),
    message:
        "Table: size of the preference data (the paper's Table 3)"
    script:
        "../scripts/size_table.py"


rule all_scores_table:
    input:
        **table_rows.with_by_question(table_rows.all_score_files(PLAN)),
        data_set=table_rows.own_data_sets(PLAN),
    output:
        **all_shown(
            table_rows.table_files(PLAN, "all_scores_table"),
            "all_scores_table",
            "Tables",
            table="All scores of all benchmarks",
        ),
    log:
        f"{ROOT}/logs/all_scores_table.log",
    conda:
        "../envs/workflow.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        common=PLAN.common(),
        settings=lambda w: PLAN.params(table_rows.all_scores_job(PLAN)),
    message:
        "Table: all scores of all benchmarks"
    script:
        "../scripts/all_scores_table.py"


rule common_selections_table:
    input:
        **table_rows.ranking_files(PLAN, CONFIG.image_ranking.scorers),
        published=project.path("published/table4.yaml"),
    output:
        **all_shown(
            table_rows.table_files(PLAN, "common_selections_table"),
            "common_selections_table",
            "Tables",
            table="Common selections of the image scorers (Table 4)",
        ),
    log:
        f"{ROOT}/logs/common_selections_table.log",
    conda:
        "../envs/workflow.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(20),
    params:
        common=PLAN.common(),
        prompts=lambda w: PLAN.stages.digests,
        settings=lambda w: PLAN.params(table_rows.common_selections_job(PLAN)),
    message:
        "Table: common selections of the image scorers (the paper's Table 4)"
    script:
        "../scripts/common_selections_table.py"


# Only where a judge is configured; its answers are kept, and a rerun asks nothing twice.
rule compare_picks:
    input:
        **table_rows.ranking_files(PLAN, table_rows.judged_scorers(PLAN)),
        images=PLAN.stages.image_files(),
    output:
        **table_rows.comparison_files(PLAN),
    log:
        f"{ROOT}/logs/compare_picks.log",
    conda:
        "../envs/workflow.yaml"
    threads: 1
    resources:
        gpu=0,
        mem_mb=growing(4000),
        runtime=growing(240),
    params:
        common=PLAN.common(),
        prompts=lambda w: PLAN.stages.digests,
        settings=lambda w: (
            PLAN.params(table_rows.compare_picks_job(PLAN)) if JUDGE else None
        ),
    message:
        "A judge compares the picks of two image scorers"
    script:
        "../scripts/compare_picks.py"


rule image_judge_table:
    input:
        **(table_rows.comparison_files(PLAN) if JUDGE else {}),
        **table_rows.people_inputs(PLAN),
        published=project.path("published/table5.yaml"),
    output:
        **all_shown(
            table_rows.table_files(PLAN, "image_judge_table"),
            "image_judge_table",
            "Tables",
            table="A judge between two image scorers (Table 5)",
        ),
    log:
        f"{ROOT}/logs/image_judge_table.log",
    conda:
        "../envs/workflow.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        common=PLAN.common(),
        prompts=lambda w: PLAN.stages.digests,
        settings=lambda w: PLAN.params(table_rows.image_judge_job(PLAN)),
    message:
        "Table: a judge between two image scorers (the paper's Table 5)"
    script:
        "../scripts/image_judge_table.py"


rule reasons_table:
    input:
        pairs=PLAN.stages.files("pairs"),
        quality=f"{ROOT}/quality/pairs.json",
    output:
        **all_shown(
            table_rows.table_files(PLAN, "reasons_table"),
            "reasons_table",
            "Tables",
            table="Why prompts gave no pair",
        ),
    log:
        f"{ROOT}/logs/reasons_table.log",
    conda:
        "../envs/workflow.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        common=PLAN.common(),
        prompts=lambda w: PLAN.stages.digests,
        settings=lambda w: PLAN.params(table_rows.reasons_job(PLAN)),
    message:
        "Table: why prompts gave no pair"
    script:
        "../scripts/reasons_table.py"


rule reward_length_table:
    input:
        rankings=PLAN.stages.files("response_ranking"),
    output:
        **all_shown(
            table_rows.table_files(PLAN, "reward_length_table"),
            "reward_length_table",
            "Tables",
            table="The reward against the length of responses",
        ),
    log:
        f"{ROOT}/logs/reward_length_table.log",
    conda:
        "../envs/workflow.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        common=PLAN.common(),
        prompts=lambda w: PLAN.stages.digests,
        settings=lambda w: PLAN.params(table_rows.reward_length_job(PLAN)),
    message:
        "Table: the reward against the length of responses"
    script:
        "../scripts/reward_length_table.py"
