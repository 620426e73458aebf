"""Follow edits of one model through quantization and conversion."""

from pathlib import Path

from phasescope.cell import CellJob
from phasescope.errors import NotRun
from phasescope.intervene import load_directions
from phasescope.jobs import job
from phasescope.survival import Survival, not_run_row
from phasescope.tables.temporary import sweep

with job(snakemake):
    sweep()
    cell = CellJob(snakemake)
    s = cell.settings
    try:
        directions = load_directions(
            snakemake.input.activations, snakemake.input.selected, cell.subject
        )
        survival = Survival(
            cell.subject,
            directions,
            Path(snakemake.input.folder),
            s["group_size"],
            s["sham_draws"],
            s["seed"],
        )
        rows = survival.run(s["survival"], s["llama_cpp"])
    except NotRun as reason:
        rows = [not_run_row(reason)]
    cell.write(snakemake.output.table, "survival", rows)
    cell.finish()
