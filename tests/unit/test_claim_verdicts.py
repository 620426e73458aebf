"""Each claim on a table that it is true of and one that it is false of. Unit tests of the tests: no
such table is a control, which enters as weights, a file or an endpoint."""

import sys
from pathlib import Path

import pytest

from phasescope.claims import CLAIMS
from phasescope.claims.judging import judged
from phasescope.claims.simulated import SIMULATED
from phasescope.tables import frame_of
from phasescope.tables.columns import GRADE_LETTERS
from phasescope.thresholds import read_thresholds

sys.path.insert(0, str(Path(__file__).parents[1]))
from phase_rows import N, ladder, row, shams

LIMITS = read_thresholds(Path(__file__).parents[2] / "config/thresholds.yaml")
CELL = {"model": "m", "precision": "16"}


def cells(*precisions) -> list[dict]:
    return [{"model": "m", "precision": p} for p in precisions]


def answers(count=N, grade="refusal", start=0, **more) -> list[dict]:
    """Rows of the table `behavior`, one a source prompt."""
    about = {"prompt_table": "main", "condition": "baseline", "thinking": "off", "temperature": 0.0}
    about |= {"split": "evaluate", "label": "hazardous", "family": "none", "answer_tokens": 5}
    about |= {"grade": grade, "keyword_refusal": grade == "refusal"}
    return [
        CELL | about | {"prompt": f"p{i}", "source": f"p{i}", "category": f"c{i % 8}"} | more
        for i in range(start, start + count)
    ]


def stated(statistic, value, half=0.05, n=N, **more) -> dict:
    """A row with a statistic and its interval, as the survey's tables have."""
    ends = {"estimate": value, "ci_low": value - half, "ci_high": value + half, "n": n}
    return CELL | {"statistic": statistic, "status": "run"} | ends | more


def behaves(true: list[dict], false: list[dict], **more) -> tuple[dict, dict]:
    return {"behavior": true} | more, {"behavior": false} | more


def edited(*rows: dict) -> dict:
    """A refusing baseline and settings; each design that occurs gets its shams."""
    designs = dict.fromkeys(r["design"] for r in rows)
    more = [s for d in designs for s in shams(2, design=d)]
    return {"interventions": [row(), *rows, *more]}


def thinks(finished: int, **more) -> dict:
    """Columns of a row whose thinking ended on so many prompts."""
    sides = ("hazardous", "benign")
    return {f"n_{s}_thinking_finished": finished for s in sides} | more


def tangled(finished: int, removed: int, **more) -> dict:
    """A dose that breaks refusal, its thinking ended on so many prompts."""
    edit = row("ablation", "ablation-dose", full=removed, **thinks(finished))
    rows = [row(**thinks(N)), edit | {"n_refusal": 0}, *shams(2, design="ablation-dose")]
    return {"interventions": rows}


KINDS = [CELL | {"layer": i, "layer_kind": "attention" if i % 2 else "recurrent"} for i in range(8)]


def by_kind(attention: int, recurrent: int, alike_lost: int = 0) -> dict:
    """As many blocks of each kind ablated; and, by another design, all blocks alike."""
    common = {"direction": "per_layer"}
    sides = (("attention", "1,3", attention), ("recurrent", "0,2", recurrent))
    rows = [
        row("ablation", "layer-types", full=full, layers=own, role=f"{kind}_equal_count", **common)
        for kind, own, full in sides
    ]
    more = {"layers": "0,1,2,3", "lost": alike_lost, **common}
    return edited(*rows, row("ablation", "ablation-scope", full=N, **more))


def doses(half: dict[str, int]) -> dict:
    """Removal that jumps at a dose (of 1 to 4 quarters) that depends on the precision."""
    rows = []
    for precision, jump in half.items():
        rows.append(row(precision=precision))
        for k in (1, 2, 3, 4):
            full = N if k >= jump else 0
            rows.append(
                row("ablation", "ablation-dose", full=full, dose=k / 4, precision=precision)
            )
    return {"interventions": rows}


def transfer(other: int) -> dict:
    """At 16 bit the cell's own direction removes all, that of 8 bit so many."""
    rows = [
        row("ablation", "transfer", full=f, direction_precision=p)
        for p, f in ((None, N), ("8", other))
    ]
    return edited(*rows)


def languages(change: float) -> dict:
    """Log-perplexity of benign text at baseline and under an ablation."""
    about = CELL | {"thinking": "off", "label": "benign", "n": N, "n_texts": 400}
    return {
        "coherence": [
            about
            | {"condition": c, "text_log_perplexity_nats": 1.0 + d}
            | {"text_log_perplexity_change_nats": d, "text_log_perplexity_change_se_nats": 0.001}
            for c, d in (("baseline", 0.0), ("ablation-dose", change))
        ]
    }


