"""Run one design on one cell."""

from pathlib import Path

from phasescope.behave import load_openings
from phasescope.cell import CellJob
from phasescope.errors import NotRun
from phasescope.intervene import (
    Design,
    baseline_row,
    load_directions,
    save_chosen,
    temperature_rows,
)
from phasescope.jobs import job
from phasescope.tables.interventions import not_run_row
from phasescope.tables.scratch import save_scratch
from phasescope.thresholds import read_thresholds

with job(snakemake):
    cell = CellJob(snakemake)
    design, files = snakemake.wildcards.design, snakemake.input
    thresholds = read_thresholds(files.thresholds)
    max_cost = thresholds["clean"]["max_accuracy_cost"]

    def measure(activations, selected, origin=None):
        """Rows and chosen setting with the directions of a cell's scratch."""
        directions = load_directions(activations, selected, cell.subject)
        draws, seed = cell.settings["sham_draws"], cell.settings["seed"]
        openings = load_openings(files.openings)
        run = Design(design, cell.subject, directions, openings, thresholds, draws, seed, origin)
        return run.run()

    rows = [baseline_row(design, cell.subject, max_cost)]
    try:
        if design == "temperature":
            rows += temperature_rows(cell.subject, load_openings(files.openings), max_cost)
            raise NotRun("it edits nothing, so there is no setting to choose")
        found, chosen = measure(files.activations, files.selected)
        rows += found
        save_chosen(snakemake.output.scratch, chosen)
    except NotRun as reason:
        if len(rows) == 1:
            rows.append(not_run_row(design, reason))
        save_scratch(snakemake.output.scratch, reason)
    others = list(zip(files.other_activations, files.other_selected, strict=True))
    for activations, selected in others:
        origin = Path(activations).parts[-4]
        try:
            rows += measure(activations, selected, origin)[0]
        except NotRun as reason:
            rows.append(not_run_row(design, reason) | {"direction_precision": origin})
    if design == "transfer" and not others:
        rows.append(not_run_row(design, "the study has no other precision of this model"))
    cell.write(snakemake.output.table, "interventions", rows)
    cell.finish()
