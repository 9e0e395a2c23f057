# Holds what is there against its records; makes nothing. It asks for no GPU.
rule verify:
    log:
        f"{ROOT}/logs/verify.log",
    conda:
        "../envs/workflow.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        run=ROOT,
    message:
        f"Holding {ROOT} against its records"
    script:
        "../scripts/verify.py"
