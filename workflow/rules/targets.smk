# Needs: the study's plan. Makes: nothing itself.
# One target a model: `snakemake <id>` makes all that its cells make, and nothing of the others.

for _model in PLAN.models:

    rule:
        name:
            _model.id
        input:
            model_tables(_model.id),
