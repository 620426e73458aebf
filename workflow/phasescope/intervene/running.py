"""Running one design on one cell."""

from collections.abc import Iterator
from functools import cache

import numpy as np

from phasescope.behave import Openings, Subject
from phasescope.errors import NotRun, PhasescopeError
from phasescope.intervene import measuring
from phasescope.intervene.activations import Ablation
from phasescope.intervene.designs import DESIGNS, GENERATE_ALL, PER_LAYER, RANK_LADDER
from phasescope.intervene.directions import Directions, orthonormal
from phasescope.intervene.edits import Edit, applied
from phasescope.intervene.extras import EXTRAS
from phasescope.intervene.selection import Scorer
from phasescope.intervene.settings import Setting
from phasescope.intervene.shams import sham
from phasescope.model import next_token_logits, record
from phasescope.probe import END_OF_THINKING
from phasescope.tables.interventions import not_run_row

SHAM_EACH = ("layer-types", "read-act")
SHAM_WHOLE = ("expert-pruning", "integers")  # what capability costs is what they are about
LADDER_DRAWS = 3  # random controls beside each rank: they answer benign prompts too
_NONE = {"sites_requested": 0, "sites_hit": 0, "chosen": False, "status": "run"}


class Design:
    """One design on one cell: sweep its settings cheaply, generate what counts, shams beside.

    thresholds: the whole file of thresholds; origin: the precision whose directions these are,
    where it is not the cell's own.
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
        origin: str | None = None,
    ):
        self.name, self.subject, self.directions = name, subject, directions
        self.scorer = Scorer(subject, openings)
        self.thresholds, self.sham_draws, self.seed = thresholds, sham_draws, seed
        self.baseline = measuring.generate(subject)
        self.origin = origin
        self._recorded, self._known, self._hits = cache(self._record), {}, {}

    def run(self) -> tuple[list[dict], Setting]:
        """Rows of the table `interventions` (without the cell's keys) and the chosen setting.

        Raises PhasescopeError when the model does not answer as before once all is undone.
        """
        probes = self.subject.decided("select")[:4]
        before = next_token_logits(self.subject.lm, probes, len(probes))
        positions = self.directions.positions(self.thresholds["selection"]["min_readable_auroc"])
        declared = DESIGNS[self.name](self.directions, positions)
        edits, missing = self._edits(declared)
        settings = list(edits)
        several = list(edits.values())
        touches = measuring.touches(self.subject, several)
        self._hits |= {e.key: t for e, t in zip(several, touches, strict=True)}
        found = measuring.scores(self.scorer, several)
        swept = dict(zip(edits, found, strict=True))
        chosen = self._choose(swept)
        rows = missing + [self._row(s, edits[s], swept[s], chosen=s == chosen) for s in settings]
        generated = {
            s: self._generated(edits[s])
            for s in settings
            if s == chosen or s.role or self.name in GENERATE_ALL
        }
        rows += [self._row(s, edits[s], m, chosen=s == chosen) for s, m in generated.items()]
        draw = {RANK_LADDER: self._random_controls}.get(self.name, self._shams)
        if self.name in SHAM_WHOLE:
            draw = self._whole_shams
        rows += [row for s in self._nulls(generated, chosen) for row in draw(s, edits[s])]
        after = next_token_logits(self.subject.lm, probes, len(probes))
        if not np.array_equal(before, after):
            raise PhasescopeError(f"design {self.name}: the model is not what it was before")
        if self.origin:  # another cell's choice is no choice here
            rows = [row | {"chosen": False} for row in rows]
        return rows, chosen

    def _edits(self, declared: list[Setting]) -> tuple[dict[Setting, Edit], list[dict]]:
        """The edits of the settings that the model can have, and rows that say why it cannot have
        the others. Raises NotRun where it can have none."""
        edits, missing = {}, []
        for setting in declared:
            try:
                edits[setting] = self._possible(setting)
            except NotRun as reason:
                named = {"intervention": setting.intervention, "role": setting.role}
                missing.append(not_run_row(self.name, reason) | named)
        if not edits:
            reasons = dict.fromkeys(row["reason"] for row in missing)
            raise NotRun("; ".join(reasons) or "it has no setting on this model")
        return edits, missing

    def _possible(self, setting: Setting) -> Edit:
        """The edit of a setting, once it could be applied; NotRun where it cannot."""
        edit = setting.edit(self.directions)
        if not edit.layers:
            raise NotRun("the model has none of its layers")
        with applied(self.subject.lm, edit):
            return edit

    def _choose(self, swept: dict[Setting, dict]) -> Setting:
        """Least refusal among the settings that leave benign prompts alone; if none does, the
        one that disturbs them least."""
        allowed = self.thresholds["selection"]["max_benign_kl_nats"]
        quiet = [s for s, row in swept.items() if row["benign_kl_nats"] <= allowed]
        if not quiet:
            return min(swept, key=lambda s: swept[s]["benign_kl_nats"])
        return min(quiet, key=lambda s: swept[s]["refusal_nats"])

    def _nulls(self, generated: dict[Setting, dict], chosen: Setting) -> list[Setting]:
        """What controls are drawn for: the chosen setting; of pathways and the battery all at once,
        since a part removes no more than the whole; of a dose response what first breaks refusal at
        a position; where settings are compared with one another, each that has a role; of the
        ladder, and where cost is what is asked, each."""
        if self.name == RANK_LADDER or self.name in SHAM_WHOLE:
            return list(generated)
        if self.name in ("pathways", "battery"):
            return [s for s in generated if s.position == chosen.position][-1:]
        if self.name == PER_LAYER:
            return self._first_that_break(generated) or [chosen]
        compared = [s for s in generated if s.role] if self.name in SHAM_EACH else []
        return compared + [chosen] * (chosen not in compared)

    def _first_that_break(self, generated: dict[Setting, dict]) -> list[Setting]:
        """At each position the least dose that breaks refusal."""
        most = self.thresholds["phases"]["max_broken_refusal"]
        first = {}
        for s, measured in sorted(generated.items(), key=lambda pair: pair[0].dose):
            if measured["n_refusal"] <= most * measured["n_hazardous"]:
                first.setdefault(s.position, s)
        return list(first.values())

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
            "role": setting.role,
            "direction_precision": self.origin,
            "status": "run",
            **measured,
            **self._touched(edit, position),
        }

    def _touched(self, edit: Edit, position: str) -> dict:
        """What an edit changed, and what the design wants to know of it; measured once an edit."""
        key = edit.key, position
        if key not in self._known:
            own = EXTRAS.get(self.name, lambda *_: {})(self.subject, self.directions, edit)
            if edit.key not in self._hits:
                (self._hits[edit.key],) = measuring.touches(self.subject, [edit])
            self._known[key] = own | measuring.touched(
                edit, self._hits[edit.key], lambda kind: self._recorded(kind, position)
            )
        return self._known[key]

    def _shams(self, setting: Setting, real: Edit) -> list[dict]:
        """Sham draws of a setting: hazardous prompts, generated and graded."""
        return [
            self._row(
                setting,
                edit,
                self._generated_sham(edit),
                chosen=False,
                direction="sham",
                sham_draw=draw,
            )
            for draw, edit in self._sham_edits(setting, real, self.sham_draws)
        ]

    def _whole_shams(self, setting: Setting, real: Edit) -> list[dict]:
        """A few sham draws of a setting that answer benign prompts too."""
        return [
            self._row(
                setting,
                edit,
                self._generated(edit),
                chosen=False,
                direction="sham",
                sham_draw=draw,
            )
            for draw, edit in self._sham_edits(setting, real, LADDER_DRAWS)
        ]

    def _sham_edits(self, setting: Setting, real: Edit, draws: int) -> Iterator[tuple[int, Edit]]:
        position = self.directions.position(setting.position)
        source = self.directions.sources[position]
        shared = self.directions.selected.layer if setting.direction == "selected" else None
        for draw in range(draws):
            rng = np.random.default_rng((self.seed, draw))
            yield draw, sham(real, source, lambda k: self._recorded(k, position), shared, rng)

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
