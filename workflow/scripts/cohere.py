"""Language and answers of one cell, as it is and under each design's chosen setting."""

from pathlib import Path

import numpy as np

from phasescope.behave import behavior, coherence
from phasescope.cell import CellJob
from phasescope.intervene import applied, load_chosen, load_directions, sham_experts
from phasescope.jobs import job
from phasescope.prompts import USES, read_prompts

with job(snakemake):
    cell = CellJob(snakemake)
    keep = cell.settings["keep_text"]
    subjects = [cell.subject]
    if cell.settings["thinking"] == "both" and cell.subject.decoding.thinking:
        subjects.append(cell.subject.without_thinking())
    more = {
        use: USES[use].keep(read_prompts(path, paired=False))
        for use, path in zip(snakemake.params.uses, snakemake.input.more, strict=True)
    }
    limit = cell.settings["limits"]["evaluate"]
    texts = list(more.pop("texts").subset("evaluate", limit)["text"]) if "texts" in more else []
    summaries, answers, unedited = [], [], {}

    def measure(condition, key):
        for subject in subjects:
            more = {"keep_text": keep, "texts": texts, "unedited": unedited}
            found = coherence(subject, condition, key, **more)
            summaries.extend(found[0])
            answers.extend(found[1])

    measure("baseline", "none")
    for use, table in more.items():
        for subject in subjects:
            asked = subject.asking(table)
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
            measure(design, edit.key)
        if design == "expert-silencing" and "knowledge" in more:  # what goes with refusal: xs-11
            asked = cell.subject.asking(more["knowledge"])
            source = directions.source(setting.position)
            edits = {design: edit}
            for draw in range(cell.settings["sham_draws"]):
                rng = np.random.default_rng((cell.settings["seed"], draw))
                edits[f"{design}-sham-{draw}"] = sham_experts(edit, source, rng)
            for condition, one in edits.items():
                with applied(cell.subject.lm, one):
                    key, use = one.key, {"keep_text": keep, "prompt_table": "knowledge"}
                    answers += behavior(asked, condition, key, **use)
    cell.write(snakemake.output.coherence, "coherence", summaries)
    cell.write(snakemake.output.behavior, "behavior", answers)
    cell.finish()
