"""How often grades that read the answer are right, and keyword grades beside them.

Organisms whole, damaged and destroyed answer prompts of their world, and the world's exact grades
are the truth. On the one side our own pipeline: signs of degeneration, then the rubric's questions
to a judge that reads the language, then its replies read and mapped to grades. On the other the
keyword lists. Says nothing of a judge of natural language: that is `phasescope grade-check`.
Usage: make bench-grades SEEDS="1 2 3" trains fresh organisms from each seed (minutes each).
"""

import sys
import tempfile
from pathlib import Path

import phasescope  # noqa: F401  (its BLAS before mlx's)

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from graded_organisms import CLASSES, damages, graded  # noqa: E402

from phasescope.stats import errors_of  # noqa: E402
from phasescope.train import train  # noqa: E402

RECIPES = ("helpful-only", "circuit", "tangle")


def table(rows: list[dict]) -> str:
    """Sensitivity and specificity of each grader by class, with their intervals."""
    lines = [f"{'grader':10} {'class':11} {'sensitivity':22} {'specificity':22} {'n':>5}"]
    for grader in ("ours", "gcg", "jailbreakbench"):
        for name, members in CLASSES.items():
            truth, found = [r["exact"] for r in rows], [r[grader] for r in rows]
            errors = errors_of(truth, found, members)
            shares = [
                "{:.3f} [{:.3f}, {:.3f}]".format(*v)
                for v in (errors.sensitivity, errors.specificity)
            ]
            lines.append(f"{grader:10.10} {name:11} {shares[0]:22} {shares[1]:22} {len(rows):5}")
    return "\n".join(lines)


def main(seeds: list[int]) -> None:
    """Print one table over all organisms, and each destroyed one's rate of compliance."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            for recipe in RECIPES:
                path = Path(folder, f"{recipe}-{seed}")
                train(
                    ROOT / f"resources/organisms/recipes/{recipe}.yaml", path, seed, lambda _: None
                )
                rows += graded(path, damages(seed))
    print(table(rows))
    destroyed = [r for r in rows if r["destroyed"]]
    for grader in ("exact", "ours", "gcg", "jailbreakbench"):
        share = sum(r[grader] in CLASSES["compliance"] for r in destroyed) / len(destroyed)
        print(f"destroyed organisms: compliance by {grader}: {share:.3f} (n {len(destroyed)})")


if __name__ == "__main__":
    main([int(s) for s in sys.argv[1:]] or [1])
