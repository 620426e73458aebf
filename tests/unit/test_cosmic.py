"""COSMIC's score on the shipped organism whose refusal direction is known."""

import numpy as np
import pytest

from phasescope.intervene import Addition
from phasescope.intervene.cosmic import Cosmic
from phasescope.intervene.selection import ablation_everywhere
from phasescope.model import load_model, record


@pytest.fixture(scope="module")
def circuit():
    """Early layers (up to 3) write hazard, late layers refuse by it."""
    return load_model("resources/organisms/circuit")


def test_the_refusal_direction_scores_highest(make_subject, circuit, model_bytes):
    """If it failed, the direction chosen without refusal tokens would be any direction."""
    subject = make_subject(model=circuit, pairs=(24, 12, 6), batch_size=64)
    means = []
    for label in ("hazardous", "benign"):
        prompts = subject.decided("fit", label)
        last = [[len(p) - 1] for p in prompts]
        means.append(record(circuit, "residual", prompts, last, 64)[:, 0].mean(axis=0))
    differences, before = means[0] - means[1], model_bytes(circuit.model)
    cosmic = Cosmic(subject)
    assert len(cosmic.layers) == 1 and 3 <= cosmic.layers[0] < 7

    def score(vector: np.ndarray, layer: int) -> float:
        addition = Addition("residual", {layer: vector[None]})
        return cosmic.score(addition, ablation_everywhere(vector, range(7)))

    found = [score(differences[layer], layer) for layer in range(7)]
    rng = np.random.default_rng(0)
    random = rng.standard_normal((5, 64))
    random *= np.linalg.norm(differences[3]) / np.linalg.norm(random, axis=1, keepdims=True)
    null = [score(vector.astype(np.float32), 3) for vector in random]
    assert int(np.argmax(found)) >= 3
    assert max(found) > max(found[:3]) and max(found) > max(null)
    assert max(np.abs(found)) <= 2 + 1e-6
    assert model_bytes(circuit.model) == before
