from lib.head import own_pairs

CONTAMINATION = CONFIG.evaluation.contamination


rule index_benchmarks:
    input:
        evaluation.local_files(PLAN),
    output:
        index=f"{ROOT}/contamination/benchmarks.jsonl",
        coverage=f"{ROOT}/contamination/coverage.json",
    log:
        f"{ROOT}/logs/index_benchmarks.log",
    conda:
        "../envs/workflow.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        common=PLAN.common(),
        settings=PLAN.params(evaluation.index_job(PLAN)),
        contents=lambda w: evaluation.local_contents(PLAN),
    message:
        "Contamination: the benchmarks' questions and images"
    script:
        "../scripts/index_benchmarks.py"


rule check_contamination:
    input:
        index=f"{ROOT}/contamination/benchmarks.jsonl",
        instructions=files_behind("check_contamination", "instructions"),
        images=files_behind("check_contamination", "images"),
    output:
        f"{ROOT}/contamination/{{topic}}/{{shard}}.jsonl",
    log:
        f"{ROOT}/logs/check_contamination/{{topic}}/{{shard}}.log",
    conda:
        "../envs/workflow.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        common=PLAN.common(),
        prompts=digests_of("check_contamination"),
        settings=PLAN.params(evaluation.check_job(PLAN)),
    message:
        "Contamination: topic {wildcards.topic}, shard {wildcards.shard}"
    script:
        "../scripts/check_contamination.py"


rule list_overlaps:
    input:
        index=f"{ROOT}/contamination/benchmarks.jsonl",
        coverage=f"{ROOT}/contamination/coverage.json",
        shards=evaluation.contamination_files(PLAN),
        own_pairs=own_pairs.contamination_files(PLAN),
    output:
        list=f"{ROOT}/contamination/overlaps.jsonl",
        csv=shown(
            f"{ROOT}/contamination/overlaps.csv",
            "list_overlaps",
            "Contamination",
            list="Overlaps of training data and benchmarks",
        ),
        page=shown(
            f"{ROOT}/contamination/overlaps.md",
            "list_overlaps",
            "Contamination",
            list="Overlaps of training data and benchmarks",
        ),
    log:
        f"{ROOT}/logs/list_overlaps.log",
    conda:
        "../envs/workflow.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(20),
    params:
        common=PLAN.common(),
        prompts=lambda w: PLAN.stages.digests,
        settings=PLAN.params(evaluation.list_job(PLAN)),
    message:
        "Contamination: the list of overlaps"
    script:
        "../scripts/list_overlaps.py"
