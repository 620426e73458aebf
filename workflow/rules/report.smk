# Needs: the study-wide tables, the merged configuration, the record of calibrated phases, the
# page's template.
# Makes: the report, one self-contained page, and its figures as PDF and PNG. Both are marked for
# Snakemake's own report (`snakemake --report FILE`).


rule report:
    input:
        tables=[f"{RESULTS}/{name}.parquet" for name in PLAN.tables],
        config=f"{RESULTS}/config.yaml",
        record=local("resources/calibration/phases.tsv"),
        template=local(template_files()),
    output:
        report(
            f"reports/{STUDY}/index.html",
            caption="../report/page.rst",
            category="Report",
            labels={"study": STUDY},
        ),
    log:
        f"{RESULTS}/report.log",
    benchmark:
        f"{RESULTS}/report.benchmark.tsv"
    params:
        code=code("report.py"),
    script:
        "../scripts/report.py"


rule figures:
    input:
        **rules.report.input,
    output:
        report(
            directory(f"reports/{STUDY}/figures"),
            patterns=["{figure}.png"],
            caption="../report/figures.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
    log:
        f"{RESULTS}/figures.log",
    benchmark:
        f"{RESULTS}/figures.benchmark.tsv"
    params:
        code=code("figures.py"),
    script:
        "../scripts/figures.py"
