# Needs: the weights of a cell and its prompt table.
# Makes: where the safety signal can be read; for the designs, in scratch, the activations that
# directions come from and the model's own refusal openings. Answers go to the journal.


rule probe:
    input:
        folder=local(WEIGHTS),
        facts=f"{CELL}/quantize/checkpoint.json",
        prompts=prompt_table,
        audit=audit_of,  # nothing runs that was not audited
    output:
        table=f"{CELL}/probe/probes.parquet",
        activations=local(f"{SCRATCH}/probe/activations.npz"),
        openings=local(f"{SCRATCH}/probe/openings.json"),
    log:
        f"{CELL}/probe/probe.log",
    benchmark:
        f"{CELL}/probe/probe.benchmark.tsv"
    resources:
        mem_mb=memory("probe"),
        runtime=minutes("probe"),
        gpu_percent=gpu,
    params:
        settings=settings(*studies.ANSWER_KEYS) | LIMITS,
        journal=f"{CELL}/journal",
        code=code("probe.py"),
    script:
        "../scripts/probe.py"
