# Needs: the folder of a small checkpoint (key `writers`).
# Makes: what each writer changes of it, and the memory that quantizing takes as models grow.


if PLAN.config["writers"]:

    rule writers:
        input:
            local(writer_files()),
        output:
            roundtrips=f"{RESULTS}/roundtrips.parquet",
            quantization=f"{RESULTS}/quantization.parquet",
        log:
            f"{RESULTS}/writers.log",
        benchmark:
            f"{RESULTS}/writers.benchmark.tsv"
        resources:
            mem_mb=1500,
        params:
            folder=PLAN.config["writers"],
            code=code("writers.py"),
        script:
            "../scripts/writers.py"
