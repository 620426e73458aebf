# Needs: the weights of a cell, its prompt table, and the probe's scratch; the design `transfer` also
# the scratch of the model's other precisions.
# Makes: the direction that the designs use, and one table a design: a job each.


rule select_direction:
    input:
        folder=local(WEIGHTS),
        facts=f"{CELL}/quantize/checkpoint.json",
        prompts=prompt_table,
        activations=local(f"{SCRATCH}/probe/activations.npz"),
        openings=local(f"{SCRATCH}/probe/openings.json"),
        thresholds=local(PLAN.config["thresholds"]),
    output:
        table=f"{CELL}/select/selection.parquet",
        scratch=local(f"{SCRATCH}/select/selected.json"),
    log:
        f"{CELL}/select/select_direction.log",
    benchmark:
        f"{CELL}/select/select_direction.benchmark.tsv"
    resources:
        mem_mb=memory("select"),
        runtime=minutes("select"),
        gpu_percent=gpu,
    params:
        settings=settings(*studies.ANSWER_KEYS) | LIMITS,
        journal=f"{CELL}/journal",
        code=code("select_direction.py"),
    script:
        "../scripts/select_direction.py"


rule intervene:
    input:
        folder=local(WEIGHTS),
        facts=f"{CELL}/quantize/checkpoint.json",
        prompts=prompt_table,
        activations=local(f"{SCRATCH}/probe/activations.npz"),
        openings=local(f"{SCRATCH}/probe/openings.json"),
        selected=local(f"{SCRATCH}/select/selected.json"),
        other_activations=of_other_precisions("probe/activations.npz"),
        other_selected=of_other_precisions("select/selected.json"),
        thresholds=local(PLAN.config["thresholds"]),
    output:
        table=f"{CELL}/intervene/{{design}}.parquet",
        scratch=local(f"{SCRATCH}/intervene/{{design}}.json"),
    log:
        f"{CELL}/intervene/{{design}}.log",
    benchmark:
        f"{CELL}/intervene/{{design}}.benchmark.tsv"
    resources:
        mem_mb=memory("intervene"),
        runtime=minutes("intervene"),
        gpu_percent=gpu,
    params:
        settings=settings(*studies.ANSWER_KEYS, "sham_draws") | LIMITS,
        journal=f"{CELL}/journal",
        code=code("intervene.py"),
    script:
        "../scripts/intervene.py"
