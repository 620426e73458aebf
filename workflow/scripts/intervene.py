"""Run one design on one cell."""

from dataclasses import asdict

from phasescope.cell import CellJob, load_openings, load_selected, load_sources, save_json
from phasescope.errors import NotRun
from phasescope.intervene import Design, baseline_row, not_run_row
from phasescope.jobs import job
from phasescope.phases import read_thresholds
from phasescope.probe import LAST_PROMPT

with job(snakemake):
    cell = CellJob(snakemake)
    design = snakemake.wildcards.design
    thresholds = read_thresholds(snakemake.input.thresholds)
    rows = [baseline_row(design, cell.subject, thresholds["clean"]["max_accuracy_cost"])]
    try:
        selected = load_selected(snakemake.input.selected)
        sources = load_sources(snakemake.input.scratch, cell.subject)
        run = Design(
            design,
            cell.subject,
            sources[selected.position if selected else LAST_PROMPT],
            selected,
            load_openings(snakemake.input.scratch),
            thresholds,
            cell.settings["sham_draws"],
            cell.settings["seed"],
        )
        found, chosen = run.run()
        rows += found
        scratch = asdict(chosen)
    except NotRun as reason:
        rows.append(not_run_row(design, reason))
        scratch = {"not_run": str(reason)}
    save_json(snakemake.output.scratch, scratch)
    cell.write(snakemake.output.table, "interventions", rows)
    cell.finish()
