from lib.models.instruction_authors.checks import (
    check_prompts_for_templates,
    read_instruction_file,
    written_digest,
)

# The user's own instructions are read, and refused if need be, before anything runs.
INSTRUCTIONS = {}
try:
    if CONFIG.instructions.backend == "file":
        INSTRUCTIONS = read_instruction_file(
            Path(CONFIG.instructions.file),
            [prompt for shard in SHARDS.values() for prompt in shard.prompts],
            CONFIG.instructions.require_question,
        )
    elif CONFIG.instructions.backend == "template":
        check_prompts_for_templates(
            CONFIG.instructions.templates,
            [prompt for shard in SHARDS.values() for prompt in shard.prompts],
        )
except UserError as error:
    raise WorkflowError(str(error)) from None


rule write_instructions:
    input:
        images=f"{ROOT}/images/{{topic}}/{{shard}}.jsonl",
        ranking=f"{ROOT}/image_ranking/{CONFIG.image_ranking.select_by}/{{topic}}/{{shard}}.jsonl",
    output:
        f"{ROOT}/instructions/{{topic}}/{{shard}}.jsonl",
    log:
        f"{ROOT}/logs/write_instructions/{{topic}}/{{shard}}.log",
    conda:
        "../envs/vllm.yaml"
    threads: 1
    resources:
        gpu=GPU if CONFIG.instructions.backend in ("transformers", "vllm") else 0,
        mem_mb=(
            32000 if CONFIG.instructions.backend in ("transformers", "vllm") else 2000
        ),
        runtime=growing(120),
    params:
        common=PLAN.common(),
        settings=PLAN.instruction_settings(),
        digest=lambda w: written_digest(INSTRUCTIONS, SHARDS.get((w.topic, w.shard))),
        retry=lambda w: PLAN.retry("write_instructions", f"{w.topic}/{w.shard}"),
    message:
        "Instructions: topic {wildcards.topic}, shard {wildcards.shard}"
    script:
        "../scripts/write_instructions.py"
