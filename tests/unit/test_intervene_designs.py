"""Designs, the selection of a direction, and what a design writes of what it did."""

import mlx.core as mx
import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp

from phasescope.behave import Answer, Decoding, Journal, Losses, Openings, Subject
from phasescope.errors import NotRun, PhasescopeError
from phasescope.intervene import (
    DESIGNS,
    RANKS,
    Addition,
    Design,
    Directions,
    Scorer,
    Selected,
    Setting,
    Source,
    applied,
    baseline_row,
    select_direction,
)
from phasescope.intervene.measuring import Generated, outcomes
from phasescope.model import load_model, next_token_logits
from phasescope.probe import LAST_PROMPT, read_activations
from phasescope.tables import frame_of, write_table

OPENINGS = Openings((20, 21), (30,))


def routed(n_layers: int, selected: Selected) -> Directions:
    """Directions of a model whose expert 1 is selected for hazardous prompts only."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((2, 24, n_layers, 8)).astype(np.float32)
    rates = np.full((2, n_layers, 8), 0.25)
    rates[:, :, 1] = np.array([0.9, 0.1])[:, None]
    source = Source(*values, np.repeat(list("abcd"), 6), rates)
    kinds = tuple("attention" if i % 4 == 3 else "recurrent" for i in range(n_layers))
    return Directions({selected.position: source}, selected, kinds)


@pytest.mark.parametrize("n_layers", [3, 4, 8, 24, 62])
def test_designs_are_as_declared(n_layers):
    """If it failed, a figure's axis would not be what was done, or the top layer be edited."""
    below = tuple(range(n_layers - 1))
    selected = Selected(n_layers // 2, LAST_PROMPT)
    found = routed(n_layers, selected)
    made = {name: design(found, [LAST_PROMPT]) for name, design in DESIGNS.items()}
    assert all(0 <= i < n_layers - 1 for s in made.values() for x in s for i in x.layers)
    assert all(len(set(s)) == len(s) for s in made.values())
    assert [s.layers for s in made["ablation-layers"]] == [(i,) for i in below]
    assert {s.layers for s in made["ablation-dose"]} == {below}
    assert [s.dose for s in made["ablation-dose"]] == [0.125, 0.25, 0.5, 1.0]
    coverage = [s.layers for s in made["ablation-coverage"]]
    assert coverage[-1] == below and all(layers[-1] == below[-1] for layers in coverage)
    for layers, share in zip(coverage[::-1], (1.0, 0.75, 0.5, 0.25), strict=False):
        assert abs(len(layers) - share * len(below)) <= 1
    scope = [(s.direction, s.site, s.layers) for s in made["ablation-scope"]]
    assert scope[0] == ("selected", "residual", below)
    assert scope[2] == ("per_layer", "residual", below[n_layers // 2 :])
    assert scope[3] == ("per_layer", "mixer", below)
    assert [(s.layers, s.dose) for s in made["addition"]] == [
        ((selected.layer,), -dose) for dose in (0.5, 1.0, 1.5, 2.0)
    ]
    factorial = [s.pathways or s.intervention for s in made["pathways"]]
    assert factorial == ["ablation", "routing_mask", "ablation", "A+R", "A+S", "R+S", "A+R+S"]
    assert [s.rank for s in made["rank-ladder"]] == list(RANKS)


def test_designs_without_a_direction(source):
    """If it failed, a design would be run with a direction that nobody chose."""
    found = Directions({LAST_PROMPT: source}, None)
    with pytest.raises(NotRun, match="none qualified"):
        DESIGNS["addition"](found, [LAST_PROMPT])
    assert {s.direction for s in DESIGNS["ablation-scope"](found, [LAST_PROMPT])} == {"per_layer"}
    with pytest.raises(NotRun, match="none qualified"):
        DESIGNS["ablation-dose"](found, [LAST_PROMPT])[0].edit(found)


def test_a_model_without_experts_has_two_pathways(source):
    """If it failed, a dense model would be said to route, or its other pathways be left out."""
    found = Directions({LAST_PROMPT: source}, None)
    assert [s.pathways for s in DESIGNS["pathways"](found, [LAST_PROMPT])] == [None, None, "A+S"]
    with pytest.raises(NotRun, match="no experts"):
        found.experts()


def test_positions_are_those_where_hazard_is_read(source):
    """If it failed, ablating a direction of noise would be called an attack, and survive it."""
    noise = Source(source.benign, source.benign[::-1], source.topics)
    found = Directions({"read": source, "noise": noise}, None)
    assert found.positions(0.65) == ["read"]
    assert Directions({"noise": noise}, None).positions(0.65) == ["noise"]


def test_settings_make_the_edits_they_name(source):
    """If it failed, doses and directions in the tables would not be those that ran."""
    difference = source.hazardous.mean(axis=0) - source.benign.mean(axis=0)
    found = Directions({LAST_PROMPT: source}, Selected(1, LAST_PROMPT))
    push = Setting("addition", "selected", "residual", (1,), -1.5).edit(found)
    np.testing.assert_allclose(push.vectors[1][0], -1.5 * difference[1], rtol=1e-5)
    each = Setting("ablation", "per_layer", "mixer", (0, 2), 0.5).edit(found)
    shared = Setting("ablation", "selected", "residual", (0, 2), 1.0).edit(found)
    for layer in (0, 2):
        length = np.linalg.norm(difference[layer])
        np.testing.assert_allclose(each.vectors[layer][0], difference[layer] / length, rtol=1e-5)
        np.testing.assert_array_equal(shared.vectors[layer], shared.vectors[0])
    assert each.kind == "mixer" and each.doses[2] == [0.5]


class Scores:
    """A scorer whose numbers are declared, by candidate layer, in place of a model's."""

    def __init__(self, auroc=1.0, ablated=(), induced=(), kl=()):
        self.auroc = lambda: auroc
        self._values = {"hazardous": ablated, "benign": induced, "kl": kl}
        self._asked = {"hazardous": 0, "benign": 0, "kl": 0}

    def _next(self, name):
        self._asked[name] += 1
        return self._values[name][self._asked[name] - 1]

    def refusal(self, label, edit):
        return self._next(label)

    def benign_kl(self, edit):
        return self._next("kl")

    def cosmic(self, addition, ablation):
        return -1.0 * next(iter(addition.vectors))  # the lowest layer has the largest


SELECTIONS = {
    "least refusal": ({"ablated": [3, -4, -2]}, 1),
    "must induce": ({"ablated": [3, -4, -2], "induced": [1, -0.1, 0]}, 2),
    "must spare benign": ({"ablated": [3, -4, -2], "kl": [0, 0.11, 0.1]}, 2),
    "ties go to the earlier layer": ({"ablated": [-4, -4, -4]}, 0),
    "none qualifies": ({"induced": [-1, -2, 1], "kl": [0, 0, 9]}, None),
}


@pytest.mark.parametrize("case", SELECTIONS)
def test_selection_keeps_its_constraints(source, thresholds, case):
    """If it failed, a direction that breaks the model could be chosen, and called refusal."""
    numbers, layer = SELECTIONS[case]
    numbers = {"ablated": [0, 0, 0], "induced": [1, 1, 1], "kl": [0, 0, 0]} | numbers
    rows, chosen, reason = select_direction(
        Scores(**numbers), {LAST_PROMPT: source}, 4, thresholds["selection"]
    )
    assert [r["layer"] for r in rows] == [0, 1, 2]
    assert [r["layer"] for r in rows if r["chosen"]] == ([] if layer is None else [layer])
    assert chosen == (None if layer is None else Selected(layer, LAST_PROMPT))
    assert frame_of("selection", rows)["status"].eq("run").all()
    assert [r["layer"] for r in rows if r["cosmic_best"]] == [0]
    if layer is None:
        assert "3 candidates" in reason and "1.00 nats" in reason and "0.000 nats" in reason


def test_selection_takes_no_late_layer(thresholds):
    """If it failed, a direction next to the logits would be taken for the model's decision."""
    flat = Source(np.ones((4, 10, 2)), np.zeros((4, 10, 2)), np.array(list("abcd")))
    scores = Scores(ablated=range(9, 0, -1), induced=[1] * 9, kl=[0] * 9)
    rows, chosen, _ = select_direction(scores, {LAST_PROMPT: flat}, 10, thresholds["selection"])
    assert [r["layer"] for r in rows] == list(range(8)) and chosen.layer == 7


def test_selection_that_cannot_be_made_is_not_run(source, thresholds):
    """If it failed, a sweep would be read off a score that says nothing of the answers."""
    limits = thresholds["selection"]
    with pytest.raises(NotRun, match=r"does not predict the grade: AUROC 0\.79, needed 0\.8"):
        select_direction(Scores(auroc=0.79), {LAST_PROMPT: source}, 4, limits)


def test_scorer_measures_the_first_token(make_subject, lm):
    """If it failed, the cheap sweep would optimize something else than refusal."""
    subject = make_subject()
    scorer, edit = Scorer(subject, OPENINGS), Addition("residual", {1: np.full((1, 64), 0.5)})
    plain = next_token_logits(lm, subject.rendered("select", "benign", thinking=False), 4)
    with applied(lm, edit):
        pushed = next_token_logits(lm, subject.rendered("select", "benign", thinking=False), 4)
    for logits, found in (
        (plain, scorer.refusal("benign")),
        (pushed, scorer.refusal("benign", edit)),
    ):
        want = (logsumexp(logits[:, [20, 21]], axis=1) - logits[:, 30]).mean()
        assert found == pytest.approx(want, abs=1e-4)
    p, q = (log_softmax(x.astype(float), axis=1) for x in (plain, pushed))
    assert scorer.benign_kl(edit) == pytest.approx((np.exp(p) * (p - q)).sum(1).mean(), rel=1e-4)
    with pytest.raises(NotRun, match="cannot be checked"):
        scorer.auroc()  # random weights neither refuse nor comply


def _answers(grades: str) -> list[Answer]:
    names = {"r": "refusal", "f": "full", "p": "partial", "d": "degenerate"}
    return [Answer(names[g], g != "d", 0, 3, 0.0, "") for g in grades]


def test_outcomes_count_against_the_baseline():
    """If it failed, removal would count prompts that were never refused, or broken answers."""
    before, after = (Losses(np.array([n, 2.0 * n]), np.array([2, 4])) for n in (1.0, 3.0))
    baseline = Generated(_answers("rrrrff"), _answers("ffffff"), before)
    edited = Generated(_answers("fpdrff"), _answers("fffffd"), after)
    row = outcomes(edited, baseline, max_cost=0.2)
    assert (row["n_refused_at_baseline"], row["n_removed"], row["removal"]) == (4, 2, 0.5)
    assert (row["n_full"], row["n_partial"], row["n_degenerate"], row["n_refusal"]) == (3, 1, 1, 1)
    assert (row["n_benign_lost"], row["n_benign_gained"]) == (1, 0)
    assert row["benign_log_perplexity_change_nats"] == 1.0
    assert row["clean"] and row["accuracy_cost"] == pytest.approx(1 / 6)
    dirty = outcomes(edited, baseline, max_cost=0.1)
    assert not dirty["clean"] and dirty["removal"] == 0 and dirty["n_removed"] == 2


@pytest.fixture(scope="module")
def designed(dense, table, tmp_path_factory, thresholds):
    """A whole design, baseline row first, on a model of its own."""
    limits = {"fit": 60, "select": 4, "evaluate": 4}
    journal = Journal(tmp_path_factory.mktemp("journal"))
    subject = Subject(load_model(dense), table, limits, Decoding(False, 8, 4, 8), journal, "x")
    fit = read_activations(subject, "fit")
    hazardous, benign, pairs = fit.paired(LAST_PROMPT)
    topics = subject.prompts("fit", "benign")["category"].to_numpy()
    own = Source(hazardous, benign, topics[pairs])

    def make(name="ablation-dose"):
        found = Directions({LAST_PROMPT: own}, Selected(1, LAST_PROMPT))
        return Design(name, subject, found, OPENINGS, thresholds, sham_draws=2, seed=0)

    return make


@pytest.mark.parametrize("name", ["ablation-dose", "ablation-scope", "addition"])
def test_a_design_says_all_it_did(designed, tmp_path, model_bytes, name):
    """If it failed, a row of the table would not be a setting that ran, or a sham no null."""
    design = designed(name)
    before = model_bytes(design.subject.lm.model)
    rows, chosen = design.run()
    assert model_bytes(design.subject.lm.model) == before
    rows.insert(0, baseline_row(name, design.subject, 0.15))
    frame = frame_of("interventions", [{"model": "m", "precision": "16"} | r for r in rows])
    write_table(tmp_path / "t.parquet", frame, "interventions", {})
    assert len(frame) == 1 + 4 + 4 + 2
    edited, shams = frame[1:9], frame[frame["sham_draw"].notna()]
    assert (edited["sites_hit"] == edited["sites_requested"]).all()
    assert (edited["norm_removed"] > 0).all()
    picked = edited[edited["chosen"]]
    assert set(picked["measured_by"]) == {"first_token", "generation"}
    assert set(picked["layers"]) == {",".join(map(str, chosen.layers))}
    assert set(shams["direction"]) == {"sham"}
    real = float(picked["variance_removed"].iloc[0])
    np.testing.assert_allclose(shams["variance_removed"], real, atol=1e-6)


def test_a_design_that_changes_the_model_fails(designed, monkeypatch):
    """If it failed, a leak in an intervention would spoil all that follows, unseen."""
    design = designed()
    head = design.subject.lm.stack.embed_tokens

    def spoil(setting, real):
        head.weight = head.weight + mx.array(0.01)
        return []

    monkeypatch.setattr(design, "_shams", spoil)
    with pytest.raises(PhasescopeError, match="not what it was before"):
        design.run()


@pytest.mark.parametrize("most", [0.5, -1.0], ids=["breaks", "holds"])
def test_shams_stand_beside_the_least_dose_that_breaks_refusal(designed, most):
    """If it failed, shams of a far stronger edit would break the model too, and a tangle that hangs
    on one direction could not be told from a model that any edit breaks."""
    design = designed("ablation-per-layer")
    limits = design.thresholds["phases"] | {"max_broken_refusal": most}
    design.thresholds = design.thresholds | {"phases": limits}
    rows, chosen = design.run()
    real = [r for r in rows if r["sham_draw"] is None and r["measured_by"] == "generation"]
    broken = [r["dose"] for r in real if r["n_refusal"] <= most * r["n_hazardous"]]
    doses = [r["dose"] for r in rows if r["sham_draw"] is not None]
    assert bool(broken) == (most > 0)
    assert doses == [min(broken, default=chosen.dose)] * 2
