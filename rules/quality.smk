# Says what is wrong with the pairs, and stops the run where that is more than `pairs.quality` allows.
rule check_pairs:
    input:
        pairs=PLAN.stages.files("pairs"),
        # They stand for the image files, as in merge_pairs.
        images=PLAN.stages.image_files(),
    output:
        f"{ROOT}/quality/pairs.json",
    log:
        f"{ROOT}/logs/check_pairs.log",
    conda:
        "../envs/workflow.yaml"
    threads: 1
    resources:
        mem_mb=growing(3000),
        runtime=growing(60),
    params:
        common=PLAN.common(),
        prompts=lambda w: PLAN.stages.digests,
        settings=PLAN.params(PLAN.check_pairs_job()),
    message:
        "Checking the pairs"
    script:
        "../scripts/check_pairs.py"