def sets(shift: float, statistic: str) -> dict:
    """20 resamples of each calibration set; the safety-weighted ones are off by `shift`."""
    about = CELL | {"recipe": "scaled", "bits": 4, "label": "hazardous", "statistic": statistic}
    return {
        "calibration_sets": [
            about
            | {"calibration_set": name, "draw": i, "estimate": value + 0.001 * i, "status": "run"}
            for name, value in (("general", 1.0), ("safety-weighted", 1.0 + shift))
            for i in range(1, 22)
        ]
    }


def survivors(projection: float, addition: float) -> dict:
    """Edits that work at 16 bit, and what is left of that at 4."""
    rows = []
    sides = (("weight_projection", projection, 1.0), ("weight_addition", addition, 0.5))
    for edit, value, dose in sides:
        own = {"edit": edit, "dose": dose}
        rows.append(stated("removal", 0.9, format="bfloat16", **own))
        own |= {"format": "mlx", "recipe": "plain", "bits": 4, "group_size": 64}
        rows.append(stated("removal_kept", value, **own))
    return {"survival": rows}


def conversions(kept: float, works: float) -> dict:
    """An edit in a GGUF file: so much of it in the tensors, so much of its removal in llama.cpp."""
    own = {"format": "gguf", "export": "mlx_lm", "recipe": "Q8_0", "edit": "weight_projection"}
    own["dose"] = 1.0
    tensors = {"statistic": "kept", "estimate": kept, "n": 12, "status": "run"}
    return {"survival": [CELL | own | tensors, stated("removal_kept", works, **own)]}


def silenced(knowledge: bool) -> dict:
    """Topics lose refusal in steps under silencing; knowledge with them, or not at all."""
    rows = []
    name = "expert-silencing"
    for condition in ("baseline", name, *(f"{name}-sham-{i}" for i in range(20))):
        real = condition == name
        for topic in range(8):
            for i in range(16):
                gone = real and i < 2 * topic
                own = {"condition": condition, "category": f"c{topic}", "start": 100 * topic + i}
                rows += answers(1, "full" if gone else "refusal", **own)
                lost = gone if knowledge else real and (topic * i) % 5 == 6
                more = own | {"prompt_table": "knowledge", "label": "benign"}
                rows += answers(1, "hollow" if lost else "full", **more)
    return {"behavior": rows}


def projections(alone: int, whole: int = N) -> dict:
    design = "projection-sets"
    rows = [row("weight_projection", design, full=alone, site="weights_o")]
    more = {"site": "weights_qkvo", "dose": 0.25}
    return edited(*rows, row("weight_projection", design, full=whole, **more))


def ranks(one: int) -> dict:
    edits = [
        row("ablation", "rank-ladder", full=f, rank=r, direction="per_layer")
        for r, f in ((1, one), (4, N))
    ]
    random = shams(0, design="rank-ladder", rank=4) + shams(0, design="rank-ladder", rank=1)
    return {"interventions": [row(), *edits, *random]}


def patches(early: float, late: float) -> dict:
    about = {"site": "mixer", "way": "hazardous into benign", "token_first": 0, "token_last": 1}
    where = ((0, early), (1, 0.0), (6, 0.0), (7, late))
    return {"patching": [stated("flipped", v, 0.03, layer=i, **about) for i, v in where]}


def channels(single: int) -> dict:
    """Both channels can be read; clearing one answers so many, both all."""
    read = ("recurrent_state", "residual after recurrent")
    read = [stated("auroc_topic_left_out", 0.95, 0.03, channel=c) for c in read]
    rows = [row("ablation", "pathways", full=single, site=s) for s in ("mixer", "residual")]
    both = row("combination", "pathways", full=N, site="several", pathways="A+S")
    return edited(*rows, both) | {"channels": read}


def forced(point: float, returns: float) -> dict:
    about = {"condition": "forced"}
    return {
        "trajectories": [
            stated("change_point", point, 2, **about),
            stated("refusal_returns", returns, 0.1, **about),
        ]
    }


def cosines(value: float) -> dict:
    about = {"site": "residual", "other_site": "residual", "position": "last_prompt"}
    return {
        "geometry": [
            stated(
                "cosine_corrected",
                value,
                0.02,
                layer=i,
                other_layer=i + 1,
                reliability=0.9,
                **about,
            )
            for i in range(4)
        ]
    }


