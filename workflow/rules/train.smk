# Needs: the recipe of an organism, and of the one it is constructed from, where the configuration names seeds.
# Makes: the organism, trained from a seed: a checkpoint folder.


rule train:
    input:
        recipe=lambda w: local(PLAN.trained[w.model]["recipe"]),
        base=lambda w: local(base_recipe(PLAN.trained[w.model]["recipe"])),
    output:
        directory(local(f"{RESULTS}/organisms/{{model}}")),
    log:
        f"{RESULTS}/organisms/{{model}}.log",
    benchmark:
        f"{RESULTS}/organisms/{{model}}.benchmark.tsv"
    wildcard_constraints:
        model="|".join(re.escape(name) for name in PLAN.trained) or "none",
    params:
        seed=lambda w: PLAN.trained[w.model]["seed"],
        code=code("train.py"),
    script:
        "../scripts/train.py"
