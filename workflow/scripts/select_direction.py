"""Select the refusal direction of one cell."""

from dataclasses import asdict

from phasescope.cell import CellJob, load_openings, load_sources, save_json
from phasescope.errors import NotRun
from phasescope.intervene import Scorer, select_direction
from phasescope.jobs import job
from phasescope.phases import read_thresholds

with job(snakemake):
    cell = CellJob(snakemake)
    thresholds = read_thresholds(snakemake.input.thresholds)["selection"]
    sources = load_sources(snakemake.input.scratch, cell.subject)
    try:
        scorer = Scorer(cell.subject, load_openings(snakemake.input.scratch))
        rows, selected, reason = select_direction(
            scorer, sources, len(cell.subject.lm.blocks), thresholds
        )
        scratch = {"selected": asdict(selected) if selected else None}
    except NotRun as error:
        rows, selected, reason, scratch = [], None, str(error), {"not_run": str(error)}
    if selected is None:
        rows.append({"qualifies": False, "chosen": False, "status": "not_run", "reason": reason})
    save_json(snakemake.output.scratch, scratch)
    cell.write(snakemake.output.table, "selection", rows)
    cell.finish()