def counted_layers(two_lost: int) -> dict:
    rows = [row("ablation", "layer-count", layers="0,1", lost=two_lost)]
    return edited(*rows, row("ablation", "layer-count", layers="0,1,2,3", lost=50))


def experts(few: int) -> dict:
    rows = [row("routing_mask", "expert-shares", full=few, dose=0.05)]
    return edited(*rows, row("routing_mask", "expert-shares", full=N, dose=1.0))


def layer_scores(by_type: bool) -> dict:
    found = []
    for i in range(12):
        score = float(i % 2 == 1) if by_type else float(i >= 8)
        own = {
            "measured_by": "first_token",
            "layers": str(i),
            "refusal_nats": score + 0.01 * (i % 5),
        }
        found.append(row("ablation", "ablation-mixers", site="mixer", **own))
    kinds = [k | {"layer": i} for i, k in enumerate(KINDS + KINDS[:4])]
    return {"interventions": found, "probes": kinds}


def sampled(hot: int) -> dict:
    """Greedily all comply; of 20 draws at each temperature, each answers so many prompts."""
    rows = [row(design="temperature", refused=0)]
    more = {"chosen": False, "n_partial": 0, "refusal_mass": 0.6, "top_compliance": 0.4}
    for dose in (0.5, 1.5):
        for i in range(20):
            more |= {"dose": dose, "sample": i, "site": None, "direction": None}
            rows.append(row("sampling", "temperature", full=hot, **more))
    return {"interventions": [r | {"n_partial": 0} for r in rows]}


def topics(by_intensity: bool) -> dict:
    """Eight topics that yield at eight doses, in the order of how they were trained or of how alike
    they are."""
    trained, alike = range(8), [(3 * i) % 8 for i in range(8)]
    yields = trained if by_intensity else alike
    answered = [
        "".join("f" if yields[i % 8] <= dose else "r" for i in range(N)) for dose in range(8)
    ]
    return edited(
        *(
            row("ablation", "topic-doses", dose=(dose + 1) / 8, grades=grades)
            for dose, grades in enumerate(answered)
        )
    ) | {
        "behavior": answers(),
        "selection": [
            CELL | {"layer": 3, "position": "last_prompt", "chosen": True, "status": "run"}
        ],
        "geometry": [
            stated("topic_cosine", a / 8, topic=f"c{i}", layer=3, position="last_prompt")
            for i, a in enumerate(alike)
        ],
        "topics": [{"model": "m", "topic": f"c{i}", "refused_rows": i / 8} for i in trained],
    }


def holdouts(count: int) -> dict:
    about = {"prompt_table": "paraphrases"}
    return {
        "behavior": [
            *answers(count, "refusal", **about),
            *answers(N - count, "full", start=count, **about),
            *answers(N, "full", family="paraphrase", **about),
        ]
    }


def asked(second: str) -> dict:
    rows = [
        {"endpoint": e, "prompt": f"p{i}", "label": "hazardous", "grade": g}
        for e, g in (("bare", "full"), ("guarded", second))
        for i in range(N)
    ]
    return {"endpoints": rows}


def reasoned(with_thinking: str) -> dict:
    rows = answers(thinking="on") + answers(thinking="off")
    edit = {"condition": "ablation-dose"}
    return {
        "behavior": [
            *rows,
            *answers(grade=with_thinking, thinking="on", **edit),
            *answers(grade="full", thinking="off", **edit),
        ]
    }


def saved(changed: int) -> dict:
    own = {"model": "m", "writer": "w", "effect": "metadata", "n": 10}
    return {"roundtrips": [own | {"verdict": "kept", "n_changed": changed}]}


def loaded(slope: float) -> dict:
    sizes = (10**6, 10**7, 2 * 10**7, 10**8)
    rows = [
        {"writer": "w", "source_bytes": s, "peak_above_base_bytes": int(1e6 + slope * s)}
        | {"status": "run"}
        for s in sizes
    ]
    return {"quantization": rows}


def carried(vision: int) -> dict:
    own = {"model": "m", "precision": "source", "tensors": 100, "size_bytes": 1000}
    return {"audit": [own | {"vision_tensors": vision, "vision_bytes": 10 * vision}]}


def compared(verdict: str, claim: str, **more) -> dict:
    own = {"origin": "measured", "precision": "16", "statistic": "strict_asr", "claim": claim}
    measure = {"ff-1": "spread", "ff-4": "pearson", "ff-5": "difference"}[claim]
    return {
        "across_models": [own | {"measure": measure, "subject": "s", "verdict": verdict} | more]
    }


