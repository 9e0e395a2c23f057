from lib.models.instruction_authors.registry import INSTRUCTION_AUTHORS

AUTHOR = CONFIG.instructions


rule write_instructions:
    input:
        images=files_behind("write_instructions", "images"),
        ranking=files_behind(
            "write_instructions", f"image_ranking/{CONFIG.image_ranking.select_by}"
        ),
    output:
        f"{ROOT}/instructions/{{topic}}/{{shard}}.jsonl",
    log:
        f"{ROOT}/logs/write_instructions/{{topic}}/{{shard}}.log",
    conda:
        f"../envs/{AUTHOR.environment}.yaml"
    threads: cpus_of(AUTHOR)
    resources:
        gpu=gpus_of(AUTHOR),
        mem_mb=growing(32000, AUTHOR) if AUTHOR.needs_gpu else 2000,
        runtime=growing(120),
    params:
        common=PLAN.common(),
        prompts=digests_of("write_instructions"),
        settings=told(PLAN.instructions_job),
        made_by=lambda w: PLAN.made_by(AUTHOR, INSTRUCTION_AUTHORS),
        generated_by=lambda w: PLAN.generated_by(AUTHOR.generator),
    message:
        "Instructions: topic {wildcards.topic}, shard {wildcards.shard}"
    script:
        "../scripts/write_instructions.py"
