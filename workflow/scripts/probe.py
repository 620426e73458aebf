"""Where the safety signal of one cell can be read."""

from phasescope.behave import find_openings
from phasescope.cell import CellJob, save_scratch
from phasescope.errors import NotRun
from phasescope.jobs import job
from phasescope.probe import probe_rows, read_activations

with job(snakemake):
    cell = CellJob(snakemake)
    fit = read_activations(cell.subject, "fit")
    evaluate = read_activations(cell.subject, "evaluate")
    rows = probe_rows(fit, evaluate, cell.subject.lm.layer_kinds, cell.settings["seed"])
    try:
        openings = find_openings(cell.subject.answers("fit", need_tokens=True))
    except NotRun as reason:
        openings = reason
    save_scratch(snakemake.output.scratch, fit, openings)
    cell.write(snakemake.output.table, "probes", rows)
    cell.finish()
