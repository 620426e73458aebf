"""What stays on the machine when results lie in a bucket (`make test-s3` sees it happen)."""

import re
from pathlib import Path

RULES = Path(__file__).parents[2] / "workflow/rules"
# directions, weights, organisms: each name of them in a rule, and what stands before it
STAYS = re.compile(
    r'(\w*\(?)(WEIGHTS|f"[^"]*(?:\{SCRATCH\}/[^"]*|/scratch/[^"]*|/checkpoint|/organisms/\{\{model\}\})")'
)


def test_directions_and_weights_leave_no_machine():
    """If it failed, directions of real models would be sent to a bucket that others read, and
    hundreds of GB of weights with them."""
    named = [
        (path.name, *found.groups())
        for path in sorted(RULES.glob("*.smk"))
        if path.name != "common.smk"
        for found in STAYS.finditer(path.read_text())
    ]
    for stage in ("probe", "intervene", "quantize", "fetch", "train", "survival"):
        assert any(file == f"{stage}.smk" for file, *_ in named), f"{stage}.smk names none of it"
    sent = [f"{file}: {name}" for file, before, name in named if before != "local("]
    assert not sent
