"""What one model's source, or one cell's weights, hold, and whether they can be trusted."""

from pathlib import Path

from phasescope.checkpoint import audit
from phasescope.checkpoint.report import write_audit
from phasescope.jobs import job, provenance
from phasescope.tables.scratch import load_facts

with job(snakemake):
    settings = dict(snakemake.params.settings)
    facts = load_facts(snakemake.input.facts)
    weights = snakemake.wildcards.weights
    found = audit(
        Path(snakemake.input.folder),
        values=settings["check_values"],
        sha256=facts["sha256"],
        bits=None if weights == "source" else int(weights),
    )
    print("\n".join([*found.faults, *found.notes]))
    found.refuse()
    keys = {"model": snakemake.wildcards.model, "precision": weights}
    where = provenance(
        settings, model_revision=facts["revision"], checkpoint_sha256=facts["sha256"]
    )
    write_audit(found, keys, facts.get("third_party", False), snakemake.output, where)
