# Needs: a data set on the hub at a pinned revision, or its files in a folder.
# Makes: a prompt table of it, and what that was made from.


rule prompt_table:
    input:
        lambda w: local(prompt_source(w).local_files()),
    output:
        table=f"{RESULTS}/prompts/{{table}}.tsv",
        facts=f"{RESULTS}/prompts/{{table}}.json",
    log:
        f"{RESULTS}/prompts/{{table}}.log",
    benchmark:
        f"{RESULTS}/prompts/{{table}}.benchmark.tsv"
    wildcard_constraints:
        table="[a-z0-9_-]+",
    params:
        source=lambda w: asdict(prompt_source(w)),
        code=code("prompt_table.py"),
    script:
        "../scripts/prompt_table.py"
