"""The prompts of the study through one endpoint."""

from pathlib import Path

from phasescope.endpoints import EndpointStage
from phasescope.jobs import job, provenance
from phasescope.tables import frame_of, write_table

with job(snakemake):
    settings, entry = dict(snakemake.params.settings), dict(snakemake.params.endpoint)
    found = EndpointStage.run(
        entry, settings, Path(snakemake.input.prompts), Path(snakemake.params.journal)
    )
    where = provenance(
        settings | entry, seed=str(settings["seed"]), prompts_sha256=found.prompts_sha256
    )
    found.write_log(Path(snakemake.output.log), where)
    frame = frame_of("endpoints", found.table)
    write_table(Path(snakemake.output.table), frame, "endpoints", where)
