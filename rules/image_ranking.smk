from lib.config.image_ranking import RankImagesJob
from lib.models.image_scorers.registry import IMAGE_SCORERS

SCORERS = CONFIG.image_ranking.scorers


rule rank_images:
    input:
        f"{ROOT}/images/{{topic}}/{{shard}}.jsonl",
    output:
        f"{ROOT}/image_ranking/{{scorer}}/{{topic}}/{{shard}}.jsonl",
    log:
        f"{ROOT}/logs/rank_images/{{scorer}}/{{topic}}/{{shard}}.log",
    conda:
        lambda w: f"../envs/{SCORERS[w.scorer].environment}.yaml"
    threads: lambda w: cpus_of(SCORERS[w.scorer])
    resources:
        gpu=lambda w: gpus_of(SCORERS[w.scorer]),
        mem_mb=lambda w, attempt: growing(
            SCORERS[w.scorer].megabytes, SCORERS[w.scorer]
        )(w, attempt),
        runtime=growing(60),
    params:
        common=PLAN.common(),
        prompts=lambda w: PLAN.digests(w.topic, w.shard),
        settings=lambda w: PLAN.params(
            RankImagesJob(
                scorer=SCORERS[w.scorer],
                max_image_megapixels=CONFIG.max_image_megapixels,
            )
        ),
        made_by=lambda w: PLAN.made_by(SCORERS[w.scorer], IMAGE_SCORERS),
    message:
        "Image ranking by {wildcards.scorer}: topic {wildcards.topic}, shard {wildcards.shard}"
    script:
        "../scripts/rank_images.py"
