"""Language and answers of one cell, as it is and under each design's chosen setting."""

from pathlib import Path

from phasescope.behave import behavior, coherence
from phasescope.cell import CellJob
from phasescope.intervene import applied, load_chosen, load_directions
from phasescope.jobs import job
from phasescope.prompts import USES, read_prompts

with job(snakemake):
    cell = CellJob(snakemake)
    keep = cell.settings["keep_text"]
    more = {
        use: USES[use].keep(read_prompts(path, paired=False))
        for use, path in zip(snakemake.params.uses, snakemake.input.more, strict=True)
    }
    limit = cell.settings["limits"]["evaluate"]
    texts = list(more.pop("texts").subset("evaluate", limit)["text"]) if "texts" in more else []
    summaries, answers = coherence(cell.subject, "baseline", "none", keep_text=keep, texts=texts)
    for use, table in more.items():
        asked = cell.subject.asking(table)
        answers += behavior(asked, "baseline", "none", keep_text=keep, prompt_table=use)
    chosen = {Path(p).stem: load_chosen(p) for p in snakemake.input.chosen}
    chosen = {design: setting for design, setting in chosen.items() if setting}
    if chosen:
        directions = load_directions(
            snakemake.input.activations, snakemake.input.selected, cell.subject
        )
    for design, setting in chosen.items():
        edit = setting.edit(directions)
        with applied(cell.subject.lm, edit):
            found = coherence(cell.subject, design, edit.key, keep_text=keep, texts=texts)
        summaries += found[0]
        answers += found[1]
    cell.write(snakemake.output.coherence, "coherence", summaries)
    cell.write(snakemake.output.behavior, "behavior", answers)
    cell.finish()
