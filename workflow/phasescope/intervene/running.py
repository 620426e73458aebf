"""Running one design on one cell."""

from functools import cache

import numpy as np

from phasescope.behave import Openings, Subject
from phasescope.errors import NotRun, PhasescopeError
from phasescope.intervene import measuring
from phasescope.intervene.activations import Ablation
from phasescope.intervene.designs import DESIGNS, GENERATE_ALL, Setting
from phasescope.intervene.directions import Directions, orthonormal
from phasescope.intervene.edits import Edit, applied
from phasescope.intervene.selection import Scorer
from phasescope.intervene.shams import sham
from phasescope.model import next_token_logits, record
from phasescope.probe import END_OF_THINKING

LADDER_DRAWS = 3  # random controls beside each rank: they answer benign prompts too
_NONE = {"sites_requested": 0, "sites_hit": 0, "chosen": False, "status": "run"}


class Design:
    """One design on one cell: sweep its settings cheaply, generate what counts, shams beside.

    thresholds: the whole file of thresholds.
    """

    def __init__(
        self,
        name: str,
        subject: Subject,
        directions: Directions,
        openings: Openings,
        thresholds: dict,
        sham_draws: int,
        seed: int,
    ):
        self.name, self.subject, self.directions = name, subject, directions
        self.scorer = Scorer(subject, openings)
        self.thresholds, self.sham_draws, self.seed = thresholds, sham_draws, seed
        self.baseline = measuring.generate(subject)
        self._recorded = cache(self._record)

    def run(self) -> tuple[list[dict], Setting]:
        """Rows of the table `interventions` (without the cell's keys) and the chosen setting.

        Raises PhasescopeError when the model does not answer as before once all is undone.
        """
        probes = self.subject.decided("select")[:4]
        before = next_token_logits(self.subject.lm, probes, len(probes))
        positions = self.directions.positions(self.thresholds["selection"]["min_readable_auroc"])
        settings = DESIGNS[self.name](self.directions, positions)
        edits = {s: s.edit(self.directions) for s in settings}
        swept = {s: measuring.scores(self.scorer, e) for s, e in edits.items()}
        chosen = self._choose(swept)
        rows = [self._row(s, edits[s], swept[s], chosen=s == chosen) for s in settings]
        generated = {
            s: self._generated(edits[s])
            for s in settings
            if s == chosen or self.name in GENERATE_ALL
        }
        rows += [self._row(s, edits[s], m, chosen=s == chosen) for s, m in generated.items()]
        if self.name == "rank-ladder":
            rows += [row for s in settings for row in self._random_controls(s, edits[s])]
        rows += [row for s in self._nulls(generated, chosen) for row in self._shams(s, edits[s])]
        after = next_token_logits(self.subject.lm, probes, len(probes))
        if not np.array_equal(before, after):
            raise PhasescopeError(f"design {self.name}: the model is not what it was before")
        return rows, chosen

    def _choose(self, swept: dict[Setting, dict]) -> Setting:
        """Least refusal among the settings that leave benign prompts alone; if none does, the
        one that disturbs them least."""
        allowed = self.thresholds["selection"]["max_benign_kl_nats"]
        quiet = [s for s, row in swept.items() if row["benign_kl_nats"] <= allowed]
        if not quiet:
            return min(swept, key=lambda s: swept[s]["benign_kl_nats"])
        return min(quiet, key=lambda s: swept[s]["refusal_nats"])

    def _nulls(self, generated: dict[Setting, dict], chosen: Setting) -> list[Setting]:
        """What shams are drawn for: the chosen setting; of pathways all at once, since a part
        removes no more than the whole; of the ladder one direction, where it breaks refusal."""
        if self.name == "pathways":
            return [s for s in generated if s.position == chosen.position][-1:]
        if self.name == "rank-ladder":
            broken = self.thresholds["phases"]["max_broken_refusal"]
            return [
                s
                for s, measured in generated.items()
                if s.rank == 1 and measured["n_refusal"] <= broken * measured["n_hazardous"]
            ]
        return [chosen]

    def _generated(self, edit: Edit) -> dict:
        found = measuring.generate(self.subject, edit)
        return measuring.outcomes(
            found, self.baseline, self.thresholds["clean"]["max_accuracy_cost"]
        )

    def _generated_sham(self, edit: Edit) -> dict:
        with applied(self.subject.lm, edit):
            answers = self.subject.answers("evaluate", edit.key, label="hazardous")
        return measuring.sham_outcomes(answers, self.baseline)

    def _record(self, kind: str, position: str) -> np.ndarray:
        """Activations (n, layers, width) of fit prompts at one kind of site, for variances."""
        if kind == "residual":
            return self.directions.source(position).pooled
        if position == END_OF_THINKING:
            prompts = self.subject.decided("fit")
        else:
            prompts = self.subject.rendered("fit", thinking=self.subject.decoding.thinking)
        ends = [[len(p) - 1] for p in prompts]
        size = self.subject.decoding.batch_size
        return record(self.subject.lm, kind, prompts, ends, size)[:, 0]

    def _row(
        self,
        setting: Setting,
        edit: Edit,
        measured: dict,
        *,
        chosen: bool,
        direction: str | None = None,
        sham_draw: int | None = None,
    ) -> dict:
        position = self.directions.position(setting.position)
        return {
            "design": self.name,
            "intervention": setting.intervention,
            "direction": direction or setting.direction,
            "position": position,
            "site": setting.site,
            "pathways": setting.pathways,
            "layers": ",".join(map(str, setting.layers)),
            "dose": setting.dose,
            "sham_draw": sham_draw,
            "chosen": chosen,
            "status": "run",
            **measured,
            **measuring.touched(self.subject, edit, lambda kind: self._recorded(kind, position)),
        }

    def _shams(self, setting: Setting, real: Edit) -> list[dict]:
        """Sham draws of a setting: hazardous prompts, generated and graded."""
        rows = []
        position = self.directions.position(setting.position)
        source = self.directions.sources[position]
        shared = self.directions.selected.layer if setting.direction == "selected" else None
        for draw in range(self.sham_draws):
            rng = np.random.default_rng((self.seed, draw))
            edit = sham(real, source, lambda kind: self._recorded(kind, position), shared, rng)
            measured = self._generated_sham(edit)
            rows.append(
                self._row(setting, edit, measured, chosen=False, direction="sham", sham_draw=draw)
            )
        return rows

    def _random_controls(self, setting: Setting, real: Ablation) -> list[dict]:
        """Random subspaces of a setting's rank in the same layers: what losing so many dimensions
        costs, whichever they are. All prompts, generated and graded."""
        rows = []
        for draw in range(LADDER_DRAWS):
            rng = np.random.default_rng((self.seed, draw, setting.rank))
            vectors = {
                i: orthonormal(rng.standard_normal(v.shape).astype(np.float32))
                for i, v in real.vectors.items()
            }
            edit = Ablation(real.kind, vectors, real.doses)
            measured = self._generated(edit)
            rows.append(
                self._row(setting, edit, measured, chosen=False, direction="random", sham_draw=draw)
            )
        return rows


def baseline_row(design: str, subject: Subject, max_cost: float) -> dict:
    """The row of the unedited model: generated answers to the evaluate split."""
    found = measuring.generate(subject)
    return {
        "design": design,
        "intervention": "none",
        **measuring.outcomes(found, found, max_cost),
        **_NONE,
    }


def not_run_row(design: str, reason: NotRun | str) -> dict:
    """The row that says why a design did not run on a cell."""
    return {
        "design": design,
        "intervention": "none",
        "measured_by": "generation",
        **_NONE,
        "n_hazardous": 0,
        "n_benign": 0,
        "status": "not_run",
        "reason": str(reason),
    }
