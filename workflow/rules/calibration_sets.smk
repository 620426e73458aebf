# Needs: the 16-bit weights of a model and its prompt table.
# Makes: what quantization keeps of it, by recipe and by what the recipe was shown. All in memory.


rule calibration_sets:
    input:
        folder=local(WEIGHTS),
        facts=f"{CELL}/quantize/checkpoint.json",
        prompts=prompt_table,
    output:
        table=f"{CELL}/calibration_sets/calibration_sets.parquet",
    log:
        f"{CELL}/calibration_sets/calibration_sets.log",
    benchmark:
        f"{CELL}/calibration_sets/calibration_sets.benchmark.tsv"
    wildcard_constraints:
        precision="16",
    resources:
        mem_mb=memory("calibration_sets"),
        runtime=minutes("calibration_sets"),
        gpu_percent=gpu,
    params:
        settings=settings(
            *studies.ANSWER_KEYS,
            "sham_draws",
            "group_size",
            "calibration_sets",
            "calibration_bits",
        )
        | LIMITS,
        journal=f"{CELL}/journal",
        code=code("calibration_sets.py"),
    script:
        "../scripts/calibration_sets.py"
