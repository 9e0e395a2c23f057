from lib.config.images import GenerateImagesJob
from lib.models.image_generators.registry import IMAGE_GENERATORS


rule generate_images:
    input:
        prompts=ancient(f"{CONFIG.prompts}/{{topic}}.txt"),
    output:
        f"{ROOT}/images/{{topic}}/{{shard}}.jsonl",
    log:
        f"{ROOT}/logs/generate_images/{{topic}}/{{shard}}.log",
    conda:
        f"../envs/{CONFIG.images.environment}.yaml"
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=growing(24000),
        runtime=growing(240),
    params:
        common=PLAN.common(),
        settings=PLAN.params(
            GenerateImagesJob(
                generator=CONFIG.images,
                shards_per_topic=CONFIG.shards_per_topic,
                max_prompt_characters=CONFIG.max_prompt_characters,
            )
        ),
        made_by=lambda w: PLAN.made_by(CONFIG.images, IMAGE_GENERATORS),
        digest=shard_digest,
        retry=lambda w: PLAN.retry("generate_images", f"{w.topic}/{w.shard}"),
    message:
        "Images: topic {wildcards.topic}, shard {wildcards.shard}"
    script:
        "../scripts/generate_images.py"
