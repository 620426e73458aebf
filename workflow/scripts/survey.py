"""Where the safety signal of one cell is, in every layer, channel and moment."""

from phasescope.cell import CellJob
from phasescope.jobs import job
from phasescope.probe import survey

with job(snakemake):
    cell = CellJob(snakemake)
    s = cell.settings
    most = s["survey_pairs"]
    cell.subject.limits = {split: min(n, most) for split, n in cell.subject.limits.items()}
    for name in s["survey"]:
        rows = survey(name, cell.subject, snakemake.input.openings, s["seed"])
        cell.write(snakemake.output.get(name), name, rows)
    cell.finish()
