"""Selecting the refusal direction of a cell, with the constraints of refusal_direction.

Arditi et al. 2024: among candidate directions the one with least refusal under ablation, given
that adding it induces refusal, that ablating it leaves benign prompts alone, and that it does not
come from the last layers. Scores are first-token log-odds on the select split.
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import log_softmax

from phasescope.behave import Openings, Subject, score_auroc
from phasescope.errors import NotRun
from phasescope.intervene.activations import Ablation, Addition
from phasescope.intervene.cosmic import Cosmic
from phasescope.intervene.directions import Selected, Source, unit
from phasescope.intervene.edits import Edit, applied
from phasescope.intervene.sweeping import swept_logits
from phasescope.model import next_token_logits


class Scorer:
    """First-token scores on the select split, with and without edits.

    A model that thinks is scored after what it thinks unedited (`Subject.decided`).
    """

    def __init__(self, subject: Subject, openings: Openings):
        self._subject, self._openings = subject, openings
        self.prompts = {
            label: subject.decided("select", label) for label in ("hazardous", "benign")
        }
        self._plain = {label: self._logits(label) for label in self.prompts}
        self._cosmic = Cosmic(subject)

    def _logits(self, label: str) -> np.ndarray:
        return next_token_logits(
            self._subject.lm, self.prompts[label], self._subject.decoding.batch_size
        )

    def auroc(self) -> float:
        """How well the score of unedited prompts tells their graded baseline answers apart."""
        scores = self._openings.score(np.concatenate(list(self._plain.values())))
        return score_auroc(scores, [a.grade for a in self._subject.answers("select")])

    def refusal(self, label: str, edit: Edit | None = None) -> float:
        """Mean log-odds of refusal (nats) over the prompts of a label, under an edit."""
        return float(self._openings.score(self._under(label, edit)).mean())

    def benign_kl(self, edit: Edit) -> float:
        """Mean divergence (nats) of the next token on benign prompts, unedited from edited."""
        return self._divergence(self._under("benign", edit))

    def _divergence(self, logits: np.ndarray) -> float:
        p = log_softmax(self._plain["benign"].astype(np.float64), axis=1)
        q = log_softmax(logits.astype(np.float64), axis=1)
        return float((np.exp(p) * (p - q)).sum(axis=1).mean())

    def swept(self, edits: Sequence[Edit]) -> list[tuple[float, float]]:
        """`refusal` of hazardous prompts and `benign_kl` under each edit, in one sweep."""
        prompts = self.prompts["hazardous"] + self.prompts["benign"]
        size = self._subject.decoding.batch_size
        found = [(0.0, 0.0)] * len(edits)
        for i, logits in swept_logits(self._subject.lm, edits, prompts, size):
            hazardous, benign = np.split(logits, [len(self.prompts["hazardous"])])
            refusal = float(self._openings.score(hazardous).mean())
            found[i] = refusal, self._divergence(benign)
        return found

    def cosmic(self, addition: Edit, ablation: Edit) -> float:
        """COSMIC's score of a direction, by its addition and its ablation."""
        return self._cosmic.score(addition, ablation)

    def _under(self, label: str, edit: Edit | None) -> np.ndarray:
        if edit is None:
            return self._plain[label]
        with applied(self._subject.lm, edit):
            return self._logits(label)


def ablation_everywhere(vector: np.ndarray, layers: range, dose: float = 1.0) -> Ablation:
    """Ablation of one direction (width,) from the residual stream after all the given layers."""
    basis = unit(vector)[None]
    return Ablation(
        "residual", dict.fromkeys(layers, basis), dict.fromkeys(layers, np.array([dose]))
    )


def select_direction(
    scorer: Scorer, sources: dict[str, Source], n_layers: int, thresholds: dict
) -> tuple[list[dict], Selected | None, str | None]:
    """Score every candidate (position, layer) and choose one.

    Returns the rows of the table `selection` (without the cell's keys), the choice, and, where no
    candidate qualifies, the reason. Raises NotRun where the score does not predict the grade.
    """
    auroc = scorer.auroc()
    if auroc < thresholds["min_score_auroc"]:
        raise NotRun(
            f"the first-token score does not predict the grade: AUROC {auroc:.2f}, "
            f"needed {thresholds['min_score_auroc']}"
        )
    rows = []
    for position, source in sources.items():
        for layer in range(n_layers - 1):
            if layer < thresholds["max_layer_share"] * n_layers:
                rows.append(_candidate(scorer, source, position, layer, n_layers, thresholds))
    for position in sources:  # beside the choice, for comparison
        own = [r for r in rows if r["position"] == position]
        for row in own:
            row["cosmic_best"] = row is max(own, key=lambda r: r["cosmic_score"])
    good = [r for r in rows if r["qualifies"]]
    if not good:
        return rows, None, _why_none(rows, thresholds)
    best = min(good, key=lambda r: r["ablated_refusal_nats"])
    best["chosen"] = True
    return rows, Selected(best["layer"], best["position"]), None


def _candidate(scorer, source, position, layer, n_layers, thresholds) -> dict:
    vector = source.differences[layer]
    ablation = ablation_everywhere(vector, range(n_layers - 1))
    addition = Addition("residual", {layer: vector[None]})
    row = {
        "layer": layer,
        "position": position,
        "ablated_refusal_nats": scorer.refusal("hazardous", ablation),
        "induced_refusal_nats": scorer.refusal("benign", addition),
        "benign_kl_nats": scorer.benign_kl(ablation),
        "cosmic_score": scorer.cosmic(addition, ablation),
        "chosen": False,
        "status": "run",
    }
    row["qualifies"] = (
        row["benign_kl_nats"] <= thresholds["max_benign_kl_nats"]
        and row["induced_refusal_nats"] >= thresholds["min_induced_refusal_nats"]
    )
    return row


def _why_none(rows: list[dict], thresholds: dict) -> str:
    induced = max(r["induced_refusal_nats"] for r in rows)
    divergence = min(r["benign_kl_nats"] for r in rows)
    return (
        f"no direction qualifies among {len(rows)} candidates: highest induced refusal "
        f"{induced:.2f} nats (needed {thresholds['min_induced_refusal_nats']}), lowest benign "
        f"divergence {divergence:.3f} nats (allowed {thresholds['max_benign_kl_nats']})"
    )
