from lib.config.prompts import GeneratePromptsJob


# Proposals only: read them, and add those you like to prompts/<topic>.txt yourself.
rule generate_prompts:
    input:
        [ancient(f"{CONFIG.prompts}/{topic}.txt") for topic in CONFIG.topics],
    output:
        f"{ROOT}/proposed_prompts/{{topic}}.txt",
    log:
        f"{ROOT}/logs/generate_prompts/{{topic}}.log",
    conda:
        "../envs/vllm.yaml"
    threads: 1
    resources:
        gpu=0,
        mem_mb=growing(2000),
        runtime=growing(120),
    params:
        common=PLAN.common(),
        settings=lambda w: PLAN.params(
            GeneratePromptsJob(
                proposals=CONFIG.generate_prompts.for_topic(
                    w.topic, CONFIG.instructions.llm_endpoint
                ),
                topics=CONFIG.topics,
                max_prompt_characters=CONFIG.max_prompt_characters,
            )
        ),
    message:
        "Prompt proposals: topic {wildcards.topic}"
    script:
        "../scripts/generate_prompts.py"
