from lib.head.report_job import shown_besides


# Shows of the stages after the pairs what is there, and has none of them made: people are to look at
# the pairs before anything is trained on them. So it is no part of `all`.
rule report:
    input:
        images=PLAN.stages.image_files(),
        rankings=targets.rankings(PLAN),
        responses=PLAN.stages.files("response_ranking"),
        pairs=PLAN.stages.files("pairs"),
    output:
        index=f"{ROOT}/report/index.html",
    log:
        f"{ROOT}/logs/report.log",
    conda:
        "../envs/workflow.yaml"
    threads: 2
    resources:
        mem_mb=growing(3000),
        runtime=growing(120),
    params:
        common=PLAN.common(),
        prompts=lambda w: PLAN.stages.digests,
        settings=report_settings,
        shown=lambda w: shown_besides(PLAN),
    message:
        "The report, to be opened in a browser: {output}"
    script:
        "../scripts/report.py"
