def training_of(wildcards):
    """The training settings of an experiment."""
    return CONFIG.training.settings_of(wildcards.experiment)


def training_settings(wildcards):
    """All that a training is told: the base model, and the settings of the experiment."""
    return PLAN.settings(
        CONFIG.training.base_model,
        prompt_template=CONFIG.training.prompt_template,
        training=training_of(wildcards).model_dump(mode="json"),
    )


def training_data(wildcards):
    """The summary of the data set that an experiment trains on; its pairs lie beside it."""
    size = CONFIG.training.experiments[wildcards.experiment].size
    return f"{ROOT}/dataset/{size}/dataset.json"


rule train_dpo:
    input:
        dataset=training_data,
    output:
        adapter=f"{ROOT}/models/{{experiment}}/adapter/adapter_model.safetensors",
        config=f"{ROOT}/models/{{experiment}}/adapter/adapter_config.json",
        metrics=f"{ROOT}/models/{{experiment}}/metrics.jsonl",
        figure=f"{ROOT}/models/{{experiment}}/training.svg",
        picture=f"{ROOT}/models/{{experiment}}/training.png",
    log:
        f"{ROOT}/logs/train_dpo/{{experiment}}.log",
    conda:
        "../envs/training.yaml"
    threads: lambda wildcards: training_of(wildcards).processes
    resources:
        gpu=lambda wildcards: training_of(wildcards).processes * GPU,
        mem_mb=96000,
        runtime=1440,
    params:
        common=PLAN.common(),
        settings=training_settings,
    message:
        "Training: DPO, experiment {wildcards.experiment}"
    script:
        "../scripts/train_dpo.py"


rule merge_adapter:
    input:
        adapter=f"{ROOT}/models/{{experiment}}/adapter/adapter_model.safetensors",
        config=f"{ROOT}/models/{{experiment}}/adapter/adapter_config.json",
    output:
        directory(f"{ROOT}/models/{{experiment}}/merged"),
    log:
        f"{ROOT}/logs/merge_adapter/{{experiment}}.log",
    conda:
        "../envs/training.yaml"
    threads: 1
    resources:
        gpu=0,
        mem_mb=24000,
        runtime=60,
    params:
        common=PLAN.common(),
        settings=PLAN.settings(CONFIG.training.base_model),
    message:
        "Training: merging the adapter of {wildcards.experiment} into the base model"
    script:
        "../scripts/merge_adapter.py"
