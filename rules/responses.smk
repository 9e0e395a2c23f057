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
        "../envs/vllm.yaml"
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=growing(64000),
        runtime=growing(480),
    params:
        common=PLAN.common(),
        settings=lambda w: PLAN.settings(
            CONFIG.responses.policy_models[w.policy],
            **CONFIG.responses.model_dump(mode="json", exclude={"policy_models"}),
        ),
        retry=lambda w: PLAN.retry(
            "generate_responses", f"{w.policy}/{w.topic}/{w.shard}"
        ),
    message:
        "Responses of {wildcards.policy}: topic {wildcards.topic}, shard {wildcards.shard}"
    script:
        "../scripts/generate_responses.py"
