rule rank_images:
    input:
        f"{ROOT}/images/{{topic}}/{{shard}}.jsonl",
    output:
        f"{ROOT}/image_ranking/{{scorer}}/{{topic}}/{{shard}}.jsonl",
    log:
        f"{ROOT}/logs/rank_images/{{scorer}}/{{topic}}/{{shard}}.log",
    conda:
        scorer_environment
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=growing(12000),
        runtime=growing(60),
    params:
        common=PLAN.common(),
        settings=lambda w: PLAN.settings(CONFIG.image_ranking.scorers[w.scorer]),
        retry=lambda w: PLAN.retry("rank_images", f"{w.scorer}/{w.topic}/{w.shard}"),
    message:
        "Image ranking by {wildcards.scorer}: topic {wildcards.topic}, shard {wildcards.shard}"
    script:
        "../scripts/rank_images.py"
