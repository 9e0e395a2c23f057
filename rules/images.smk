from lib.models.image_generators.registry import IMAGE_GENERATORS


rule generate_images:
    input:
        prompts=ancient(f"{CONFIG.prompts}/{{topic}}.txt"),
    output:
        f"{ROOT}/images/{{topic}}/{{shard}}.jsonl",
    log:
        f"{ROOT}/logs/generate_images/{{topic}}/{{shard}}.log",
    wildcard_constraints:
        topic=TOPIC,
    # Most of the run waits for it: where there is too little room, others do.
    priority: 1
    conda:
        f"../envs/{CONFIG.images.environment}.yaml"
    threads: CPUS if CONFIG.images.IS_DRAWN else 1
    resources:
        gpu=GPU if CONFIG.images.IS_DRAWN else 0,
        mem_mb=growing(CONFIG.images.megabytes),
        runtime=growing(240),
    params:
        common=PLAN.common(),
        settings=told(PLAN.images_job),
        made_by=lambda w: PLAN.made_by(CONFIG.images, IMAGE_GENERATORS),
    message:
        "Images: topic {wildcards.topic}, shard {wildcards.shard}"
    script:
        "../scripts/generate_images.py"


# The same rows, in as few files as the stages have that follow: so a job of these reads one file
# and not thousands.
rule gather_images:
    input:
        files_behind("gather_images", "images"),
    output:
        f"{ROOT}/images/{{topic}}/{{shard}}.jsonl",
    log:
        f"{ROOT}/logs/gather_images/{{topic}}/{{shard}}.log",
    wildcard_constraints:
        topic=ALL_TOPICS,
    conda:
        "../envs/workflow.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        common=PLAN.common(),
        prompts=digests_of("gather_images"),
    message:
        "Images: the rows of shard {wildcards.shard}"
    script:
        "../scripts/gather_images.py"
