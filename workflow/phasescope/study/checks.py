"""What a configuration must be before anything runs."""

import re
from fnmatch import fnmatchcase
from pathlib import Path

from phasescope.chat import Endpoint
from phasescope.checkpoint import model_type
from phasescope.errors import PhasescopeError
from phasescope.graders import endpoint_of
from phasescope.matrix import Model, Prompts, prompt_lengths
from phasescope.prompts import Chosen, Named, PromptTable
from phasescope.world import WORLDS


def skipped(config: dict, models: list[Model], where: str) -> set[str]:
    """Names of the cells that are left out, by models, cells, or patterns of them (`m-*/[84]`).

    Raises PhasescopeError for a name or pattern of none.
    """
    cells = {f"{m.id}/{p}": m.id for m in models for p in config["precisions"]}
    found = set()
    for name in config["skip"]:
        own = {c for c, model in cells.items() if fnmatchcase(c, name) or fnmatchcase(model, name)}
        if not own:
            raise PhasescopeError(
                f"{where}: key 'skip': no such model or cell {name!r}; models: "
                f"{', '.join(m.id for m in models)}"
            )
        found |= own
    return found


def check_16_bit(config: dict, where: str) -> None:
    """Calibration sets are compared, and edits made, on 16-bit weights."""
    for key, done in (("calibration_sets", "sets are compared"), ("survival", "edits are made")):
        if config[key] and 16 not in config["precisions"]:
            raise PhasescopeError(
                f"{where}: key {key!r}: found {', '.join(config[key])} with precisions "
                f"{config['precisions']}; {done} on 16-bit weights: allowed with 16 among the "
                "precisions"
            )


def check_endpoints(config: dict, chosen: Chosen, where: str) -> None:
    """Endpoints need ids of their own, a prompt table, a grader, and settings that can be asked."""
    ids = [entry["id"] for entry in config["endpoints"]]
    if twice := {i for i in ids if ids.count(i) > 1}:
        raise PhasescopeError(f"{where}: key 'endpoints': id {twice.pop()!r} stands twice")
    if not ids:
        return
    if chosen.asked is None:
        raise PhasescopeError(f"{where}: key 'endpoints': no prompt table is named (key 'prompts')")
    language = chosen.tables[chosen.asked].language
    if language not in WORLDS and config["judge"] is None:
        raise PhasescopeError(
            f"{where}: key 'endpoints': no grader reads the prompts' language {language!r}, and "
            "no judge is named (key 'judge')"
        )
    for entry in config["endpoints"]:
        try:
            Endpoint(**{k: v for k, v in entry.items() if k not in ("id", "log")})
        except PhasescopeError as error:
            raise PhasescopeError(
                f"{where}: key 'endpoints', id {entry['id']!r}: {error}"
            ) from None


def _family(name: str) -> str:
    """Family of a model by its name: the letters that it begins with."""
    return re.match(r"[a-z]*", name.rsplit("/", 1)[-1].lower())[0]


def check_judge(config: dict, models: list[Model], where: str) -> None:
    """A judge must be askable and of another family than the models it judges."""
    judge = config["judge"]
    if judge is None:
        return
    try:
        name = endpoint_of(judge).name
    except PhasescopeError as error:
        raise PhasescopeError(f"{where}: {error}") from None
    families = {(judge.get("family") or _family(name)).lower()}
    if judge.get("folder"):
        families.add(_family(model_type(Path(judge["folder"]))))
    for model in models:
        if found := families & {_family(model.huggingface_id or ""), _family(model.id)} - {""}:
            raise PhasescopeError(
                f"{where}: key 'judge': of the family {found.pop()!r}, as model {model.id!r} that "
                "it would judge; allowed: another family"
            )


def lengths_of(chosen: Chosen) -> dict[str, Prompts]:
    """Lengths of each model's prompts: the longest over all its tables, the mean of its main one.

    A benchmark's table has the lengths that are assumed without any.
    """
    found = {path: _length(table) for path, table in chosen.tables.items()}
    lengths = {}
    for model, path in chosen.main.items():
        each = [found[path], *(found[p] for p in chosen.more[model].values())]
        longest = max(e.prompt for e in each), max(e.reference for e in each)
        lengths[model] = Prompts(*longest, found[path].mean_prompt, found[path].mean_reference)
    return lengths


def _length(table: PromptTable | Named) -> Prompts:
    """Of one table; in a language without grades there are no references."""
    if isinstance(table, Named):
        return Prompts()
    answers = table.frame["answer"] if table.language in WORLDS else [""] * len(table.frame)
    return prompt_lengths(table.frame["text"], answers)
