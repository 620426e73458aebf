# Needs: a local folder, or the hub (HF_TOKEN and HF_HOME are respected).
# Makes: a folder of links to the checked checkpoint of a model, and what it is: its revision, and
# the hash of every file, compared to the hub's.


rule fetch:
    input:
        lambda w: local(PLAN.local_files(w.model)),  # a changed file reruns the model
    output:
        folder=directory(local(f"{RESULTS}/{{model}}/fetch/checkpoint")),
        facts=local(f"{RESULTS}/{{model}}/fetch/checkpoint.json"),
    log:
        f"{RESULTS}/{{model}}/fetch/fetch.log",
    benchmark:
        f"{RESULTS}/{{model}}/fetch/fetch.benchmark.tsv"
    params:
        source=lambda w: PLAN.source(w.model),
        code=code("fetch.py"),
    script:
        "../scripts/fetch.py"
