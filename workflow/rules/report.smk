# Needs: the study-wide tables, the merged configuration, the page's template.
# Makes: the report, one self-contained page.


rule report:
    input:
        tables=[f"{RESULTS}/{name}.parquet" for name in PLAN.tables],
        config=f"{RESULTS}/config.yaml",
        template=local(template_files()),
    output:
        f"reports/{STUDY}/index.html",
    log:
        f"{RESULTS}/report.log",
    benchmark:
        f"{RESULTS}/report.benchmark.tsv"
    params:
        code=code("report.py"),
    script:
        "../scripts/report.py"
