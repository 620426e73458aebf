# Needs: the tables of all cells that run, and the prompt tables that they were asked.
# Makes: the study-wide tables, rates of the answers and paired comparisons of them, the row of each
# cell (what ran, what did not and why), and the merged configuration.


rule collect:
    input:
        **survey_tables(),
        checkpoints=[
            f"{RESULTS}/{cell.name}/quantize/checkpoint.json" for cell in PLAN.running("quantize")
        ],
        prompts=asked_tables(),
        audit=audit_tables("audit"),
        tensors=audit_tables("tensors"),
        probes=study_tables("probe", "probes"),
        selection=study_tables("select", "selection"),
        interventions=design_tables(),
        coherence=study_tables("cohere", "coherence"),
        behavior=study_tables("cohere", "behavior"),
        calibration_sets=study_tables("calibration_sets", "calibration_sets"),
        survival=study_tables("survival", "survival"),
        endpoints=endpoint_tables(),
    output:
        **{name: f"{RESULTS}/{name}.parquet" for name in studies.COLLECTED_TABLES},
        config=f"{RESULTS}/config.yaml",
    log:
        f"{RESULTS}/collect.log",
    benchmark:
        f"{RESULTS}/collect.benchmark.tsv"
    params:
        config=PLAN.config,
        cells=PLAN.records(),
        dropped=PLAN.dropped(),
        prompts=PLAN.prompt_records,
        asked=list(map(str, asked_tables())),
        judge_errors=PLAN.judge_errors(),
        code=code("collect.py"),
    script:
        "../scripts/collect.py"
