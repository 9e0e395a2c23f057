# Puts what the configuration names on the hub, or says what it would put there. It runs where
# Snakemake does: nodes of a cluster may not reach the hub.
rule publish:
    input:
        files_to_publish,
    log:
        f"{ROOT}/logs/publish.log",
    localrule: True
    conda:
        "../envs/workflow.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(600),
    params:
        common=PLAN.common(),
        settings=publish_settings,
    message:
        f"Publishing {ROOT}"
    script:
        "../scripts/publish.py"
