# Needs: a fetched checkpoint, or the hub id of a ready-made quantized one.
# Makes: the weights of a cell (16 bit passes through as links), and what they are. Where sources
# are not kept (keep_sources: false), one job a model fetches, quantizes and deletes its source.


rule quantize:
    input:
        unpack(quantize_source),
    output:
        folder=directory(local(WEIGHTS)),
        facts=f"{CELL}/quantize/checkpoint.json",
    log:
        f"{CELL}/quantize/quantize.log",
    benchmark:
        f"{CELL}/quantize/quantize.benchmark.tsv"
    wildcard_constraints:
        model=kept_sources,
    resources:
        mem_mb=memory("quantize"),
    params:
        ready_made=lambda w: PLAN.ready_made(w.model, w.precision),
        settings=settings("group_size"),
        code=code("quantize.py"),
    script:
        "../scripts/quantize.py"


for _model, _bits in PLAN.released.items():

    rule:
        name:
            f"quantize_{_model}"
        output:
            folders=[directory(local(f"{RESULTS}/{_model}/{b}/quantize/checkpoint")) for b in _bits],
            facts=[f"{RESULTS}/{_model}/{b}/quantize/checkpoint.json" for b in _bits],
            source=local(f"{RESULTS}/{_model}/quantize/source.json"),
            audit=f"{RESULTS}/{_model}/source/audit/audit.parquet",
            tensors=f"{RESULTS}/{_model}/source/audit/tensors.parquet",
        log:
            f"{RESULTS}/{_model}/quantize/quantize.log",
        benchmark:
            f"{RESULTS}/{_model}/quantize/quantize.benchmark.tsv"
        resources:
            mem_mb=PLAN.cell(_model, _bits[0]).mem_mb("quantize"),
            passing_sources=1,
        params:
            source=PLAN.source(_model),
            bits=_bits,
            model=_model,
            private=f"{RESULTS}/{_model}/quantize/.hub",
            settings=settings("group_size", "check_values"),
            code=code("quantize_and_release.py"),
        script:
            "../scripts/quantize_and_release.py"
