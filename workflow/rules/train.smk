# Needs: the recipe of an organism where the configuration names seeds; of a constructed one its
# base's recipe, and the base itself where the study trains it from the same seed.
# Makes: the organism, trained from a seed: a checkpoint folder.


rule train:
    input:
        recipe=lambda w: local(PLAN.trained[w.model]["recipe"]),
        base_recipe=lambda w: local(base_recipe(PLAN.trained[w.model]["recipe"])),
        base=lambda w: local(trained_base(w.model)),
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
