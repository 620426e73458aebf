"""Separation on planted activations, and the token positions it is read from."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from phasescope.behave import Answer
from phasescope.probe import (
    Activations,
    difference_of_means,
    load_activations,
    positions,
    probe_rows,
    read_activations,
    save_activations,
    separation,
)
from phasescope.tables import frame_of

WIDTH, PLANTED = 32, 2.0
KINDS = ["recurrent", "attention", "recurrent"]
DIRECTION = np.eye(WIDTH)[3]


def planted(pairs: int, size: float, seed: int) -> Activations:
    """Layer 0: noise alone; layers 1 and 2: hazardous shifted along one axis by `size`."""
    values = np.random.default_rng(seed).standard_normal((2 * pairs, 1, 3, WIDTH))
    values[:pairs, :, 1:] += size * DIRECTION
    present = np.ones((2 * pairs, 1), dtype=bool)
    return Activations(("last_prompt",), values.astype(np.float32), present)


def topics(*pairs: int) -> tuple[np.ndarray, ...]:
    """Ten topics in turn."""
    return tuple(np.arange(n) % 10 for n in pairs)


@pytest.fixture(scope="module")
def rows():
    return frame_of(
        "probes",
        probe_rows(
            planted(200, PLANTED, 0), planted(100, PLANTED, 1), topics(200, 100), KINDS, seed=0
        ),
    ).set_index(["layer", "statistic"])


def test_planted_direction_is_found(rows):
    """If it failed, no figure of separation over depth could be trusted."""
    fit, new = planted(200, PLANTED, 0), planted(100, PLANTED, 1)
    for layer in (1, 2):
        h, b, _ = fit.paired("last_prompt")
        direction = (h - b).mean(axis=0)[layer]
        np.testing.assert_allclose(
            difference_of_means(h, b)[layer], direction, rtol=1e-4, atol=1e-6
        )
        assert direction @ DIRECTION / np.linalg.norm(direction) > 0.9
        scores = new.values[:, 0, layer] @ direction
        found = rows.loc[(layer, "auroc")]
        labels = [1] * 100 + [0] * 100
        assert found["estimate"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-6)
        assert 0.85 < found["ci_low"] < found["estimate"] < found["ci_high"] < 1
        a, c = scores[:100], scores[100:]
        gap = (a.mean() - c.mean()) / np.sqrt((a.var(ddof=1) + c.var(ddof=1)) / 2)
        found = rows.loc[(layer, "gap")]
        assert found["estimate"] == pytest.approx(gap, rel=1e-4)
        assert found["ci_low"] < PLANTED < found["ci_high"]
        assert rows.loc[(layer, "split_half_cosine")]["estimate"] > 0.8
        assert found["layer_kind"] == KINDS[layer] and found["n"] == 200


def test_noise_shows_nothing(rows):
    """If it failed, a model without safety would be shown with a safety signal."""
    found = rows.loc[(0, "auroc")]
    assert found["ci_low"] < 0.5 < found["ci_high"]
    gap = rows.loc[(0, "gap")]
    assert gap["ci_low"] < 0 < gap["ci_high"]
    assert abs(rows.loc[(0, "split_half_cosine")]["estimate"]) < 0.2


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_controls_stay_near_one_half(rows, layer):
    """If it failed, the controls would not show what fitting to noise alone gives."""
    for control in (
        "auroc_shuffled_labels",
        "auroc_permuted_labels",
        "auroc_random_direction",
    ):
        found = rows.loc[(layer, control)]
        assert 0.5 <= found["ci_low"] < found["estimate"] < found["ci_high"] <= 1
        assert found["estimate"] < 0.7


def test_controls_are_folded():
    """If it failed, a control that reads labels perfectly backwards would pass for no signal."""
    rng, n = np.random.default_rng(0), 40
    feature = 9 * DIRECTION
    hazardous = rng.standard_normal((n, WIDTH)) + feature
    benign = rng.standard_normal((n, WIDTH)) - feature
    found = separation.auroc_shuffled(hazardous, benign, hazardous, benign, rng)
    plain = [
        roc_auc_score(
            [1] * n + [0] * n, np.concatenate([hazardous, benign]) @ (s @ (hazardous - benign))
        )
        for s in rng.choice((-1.0, 1.0), size=(50, n))
    ]
    assert np.min(plain) < 0.1 and np.max(plain) > 0.9
    assert found[0] > 0.9 and found[1] >= 0.5
    # the feature stays, what it is called does not
    permuted = separation.auroc_permuted(hazardous, benign, hazardous, benign, rng)
    assert 0.5 <= permuted[1] < permuted[0] < 0.65
    np.testing.assert_allclose(separation.folded(np.array([0.0, 0.4, 0.5, 1.0])), [1, 0.6, 0.5, 1])


def test_a_topic_is_never_judged_by_itself():
    """If it failed, a memorized topic would read as a signal of hazard as such."""
    rng = np.random.default_rng(3)
    topic = np.arange(60) % 6
    own = 8 * rng.standard_normal((6, WIDTH))  # hazard lies elsewhere in every topic
    pairs = own[topic] + rng.standard_normal((60, WIDTH)), rng.standard_normal((60, WIDTH))
    fit, new = tuple(x[:30] for x in pairs), tuple(x[30:] for x in pairs)
    found = {
        name: estimate
        for name, (estimate, *_), _ in separation.separation_rows(
            fit, new, topic[:30], topic[30:], rng
        )
    }
    assert found["auroc"] > 0.95
    assert found["auroc_topic_left_out"] < 0.8 and found["auroc_logistic"] < 0.8
    shared = pairs[1] + 8 * DIRECTION
    rows = separation.separation_rows(
        (shared[:30], pairs[1][:30]), (shared[30:], pairs[1][30:]), topic[:30], topic[30:], rng
    )
    found = {name: estimate for name, (estimate, *_), _ in rows}
    assert found["auroc_topic_left_out"] > 0.99 and found["auroc_logistic"] > 0.99


def test_one_topic_alone_gives_no_estimate():
    """If it failed, a table with a single topic would be judged by the topic it was fitted on."""
    one = np.zeros(200, dtype=int)
    frame = frame_of(
        "probes",
        probe_rows(planted(200, PLANTED, 0), planted(100, PLANTED, 1), (one, one[:100]), KINDS, 0),
    )
    rows = frame[frame["statistic"].isin(["auroc_topic_left_out", "auroc_logistic"])]
    assert len(rows) == 6 and rows["estimate"].isna().all() and (rows["n"] == 0).all()


def test_cosine_between_layers(rows):
    """If it failed, a signal that turns between layers would look like one that stays."""
    assert abs(rows.loc[(0, "cosine_next_layer")]["estimate"]) < 0.3
    h, b, _ = planted(200, PLANTED, 0).paired("last_prompt")
    first, second = (h - b).mean(axis=0)[1:]
    want = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    found = rows.loc[(1, "cosine_next_layer")]
    assert found["estimate"] == pytest.approx(want, rel=1e-4)
    assert found["ci_low"] < found["estimate"] < found["ci_high"]
    assert (2, "cosine_next_layer") not in rows.index


def test_same_seed_same_rows(rows):
    """If it failed, two runs of one study would give two tables."""
    data = planted(30, 1.0, 0), planted(20, 1.0, 1)
    assert probe_rows(*data, topics(30, 20), KINDS, 0) == probe_rows(
        *data, topics(30, 20), KINDS, 0
    )
    assert probe_rows(*data, topics(30, 20), KINDS, 0) != probe_rows(
        *data, topics(30, 20), KINDS, 1
    )


@pytest.mark.filterwarnings("ignore::scipy.stats.DegenerateDataWarning")
def test_too_few_pairs_give_no_row():
    """If it failed, three pairs would be reported as a measurement."""
    assert not probe_rows(planted(3, 1.0, 0), planted(50, 1.0, 1), topics(3, 50), KINDS, 0)
    assert probe_rows(planted(4, 1.0, 0), planted(4, 1.0, 1), topics(4, 4), KINDS, 0)


def _answer(tokens: int, thinking: int, finished: bool, thought: bool | None = None) -> Answer:
    return Answer("full", finished, thinking, tokens - thinking, 0.0, "", [0] * tokens, thought)


@pytest.mark.parametrize(
    ("answer", "thinks", "want"),
    [
        (_answer(5, 2, True, True), True, {"end_of_thinking": 6, "answer_0": 7, "answer_2": 9}),
        (_answer(5, 5, False, False), True, {}),
        # an answer that never ends spoils no thinking that did
        (_answer(5, 2, False, True), True, {"end_of_thinking": 6, "answer_0": 7, "answer_2": 9}),
        (_answer(3, 0, True), False, {"answer_0": 5, "answer_1": 6, "answer_2": 7}),
        (_answer(1, 0, True), False, {"answer_0": 5}),
        (_answer(0, 0, True), False, {}),
    ],
)
def test_positions_that_exist(answer, thinks, want):
    """If it failed, the signal `at the end of thinking` would be read from somewhere else."""
    found = positions._places([1] * 5, answer, thinks)
    assert found["last_prompt"] == 4
    assert want.items() <= found.items()
    assert ("end_of_thinking" in found) == ("end_of_thinking" in want)
    assert len(found) == 1 + len([p for p in found if p.startswith(("answer", "end"))])
    assert max(found.values()) < 5 + len(answer.tokens) or found == {"last_prompt": 4}


def test_pairs_with_a_short_answer_are_dropped():
    """If it failed, hazardous and benign prompts would no longer be matched."""
    data = planted(5, 1.0, 0)
    data.present[1, 0] = False  # hazardous of pair 1
    data.present[5 + 3, 0] = False  # benign of pair 3
    hazardous, benign, pairs = data.paired("last_prompt")
    assert pairs.tolist() == [0, 2, 4]
    np.testing.assert_array_equal(hazardous, data.values[[0, 2, 4], 0])
    np.testing.assert_array_equal(benign, data.values[[5, 7, 9], 0])


def test_activations_of_a_model_come_back(make_subject, tmp_path):
    """If it failed, the designs would use other directions than those that were probed."""
    subject = make_subject()
    found = read_activations(subject, "fit")
    assert found.positions == ("last_prompt", "answer_0", "answer_1", "answer_2")
    assert found.values.shape == (24, 4, 4, 64) and found.present[:, 0].all()
    save_activations(tmp_path / "a.npz", found)
    again = load_activations(tmp_path / "a.npz")
    assert again.positions == found.positions
    np.testing.assert_array_equal(again.values, found.values)
    np.testing.assert_array_equal(again.present, found.present)
    twice = read_activations(make_subject(journal="other"), "fit")
    np.testing.assert_array_equal(twice.values, found.values)
