from lib.config.content import CheckContentJob
from lib.models.content_checkers.registry import CONTENT_CHECKERS

CONTENT_CHECKS = CONFIG.pairs.content_check


rule check_content:
    input:
        ranking=files_behind("check_content", "response_ranking"),
        images=files_behind("check_content", "images"),
    output:
        f"{ROOT}/content/{{checker}}/{{topic}}/{{shard}}.jsonl",
    log:
        f"{ROOT}/logs/check_content/{{checker}}/{{topic}}/{{shard}}.log",
    conda:
        "../envs/rewards.yaml"
    threads: 1
    resources:
        gpu=0,
        mem_mb=growing(8000),
        runtime=growing(240),
    params:
        # A classifier is small, and a GPU not worth its wait.
        common={**PLAN.common(), "device": "cpu"},
        prompts=digests_of("check_content"),
        settings=lambda w: PLAN.params(
            CheckContentJob(
                checker=CONTENT_CHECKS[w.checker],
                max_image_megapixels=CONFIG.max_image_megapixels,
            )
        ),
        made_by=lambda w: PLAN.made_by(CONTENT_CHECKS[w.checker], CONTENT_CHECKERS),
    message:
        "Content check {wildcards.checker}: topic {wildcards.topic}, shard {wildcards.shard}"
    script:
        "../scripts/check_content.py"
