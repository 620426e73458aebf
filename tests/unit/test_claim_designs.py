"""Designs that single claims rest on: what they declare, and which of them a cell leaves out."""

from dataclasses import replace

import numpy as np
import pytest

from phasescope.behave import Decoding, Journal, Openings, Subject
from phasescope.errors import NotRun
from phasescope.intervene import (
    CLAIM_DESIGNS,
    Addition,
    Design,
    Directions,
    Selected,
    Source,
    applied,
    baseline_row,
    load_chosen,
    save_chosen,
)
from phasescope.intervene.directions import unit
from phasescope.intervene.extras import take_over
from phasescope.intervene.sampling import opening_probabilities
from phasescope.matrix import dropped_designs
from phasescope.matrix.effort import DROPPED_FIRST
from phasescope.model import load_model, record_sites
from phasescope.phases.evidence import evidence
from phasescope.probe import LAST_PROMPT
from phasescope.tables import frame_of
from phasescope.tables.interventions import CLAIM_DESIGN_NAMES

OPENINGS = Openings((20, 21), (30, 31))
KINDS = ("recurrent", "attention")


def _directions(n_layers=4, experts=4, width=64) -> Directions:
    """Directions of a hybrid whose expert 1 is selected for hazardous prompts, and 0 is idle."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((2, 24, n_layers, width)).astype(np.float32)
    values[0, :, 1] += 2  # hazard is read best in layer 1
    rates = np.full((2, n_layers, experts), 0.25)
    rates[:, :, 1] = np.array([0.9, 0.1])[:, None]
    saliency = np.tile(np.arange(1.0, experts + 1), (n_layers, 1))
    source = Source(*values, np.repeat(list("abcd"), 6), rates)
    kinds = tuple(KINDS[i % 2] for i in range(n_layers))
    return Directions({LAST_PROMPT: source}, Selected(1, LAST_PROMPT), kinds, lambda: (saliency, 2))


@pytest.mark.parametrize("n_layers", [4, 8, 24, 62])
def test_claim_designs_are_as_declared(n_layers):
    """If it failed, a claim would be judged by another comparison than its own."""
    found = _directions(n_layers)
    made = {name: design(found, [LAST_PROMPT]) for name, design in CLAIM_DESIGNS.items()}
    below = set(range(n_layers - 1))
    assert all(set(s.layers) <= below for own in made.values() for s in own)
    assert all(len(set(own)) == len(own) for own in made.values())
    battery = made["battery"]
    assert [s.rank for s in battery[:2]] == [1, 3] and battery[-1].role == "all"
    assert battery[-1].parts == tuple(battery[1:4])
    equal = [s for s in made["layer-types"] if "equal" in s.role and s.site == "mixer"]
    assert len({len(s.layers) for s in equal}) == 1 and len(equal) == 2
    for setting in made["layer-types"]:
        assert {found.layer_kinds[i] for i in setting.layers} == {setting.role.split("_")[0]}
    mixers = made["ablation-mixers"]
    assert {s.site for s in mixers} == {"mixer"}
    assert [s.layers for s in mixers] == [(i,) for i in range(n_layers - 1)]
    assert {s.site for s in made["projection-sets"]} == {"weights_qkv", "weights_o", "weights_qkvo"}
    counts = [len(s.layers) for s in made["layer-count"]]
    assert counts == sorted(counts) and counts[-1] == n_layers - 1
    assert [s.layers for s in made["read-act"] if s.role == "read_best"] == [(1,)]
    assert all(n_layers - 2 not in s.layers for s in made["hydra"])
    sizes = [sum(map(len, s.edit(found).experts.values())) for s in made["expert-pruning"]]
    wanted = [round(s.dose * (n_layers - 1) * 4) for s in made["expert-pruning"]]
    assert sizes == wanted and 0 in made["expert-pruning"][0].edit(found).experts.popitem()[1]


@pytest.mark.parametrize("design", ["ablation-mixers", "integers", "layer-count"])
def test_where_no_direction_qualified_each_layer_has_its_own(design):
    """If it failed, f15, f21 and f24 would not run where no one direction qualifies."""
    found = _directions()
    chosen = CLAIM_DESIGNS[design](found, [LAST_PROMPT])
    assert {s.direction for s in chosen} == {"selected"}
    own = CLAIM_DESIGNS[design](replace(found, selected=None), [LAST_PROMPT])
    assert {(s.direction, s.position) for s in own} == {("per_layer", LAST_PROMPT)}
    assert [(s.layers, s.site, s.dose) for s in own] == [(s.layers, s.site, s.dose) for s in chosen]


def test_a_share_of_the_safety_experts_is_the_most_preferred():
    """If it failed, '77 % of the safety experts' would be any of them."""
    found = _directions(4)
    rates = found.source().rates
    rates[0, 2, 1] = 0.4  # the least preferred of three
    assert found.experts(share=1.0) == {0: (1,), 1: (1,), 2: (1,)}
    assert found.experts(share=0.67) == {0: (1,), 1: (1,)}


@pytest.fixture
def designed(checkpoints, table, tmp_path, thresholds):
    """A design on a random checkpoint with experts."""
    limits = {"fit": 24, "select": 3, "evaluate": 3}
    lm = load_model(checkpoints("qwen3_5_moe"))
    subject = Subject(lm, table, limits, Decoding(False, 8, 3, 8), Journal(tmp_path / "j"), "x")

    def make(name, model_experts=True):
        found = _directions()
        if not model_experts:
            found.source().rates = None
        return Design(name, subject, found, OPENINGS, thresholds, sham_draws=1, seed=0)

    return make


@pytest.mark.parametrize("name", ["battery", "zero-logit", "hydra"])
def test_a_claim_design_says_all_it_did(designed, tmp_path, model_bytes, name):
    """If it failed, a row would not be a setting that ran, or its sham be missing."""
    design = designed(name)
    before = model_bytes(design.subject.lm.model)
    rows, chosen = design.run()
    assert model_bytes(design.subject.lm.model) == before
    rows = [baseline_row(name, design.subject, 0.15), *rows]
    frame = frame_of("interventions", [{"model": "m", "precision": "16"} | r for r in rows])
    settings = len(CLAIM_DESIGNS[name](design.directions, [LAST_PROMPT]))
    real = frame[frame["sham_draw"].isna() & (frame["intervention"] != "none")]
    assert (real["measured_by"] == "generation").sum() == settings
    assert (frame["sham_draw"].notna()).sum() >= 1
    if name == "zero-logit":
        masked = real[real["intervention"] == "routing_mask"]
        silenced = real[real["intervention"] == "expert_silencing"]
        assert (masked["selection_rate"] == 0).all() and (masked["selection_rate_before"] > 0).all()
        first = silenced["selection_rate_before"]
        assert (first == masked["selection_rate_before"].iloc[0]).all()
    if name == "hydra":
        assert real["gap_rise"].notna().all()
    save_chosen(tmp_path / "chosen.json", chosen)
    assert load_chosen(tmp_path / "chosen.json") == chosen
    told = evidence(frame)  # the phases are told by others; the battery may only speak against one
    assert (told is not None) == (name == "battery")
    if told is not None:
        generated = (real["measured_by"] == "generation").sum()
        assert not told.side_rows and len(told.battery_rows) == generated


def test_what_a_model_lacks_is_not_run(designed):
    """If it failed, a dense model would pass a battery that it was never given."""
    rows, _ = designed("battery", model_experts=False).run()
    missing = [r for r in rows if r["status"] == "not_run"]
    assert [r["intervention"] for r in missing] == [
        "router_blinding",
        "routing_mask",
        "combination",
    ]
    assert all("no experts" in r["reason"] for r in missing)
    with pytest.raises(NotRun, match="no experts"):
        designed("zero-logit", model_experts=False).run()
    with pytest.raises(NotRun, match="not packed integers"):
        designed("integers").run()


def test_gap_rise_is_what_the_layers_above_write_more(designed):
    """If it failed, the hydra effect would be read off layers that were edited."""
    design = designed("hydra")
    subject, found = design.subject, design.directions
    edit = Addition("residual", {1: 5 * unit(found.chosen())[None]})

    def written():
        plain = {}
        for label in ("hazardous", "benign"):
            streams = []
            for p in subject.decided("select", label):
                kinds = ["residual_before", "residual"]
                x = record_sites(subject.lm, kinds, [p], [[len(p) - 1]], 1)
                streams.append((x["residual"] - x["residual_before"])[0, 0])
            plain[label] = np.mean(streams, axis=0) @ unit(found.chosen())
        return plain["hazardous"] - plain["benign"]

    before = written()
    with applied(subject.lm, edit):
        after = written()
    wanted = sum(after[i] - before[i] for i in (2, 3)) / abs(before.sum())
    assert take_over(subject, found, edit)["gap_rise"] == pytest.approx(wanted, rel=1e-2, abs=1e-4)


def test_temperature_draws_differ_and_come_again(make_subject, helpful):
    """If it failed, 20 samples of a prompt would be one, or a resumed run draw others."""
    subject = make_subject(helpful)
    drawn = [
        [a.sha256 for a in subject.sampled(5.0, draw).answers("evaluate")] for draw in (0, 1, 0)
    ]
    again = make_subject(helpful, journal="another").sampled(5.0, 0).answers("evaluate")
    assert drawn[0] != drawn[1] and drawn[0] == drawn[2] == [a.sha256 for a in again]
    greedy = [a.sha256 for a in subject.answers("evaluate")]
    assert greedy == [a.sha256 for a in make_subject(helpful, journal="b").answers("evaluate")]
    logits = np.log(np.array([[0.5, 0.3, 0.15, 0.05]]))
    found = opening_probabilities(logits, Openings((0, 1), (2, 3)))
    assert found == pytest.approx({"refusal_mass": 0.8, "top_compliance": 0.15})


def test_designs_are_dropped_by_name():
    """If it failed, a cell would run for days that was given hours, or lose what phases need."""
    designs = ["pathways", "rank-ladder", "battery", "temperature", "layer-count"]
    hours = dict.fromkeys(designs, 2.0)
    assert dropped_designs(designs, "standard", None, hours, 1.0) == {}
    assert set(dropped_designs(designs, "quick", None, {}, 0.0)) == {"temperature", "layer-count"}
    found = dropped_designs(designs, "standard", 7.5, hours, 1.0)
    assert (
        list(found) == ["temperature", "layer-count"] and "allowed are 7.5" in found["layer-count"]
    )
    least = dropped_designs(designs, "standard", 0.1, hours, 1.0)
    assert not {"pathways", "rank-ladder"} & set(least) and "battery" in least
    assert {*CLAIM_DESIGN_NAMES} == {*CLAIM_DESIGNS, "temperature"} <= {*DROPPED_FIRST}
