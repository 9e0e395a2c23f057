from lib.head.plan import pattern_of_shards
from lib.models.image_scorers.registry import IMAGE_SCORERS

SCORERS = CONFIG.image_ranking.scorers
TOGETHER = CONFIG.image_ranking.scored_together
# What one job ranks by several scorers, as it goes on behind the folder of a scorer.
RANKED_TOGETHER = pattern_of_shards(PLAN.ranked_together)


rule rank_images:
    input:
        files_behind("rank_images", "images"),
    output:
        f"{ROOT}/image_ranking/{{scorer}}/{{topic}}/{{shard}}.jsonl",
    log:
        f"{ROOT}/logs/rank_images/{{scorer}}/{{topic}}/{{shard}}.log",
    wildcard_constraints:
        scorer=f"(?!({evaluation.pattern(TOGETHER)})/{RANKED_TOGETHER}){NAME}",
    conda:
        lambda w: f"../envs/{SCORERS[w.scorer].environment}.yaml"
    threads: lambda w: cpus_of(SCORERS[w.scorer])
    resources:
        gpu=lambda w: gpus_of(SCORERS[w.scorer]),
        mem_mb=lambda w, attempt: growing(
            SCORERS[w.scorer].megabytes, SCORERS[w.scorer]
        )(w, attempt),
        runtime=growing(120),
    params:
        common=PLAN.common(),
        prompts=digests_of("rank_images"),
        settings=lambda w: PLAN.ranking_params(w.scorer)["settings"],
        made_by=lambda w: PLAN.ranking_params(w.scorer)["made_by"],
    message:
        "Image ranking by {wildcards.scorer}: topic {wildcards.topic}, shard {wildcards.shard}"
    script:
        "../scripts/rank_images.py"


# The same by several scorers in one job, for which each picture is decoded once.
rule rank_images_together:
    input:
        files_behind("rank_images", "images"),
    output:
        [
            f"{ROOT}/image_ranking/{scorer}/{{topic}}/{{shard}}.jsonl"
            for scorer in TOGETHER or SCORERS
        ],
    log:
        f"{ROOT}/logs/rank_images/{{topic}}/{{shard}}.log",
    wildcard_constraints:
        topic=f"(?={RANKED_TOGETHER})(?:{ANY_TOPIC})",
    conda:
        f"../envs/{next(iter((TOGETHER or SCORERS).values())).environment}.yaml"
    threads: CPUS
    resources:
        gpu=GPU,
        # The largest of them while it is loaded, and the others' weights.
        mem_mb=growing(
            max(scorer.megabytes for scorer in (TOGETHER or SCORERS).values())
            + 2000 * len(TOGETHER)
        ),
        runtime=growing(120),
    params:
        common=PLAN.common(),
        prompts=digests_of("rank_images"),
        together=lambda w: PLAN.ranking_parts(w.topic, w.shard),
    message:
        f"Image ranking by {', '.join(TOGETHER)}:"
        " topic {wildcards.topic}, shard {wildcards.shard}"
    script:
        "../scripts/rank_images.py"
