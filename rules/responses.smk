from lib.config.responses import GenerateResponsesJob
from lib.models.response_generators.registry import GENERATORS

RESPONSES = CONFIG.responses


rule generate_responses:
    input:
        instructions=f"{ROOT}/instructions/{{topic}}/{{shard}}.jsonl",
        # It stands for the image files: where it is deleted to mend one, stage images runs before
        # this one.
        images=f"{ROOT}/images/{{topic}}/{{shard}}.jsonl",
    output:
        f"{ROOT}/responses/{{policy}}/{{topic}}/{{shard}}.jsonl",
    log:
        f"{ROOT}/logs/generate_responses/{{policy}}/{{topic}}/{{shard}}.log",
    conda:
        f"../envs/{RESPONSES.environment}.yaml"
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=growing(64000),
        runtime=growing(480),
    params:
        common=PLAN.common(),
        prompts=lambda w: PLAN.digests(w.topic, w.shard),
        settings=lambda w: PLAN.params(RESPONSES.job_of(w.policy)),
        made_by=lambda w: PLAN.made_by(RESPONSES.generator_of(w.policy), GENERATORS),
    message:
        "Responses of {wildcards.policy}: topic {wildcards.topic}, shard {wildcards.shard}"
    script:
        "../scripts/generate_responses.py"
