from lib.head import frozen


rule build_pairs:
    input:
        ranking=f"{ROOT}/response_ranking/{{topic}}/{{shard}}.jsonl",
        # What the benchmarks have too is left out only where the configuration says so.
        overlaps=(
            [f"{ROOT}/contamination/{{topic}}/{{shard}}.jsonl"]
            if CONTAMINATION.exclude and evaluation.contamination_files(PLAN)
            else []
        ),
    output:
        f"{ROOT}/pairs/{{topic}}/{{shard}}.jsonl",
    log:
        f"{ROOT}/logs/build_pairs/{{topic}}/{{shard}}.log",
    conda:
        "../envs/workflow.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(20),
    params:
        common=PLAN.common(),
        prompts=lambda w: PLAN.digests(w.topic, w.shard),
        settings=PLAN.params(PLAN.pairs_job()),
        made_by=lambda w: PLAN.made_by(CONFIG.training.base_model),
    message:
        "Pairs: topic {wildcards.topic}, shard {wildcards.shard}"
    script:
        "../scripts/build_pairs.py"


rule merge_pairs:
    input:
        pairs=pairs_of_size,
        # More that is wrong with the pairs than is allowed stops the run here.
        quality=(
            ancient(f"{ROOT}/quality/pairs.json")
            if CONFIG.pairs.quality.max_share
            else []
        ),
        # They stand for the image files: where one is deleted to mend these, stage images runs
        # before this rule.
        images=PLAN.shard_files("images"),
    output:
        llava=f"{ROOT}/dataset/{{size}}/llava.json",
        data=directory(f"{ROOT}/dataset/{{size}}/data"),
        ids=f"{ROOT}/dataset/{{size}}/prompt_ids.txt",
        summary=f"{ROOT}/dataset/{{size}}/dataset.json",
    log:
        f"{ROOT}/logs/merge_pairs/{{size}}.log",
    wildcard_constraints:
        # A frozen data set is made by no rule.
        size=frozen.not_frozen(PLAN),
    conda:
        "../envs/workflow.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        common=PLAN.common(),
        prompts=PLAN.digests(),
    message:
        "Data set of {wildcards.size} pairs"
    script:
        "../scripts/merge_pairs.py"


rule tell_prompt:
    input:
        lambda w: list(PLAN.stages_of_prompt(w.prompt_id).values()),
    output:
        f"{ROOT}/prompts/{{prompt_id}}.json",
    log:
        f"{ROOT}/logs/tell_prompt/{{prompt_id}}.log",
    conda:
        "../envs/workflow.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        common=PLAN.common(),
        prompts=lambda w: PLAN.digests_for(w.prompt_id),
        stages=lambda w: PLAN.stages_of_prompt(w.prompt_id),
    message:
        "The story of {wildcards.prompt_id}"
    script:
        "../scripts/tell_prompt.py"
