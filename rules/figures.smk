from lib.config.figures import EmbedTextsJob
from lib.head import evaluation, table_rows

FIGURES = CONFIG.figures
# None where the figure is left out.
SHEET = PLAN.answers_sheet
ANSWERS = table_rows.answers_job(PLAN)


rule candidates_figure:
    input:
        images=PLAN.stages.image_files(),
        rankings=PLAN.stages.files(f"image_ranking/{CONFIG.image_ranking.select_by}"),
    output:
        **all_shown(
            table_rows.figure_files(PLAN, "candidates_figure"),
            "candidates_figure",
            "Figures",
            figure="Prompts with their candidates (Figure 2)",
        ),
    log:
        f"{ROOT}/logs/candidates_figure.log",
    conda:
        "../envs/workflow.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(20),
    params:
        common=PLAN.common(),
        prompts=lambda w: PLAN.stages.digests,
        settings=lambda w: PLAN.params(table_rows.candidates_job(PLAN)),
    message:
        "Figure: prompts with their candidates (the paper's Figure 2)"
    script:
        "../scripts/candidates_figure.py"


rule guidance_figure:
    input:
        images=PLAN.stages.image_files(),
        rankings=PLAN.stages.files(f"image_ranking/{CONFIG.image_ranking.select_by}"),
    output:
        **all_shown(
            table_rows.figure_files(PLAN, "guidance_figure"),
            "guidance_figure",
            "Figures",
            figure="How often each guidance scale is picked (Figure 4)",
        ),
    log:
        f"{ROOT}/logs/guidance_figure.log",
    conda:
        "../envs/workflow.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(20),
    params:
        common=PLAN.common(),
        prompts=lambda w: PLAN.stages.digests,
        settings=lambda w: PLAN.params(table_rows.guidance_job(PLAN)),
    message:
        "Figure: how often each guidance scale is picked (the paper's Figure 4)"
    script:
        "../scripts/guidance_figure.py"


# On the CPU wherever the run is: the model is small, and figures are to be made without a GPU.
rule embed_texts:
    input:
        files_behind("embed_texts", "response_ranking"),
    output:
        f"{ROOT}/embeddings/{{topic}}/{{shard}}.jsonl",
    log:
        f"{ROOT}/logs/embed_texts/{{topic}}/{{shard}}.log",
    conda:
        "../envs/rewards.yaml"
    threads: 1
    resources:
        gpu=0,
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        common={**PLAN.common(), "device": "cpu"},
        prompts=digests_of("embed_texts"),
        settings=(
            PLAN.params(EmbedTextsJob(embedding=FIGURES.embedding))
            if FIGURES.embedding
            else None
        ),
        made_by=lambda w: (
            PLAN.made_by(FIGURES.embedding) if FIGURES.embedding else None
        ),
    message:
        "Text embeddings: topic {wildcards.topic}, shard {wildcards.shard}"
    script:
        "../scripts/embed_texts.py"


rule similarity_figure:
    input:
        embeddings=PLAN.stages.files("embeddings"),
        pairs=PLAN.stages.files("pairs"),
    output:
        **all_shown(
            table_rows.figure_files(PLAN, "similarity_figure"),
            "similarity_figure",
            "Figures",
            figure="Similarity of prompts and of responses (Figure 6)",
        ),
    log:
        f"{ROOT}/logs/similarity_figure.log",
    conda:
        "../envs/workflow.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        common=PLAN.common(),
        prompts=lambda w: PLAN.stages.digests,
        settings=lambda w: (
            PLAN.params(table_rows.similarity_job(PLAN)) if FIGURES.embedding else None
        ),
    message:
        "Figure: similarity of prompts and of responses (the paper's Figure 6)"
    script:
        "../scripts/similarity_figure.py"


# Only where figures.answers names a benchmark and an experiment.
rule answers_figure:
    input:
        scores=table_rows.answers_files(PLAN, "scores.json"),
        scored=table_rows.answers_files(PLAN, "scored.jsonl"),
        answers=table_rows.answers_files(PLAN, "answers.jsonl"),
        files=(
            [
                *evaluation.question_files(PLAN, SHEET.benchmark),
                *evaluation.reference_files(PLAN, SHEET.benchmark),
            ]
            if SHEET
            else []
        ),
    output:
        **all_shown(
            table_rows.figure_files(PLAN, "answers_figure"),
            "answers_figure",
            "Figures",
            figure="Two models' answers with their hallucinated words",
        ),
    log:
        f"{ROOT}/logs/answers_figure.log",
    conda:
        "../envs/workflow.yaml"
    threads: 1
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        common=PLAN.common(),
        settings=PLAN.params(ANSWERS) if ANSWERS else None,
        contents=lambda w: (
            evaluation.all_contents(PLAN, SHEET.benchmark) if SHEET else None
        ),
    message:
        "Figure: two models' answers with their hallucinated words"
    script:
        "../scripts/answers_figure.py"
