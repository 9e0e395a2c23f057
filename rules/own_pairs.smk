rule check_own_pairs:
    input:
        index=f"{ROOT}/contamination/benchmarks.jsonl",
    output:
        f"{ROOT}/contamination/{{own_pairs}}.jsonl",
    log:
        f"{ROOT}/logs/check_own_pairs/{{own_pairs}}.log",
    wildcard_constraints:
        own_pairs=evaluation.pattern(PLAN.own_pairs),
    conda:
        "../envs/workflow.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        common=PLAN.common(),
        settings=lambda w: PLAN.params(own_pairs.check_job(PLAN, w.own_pairs)),
        contents=lambda w: own_pairs.contents(PLAN, w.own_pairs),
    message:
        "Contamination: your own pairs {wildcards.own_pairs}"
    script:
        "../scripts/check_own_pairs.py"


rule import_pairs:
    input:
        # What the benchmarks have too is left out only where the configuration says so.
        overlaps=lambda w: own_pairs.overlaps(PLAN, w.own_pairs),
    output:
        # The parquet files beside it stand in the job's record, as those of merge_pairs.
        summary=f"{ROOT}/own_pairs/{{own_pairs}}/dataset.json",
    log:
        f"{ROOT}/logs/import_pairs/{{own_pairs}}.log",
    wildcard_constraints:
        own_pairs=evaluation.pattern(PLAN.own_pairs),
    conda:
        "../envs/workflow.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        common=PLAN.common(),
        settings=lambda w: PLAN.params(own_pairs.import_job(PLAN, w.own_pairs)),
        contents=lambda w: own_pairs.contents(PLAN, w.own_pairs),
    message:
        "Your own pairs: {wildcards.own_pairs}"
    script:
        "../scripts/import_pairs.py"
