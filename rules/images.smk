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
