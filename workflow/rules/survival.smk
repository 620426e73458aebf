# Needs: the 16-bit weights of a model, its prompt table, the probe's scratch, the selected direction.
# Makes: what quantization and conversion leave of edits. Edited weights stay in memory, but for what
# a converter needs of an organism: that passes through the system's temporary directory.


rule survival:
    input:
        folder=local(WEIGHTS),
        facts=f"{CELL}/quantize/checkpoint.json",
        prompts=prompt_table,
        activations=local(f"{SCRATCH}/probe/activations.npz"),
        selected=local(f"{SCRATCH}/select/selected.json"),
    output:
        table=f"{CELL}/survival/survival.parquet",
    log:
        f"{CELL}/survival/survival.log",
    benchmark:
        f"{CELL}/survival/survival.benchmark.tsv"
    wildcard_constraints:
        precision="16",
    resources:
        mem_mb=memory("survival"),
        runtime=minutes("survival"),
        gpu_percent=gpu,
    params:
        settings=settings(
            *studies.ANSWER_KEYS, "sham_draws", "group_size", "survival", "llama_cpp"
        )
        | LIMITS,
        journal=f"{CELL}/journal",
        code=code("survival.py"),
    script:
        "../scripts/survival.py"
