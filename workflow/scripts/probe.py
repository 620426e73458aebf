"""Where the safety signal of one cell can be read."""

from pathlib import Path

from phasescope.behave import find_openings, save_openings
from phasescope.cell import CellJob
from phasescope.errors import NotRun
from phasescope.jobs import job
from phasescope.probe import probe_rows, read_activations, save_activations

with job(snakemake):
    cell = CellJob(snakemake)
    fit = read_activations(cell.subject, "fit")
    evaluate = read_activations(cell.subject, "evaluate")
    rows = probe_rows(
        fit,
        evaluate,
        (cell.subject.topics("fit"), cell.subject.topics("evaluate")),
        cell.subject.lm.layer_kinds,
        cell.settings["seed"],
    )
    try:
        openings = find_openings(cell.subject.answers("fit", need_tokens=True))
    except NotRun as reason:
        openings = reason
    Path(snakemake.output.activations).parent.chmod(0o700)
    save_activations(snakemake.output.activations, fit)
    save_openings(snakemake.output.openings, openings)
    cell.write(snakemake.output.table, "probes", rows)
    cell.finish()