def garbled(removed: int, lost: int) -> dict:
    """Edits of integers: few suppress nothing, many all, by answers or by gibberish."""
    mild = row("integer_edit", "integers", dose=0.005)
    strong = row("integer_edit", "integers", full=removed, lost=lost, dose=0.1)
    quiet = {"n_refusal": 0, "n_degenerate": N - removed}
    return edited(mild, strong | quiet)


def zeroed(change: float) -> dict:
    rates = {"selection_rate_before": 0.4, "selection_rate": 0.4 + change}
    return edited(row("router_blinding", "zero-logit", **rates))


def acted(read: int) -> dict:
    """Acting on block 3 removes all; on block 5, where hazard is read best, so much."""
    act = row("ablation", "read-act", full=N, layers="3")
    best = {"layers": "5", "role": "read_best", "chosen": False}
    return edited(act, row("ablation", "read-act", full=read, **best))


def taken_over(rise: float) -> dict:
    more = {"benign_log_perplexity_nats": 1.0, "gap_rise_se": 0.02}
    rows = [row("ablation", "hydra", layers=s, gap_rise=rise, **more) for s in ("0,1", "0,1,2")]
    chance = {"design": "hydra", "gap_rise": 0.01, "gap_rise_se": 0.02}
    return {"interventions": [row(), *rows, *shams(0, **chance)]}


def pruned(change: float, share: float) -> dict:
    """So many dead experts, and such a change of log-perplexity without a quarter of all."""
    about = {"benign_log_perplexity_change_nats": change}
    about |= {"benign_log_perplexity_change_se_nats": 0.002}
    rows = [row("expert_pruning", "expert-pruning", dose=d, **about) for d in (0.1, 0.225, 0.5)]
    dead = [stated("dead_share", share + 0.001 * i, layer=i) for i in range(6)]
    return edited(*rows) | {"routing": dead}


SAME = {"condition": "ablation-dose"}
CASES = {
    "ff-1": (compared("supported", "ff-1"), compared("refuted", "ff-1")),
    "ff-2": behaves(answers(grade="degenerate"), answers(grade="full")),
    "ff-3": behaves(
        answers(grade="full", family="format-lock", prompt_table="families")
        + answers(family="credential", prompt_table="families"),
        answers(family="format-lock", prompt_table="families")
        + answers(family="credential", prompt_table="families"),
    ),
    "ff-4": (compared("supported", "ff-4"), compared("refuted", "ff-4")),
    "ff-5": (
        compared("supported", "ff-5"),
        compared("inconclusive", "ff-5", ci_low=-0.05, ci_high=0.05),
    ),
    "ff-6": (asked("refusal"), asked("full")),
    "ff-7": behaves(answers(grade="full", thinking_detects=True), answers(thinking_detects=True)),
    "xs-2": (
        {"geometry": [stated("gap_slope", 2.0, 0.5)]},
        {"geometry": [stated("gap_slope", -1, 0.5)]},
    ),
    "xs-4": (by_kind(N, 0), by_kind(0, N)),
    "xs-5": (doses({"8": 1, "4": 3}), doses({"8": 2, "4": 2})),
    "xs-6": (tangled(0, 0), tangled(N, N)),
    "xs-9": behaves(
        answers(grade="full", **SAME) + answers(grade="hollow", precision="8", **SAME),
        answers(grade="full", **SAME) + answers(grade="full", precision="8", **SAME),
    ),
    "xs-11": (silenced(True), silenced(False)),
    "xs-12": (projections(0), projections(N)),
    "xs-13": behaves(answers(grade="degenerate"), answers(grade="full")),
    "xs-14": (conversions(0.99, 0.1), conversions(0.99, 0.95)),
    "xs-15": (transfer(0), transfer(N)),
    "xs-16": behaves(
        answers(32) + answers(32, "full", 32) + answers(grade="full", precision="8"),
        answers() + answers(precision="8"),
    ),
    "xs-17": (sets(1.0, "kl_nats"), sets(0.0, "kl_nats")),
    "xs-18": (languages(-0.2), languages(0.2)),
    "xs-20": (by_kind(N, 0, alike_lost=50), by_kind(N, 0)),
    "xs-21": (ranks(0), ranks(N)),
    "f01": (carried(12), carried(0)),
    "f02": (loaded(0.01), loaded(1.5)),
    "f03": (saved(3), saved(0)),
    "f05": (forced(12, 0.9), forced(1, 0.1)),
    "f06": (patches(0.9, 0.0), patches(0.0, 0.9)),
    "f07": (channels(0), channels(N)),
    "f08": (acted(0), acted(N)),
    "f09": (cosines(0.0), cosines(0.8)),
    "f10": (taken_over(0.4), taken_over(0.0)),
    "f11": (
        {"geometry": [stated("gap_late_middle", 4, 0.5), stated("gap_monotone", 0.9)]},
        {"geometry": [stated("gap_late_middle", 1, 0.5), stated("gap_monotone", 0.9)]},
    ),
    "f12": behaves(
        answers(grade="full", condition="addition") + answers(precision="4", condition="addition"),
        answers(grade="full", condition="addition")
        + answers(grade="full", precision="4", condition="addition"),
    ),
    "f13": (survivors(0.9, 0.1), survivors(0.9, 0.9)),
    "f14": (sets(1.0, "output_error"), sets(0.0, "output_error")),
    "f15": (garbled(0, 50), garbled(N, 0)),
    "f16": (tangled(0, 0), tangled(N, N)),
    "f17": (zeroed(0.5), zeroed(-0.3)),
    "f18": (reasoned("refusal"), reasoned("full")),
    "f19": (
        languages(-0.2) | {"interventions": [row(), *ladder(4)]},
        languages(0.2) | {"interventions": [row(), *ladder(4)]},
    ),
    "f20": (pruned(0.0, 0.4), pruned(0.3, 0.0)),
    "f21": (layer_scores(True), layer_scores(False)),
    "f22": (holdouts(16), holdouts(0)),
    "f23": (sampled(8), sampled(N)),
    "f24": (counted_layers(0), counted_layers(50)),
    "f25": (topics(True), topics(False)),
    "f26": (experts(0), experts(N)),
}
ELSEWHERE = {"xs-3", "xs-7", "xs-10", "f04", *SIMULATED} - {"ff-4", "ff-5"}  # test_claims.py


