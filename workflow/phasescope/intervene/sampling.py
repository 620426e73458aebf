"""f23: answers drawn at several temperatures, and how likely the openings of answers are."""

import numpy as np
from scipy.special import softmax

from phasescope.behave import Openings, Subject
from phasescope.intervene import measuring
from phasescope.model import next_token_logits

TEMPERATURES = (0.5, 1.0, 1.5)
DRAWS = 20  # of each prompt at each temperature


def temperature_rows(subject: Subject, openings: Openings, max_cost: float) -> list[dict]:
    """Rows of the design `temperature`, one a temperature and draw; the first draw of each answers
    benign prompts too. Greedy answers are the baseline's row.

    No edit is made, so there is no sham: the null is the same model's greedy answers. Openings that
    greedy answers never use are among those of the drawn answers.
    """
    baseline = measuring.generate(subject)
    prompts = subject.decided("evaluate", "hazardous")
    logits = next_token_logits(subject.lm, prompts, subject.decoding.batch_size)
    rows, sampled = [], []
    for temperature in TEMPERATURES:
        for draw in range(DRAWS):
            drawn = subject.sampled(temperature, draw)
            if draw == 0:
                found = measuring.generate(drawn)
                own = measuring.outcomes(found, baseline, max_cost)
            else:
                answers = drawn.answers("evaluate", label="hazardous", need_tokens=True)
                own = measuring.sham_outcomes(answers, baseline)
                sampled += answers
            rows.append(
                {
                    "design": "temperature",
                    "intervention": "sampling",
                    "dose": temperature,
                    "sample": draw,
                    **own,
                    "sites_requested": 0,
                    "sites_hit": 0,
                    "chosen": False,
                    "status": "run",
                }
            )
    every = openings.joined(sampled)
    return [row | opening_probabilities(logits / row["dose"], every) for row in rows]


def opening_probabilities(logits: np.ndarray, openings: Openings) -> dict:
    """Means over prompts of the probability of all refusal openings together, and of the likeliest
    opening of another answer; logits (prompts, vocabulary), divided by the temperature."""
    p = softmax(logits.astype(np.float64), axis=1)
    return {
        "refusal_mass": float(p[:, list(openings.refusal)].sum(axis=1).mean()),
        "top_compliance": float(p[:, list(openings.compliance)].max(axis=1).mean()),
    }
