from lib.config.image_ranking import RankImagesJob
from lib.models.image_scorers.registry import IMAGE_SCORERS

SCORERS = CONFIG.image_ranking.scorers


rule rank_images:
    input:
        files_behind("rank_images", "images"),
    output:
        f"{ROOT}/image_ranking/{{scorer}}/{{topic}}/{{shard}}.jsonl",
    log:
        f"{ROOT}/logs/rank_images/{{scorer}}/{{topic}}/{{shard}}.log",
    conda:
        lambda w: f"../envs/{SCORERS[w.scorer].environment}.yaml"
    threads: lambda w: CPUS if SCORERS[w.scorer].needs_gpu else 1
    resources:
        gpu=lambda w: GPU if SCORERS[w.scorer].needs_gpu else 0,
        mem_mb=lambda w, attempt: growing(SCORERS[w.scorer].megabytes)(w, attempt),
        runtime=growing(120),
    params:
        common=PLAN.common(),
        prompts=digests_of("rank_images"),
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