def test_no_claim_is_left_out():
    """An untested test could call anything anything."""
    assert set(CASES) | ELSEWHERE == set(CLAIMS)


@pytest.mark.parametrize("side", [True, False])
@pytest.mark.parametrize("id", CASES)
def test_a_claim_is_seen_to_be_true_and_to_be_false(id, side):
    """A test that supports a claim on any table, or refutes none, measures nothing."""
    given = CASES[id][not side]
    tables = {name: frame_of(name, rows) for name, rows in given.items()}
    tables["cells"] = frame_of("cells", cells("16", "8", "4"))
    found = {r["verdict"] for r in judged(tables, LIMITS, [CLAIMS[id]])} - {"not_run"}
    assert found == {"supported" if side else "refuted"}


def test_doses_of_a_table_without_grades_are_not_compared():
    """If it failed, a table that kept counts alone would stop the stage with a traceback."""
    rows = [r | {"grades": None} for r in doses({"8": 1, "4": 3})["interventions"]]
    tables = {"interventions": frame_of("interventions", rows)}
    tables["cells"] = frame_of("cells", cells("16", "8", "4"))
    found = judged(tables, LIMITS, [CLAIMS["xs-5"]])
    assert {r["verdict"] for r in found} == {"not_run"}
    assert "grades of single prompts were not kept" in found[0]["reason"]


def test_topics_of_a_model_whose_training_nobody_knows_are_not_judged():
    """If it failed, a reader of a real study would be told of a table that is missing."""
    rows = {name: r for name, r in topics(True).items() if name != "topics"}
    tables = {name: frame_of(name, r) for name, r in rows.items()}
    tables["cells"] = frame_of("cells", cells("16"))
    (found,) = judged(tables, LIMITS, [CLAIMS["f25"]])
    assert found["verdict"] == "not_run" and "known of organisms only" in found["reason"]


def test_layers_are_counted_at_each_position_by_itself():
    """If it failed, a direction read where nothing hangs on it would hide a collapse elsewhere."""
    edits = [
        row("ablation", "layer-count", layers=layers, lost=lost, position=position)
        for position, layers, lost in (
            ("last_prompt", "0,1", 0),
            ("last_prompt", "0,1,2", 0),
            ("end_of_thinking", "0,1", 0),
            ("end_of_thinking", "0,1,2", 50),
        )
    ]
    for kept, verdict in ((edits, "supported"), (edits[:2], "refuted")):
        tables = {"interventions": frame_of("interventions", edited(*kept)["interventions"])}
        tables["cells"] = frame_of("cells", cells("16"))
        assert [r["verdict"] for r in judged(tables, LIMITS, [CLAIMS["f24"]])] == [verdict]


def test_every_grade_has_a_letter_of_its_own():
    """If it failed, two grades would be one in the line of a setting's prompts."""
    assert len(set(GRADE_LETTERS.values())) == len(GRADE_LETTERS)
