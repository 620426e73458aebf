"""A cell's job: its subject, its scratch files, its tables."""

import json
from pathlib import Path

import numpy as np

from phasescope.behave import Decoding, Openings, Subject
from phasescope.errors import NotRun
from phasescope.intervene import Selected, Setting, Source
from phasescope.jobs import provenance
from phasescope.matrix import EFFORT
from phasescope.probe import Activations
from phasescope.prompts import rendered_hash
from phasescope.tables import atomic_file, frame_of, write_table


class CellJob:
    """What a stage's script has in hand: everything that Snakemake gave it, opened."""

    def __init__(self, snakemake):
        self.settings = dict(snakemake.params.settings)
        self.keys = {"model": snakemake.wildcards.model, "precision": snakemake.wildcards.precision}
        self.facts = json.loads(Path(snakemake.input.facts).read_text())
        s = self.settings
        self.subject = Subject.open(
            snakemake.input.folder,
            snakemake.input.prompts,
            EFFORT[s["effort"]],
            Decoding(
                s["thinking"] == "on",
                s["max_thinking_tokens"],
                s["max_answer_tokens"],
                s["batch_size"],
            ),
            Path(snakemake.params.journal),
            self.facts["sha256"],
        )

    def write(self, path: str, table: str, rows: list[dict]) -> None:
        """Write rows (without the cell's keys) as a declared table with its provenance."""
        prompts = self.subject.rendered("evaluate", thinking=self.subject.decoding.thinking)
        frame = frame_of(table, [self.keys | row for row in rows])
        write_table(
            Path(path),
            frame,
            table,
            provenance(
                self.settings,
                model_revision=self.facts["revision"],
                checkpoint_sha256=self.facts["sha256"],
                weights_from=self.facts["weights_from"],
                compute_dtype=self.subject.lm.compute_dtype,
                seed=str(self.settings["seed"]),
                prompts_sha256=self.subject.table.sha256,
                rendered_prompts_sha256=rendered_hash(prompts),
            ),
        )

    def finish(self) -> None:
        """Drop the answers' text from the journal, unless the study keeps it."""
        if not self.settings["keep_text"]:
            self.subject.journal.seal()


def save_json(path: str, value: dict) -> None:
    """Write a scratch file."""
    with atomic_file(Path(path)) as temporary:
        temporary.write_text(json.dumps(value) + "\n")


def load_json(path: str) -> dict:
    """Read a scratch file; raises NotRun with the reason where it holds one."""
    found = json.loads(Path(path).read_text())
    if "not_run" in found:
        raise NotRun(found["not_run"])
    return found


def save_scratch(folder: str, fit: Activations, openings: Openings | NotRun) -> None:
    """Keep what the designs need from the probe: fit activations and refusal openings."""
    path = Path(folder)
    path.mkdir(mode=0o700)
    np.savez(
        path / "activations.npz",
        values=fit.values,
        present=fit.present,
        positions=np.array(fit.positions),
    )
    if isinstance(openings, NotRun):
        save_json(path / "openings.json", {"not_run": str(openings)})
    else:
        save_json(
            path / "openings.json", {"refusal": openings.refusal, "compliance": openings.compliance}
        )


def load_openings(folder: str) -> Openings:
    """The openings that the probe found; raises NotRun with the reason where there are none."""
    return Openings(**{k: tuple(v) for k, v in load_json(f"{folder}/openings.json").items()})


def load_sources(folder: str, subject: Subject) -> dict[str, Source]:
    """Fit activations by the positions that directions may come from."""
    with np.load(Path(folder) / "activations.npz") as kept:
        fit = Activations(tuple(kept["positions"].tolist()), kept["values"], kept["present"])
    topics = subject.prompts("fit", "benign")["category"].to_numpy()
    sources = {}
    for position in fit.positions:
        if position.startswith("answer"):
            continue  # what the answer says is no cause of it
        hazardous, benign, pairs = fit.paired(position)
        if len(pairs) >= 4:
            sources[position] = Source(hazardous, benign, topics[pairs])
    return sources


def load_selected(path: str) -> Selected | None:
    """The selected direction of a cell, or None where none qualified; raises NotRun with the
    reason where the selection could not be made at all."""
    found = load_json(path)
    return Selected(**found["selected"]) if found["selected"] else None


def load_chosen(path: str) -> Setting | None:
    """The setting that a design chose, or None where the design did not run."""
    try:
        found = load_json(path)
    except NotRun:
        return None
    return Setting(**found | {"layers": tuple(found["layers"])})
