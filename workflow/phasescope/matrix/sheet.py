"""The model sheet: one row a model, checked before anything runs."""

import math
from dataclasses import dataclass, fields, replace
from pathlib import Path

from phasescope.errors import PhasescopeError, shown
from phasescope.matrix.validation import explain, first_error, load_schema, unknown
from phasescope.tables.reading import read_lines

# An id names a folder of the results and a target of Snakemake: what has these names already.
RESERVED = frozenset(
    (
        *("all", "train", "fetch", "prompt_table", "quantize", "audit", "probe"),
        *("select_direction", "intervene", "cohere", "survey", "calibration_sets", "endpoints"),
        *("collect", "compare", "classify", "calibrate", "fit_thresholds", "report", "figures"),
        *("claims", "survival", "writers", "topics", "organisms", "prompts"),
    )
)
_PLACES = ("folder", "prompts", "recipe")
# what a model may leave out, designs aside
OPTIONAL_STAGES = ("survey", "calibration_sets", "survival")
_MAX_NAME_BYTES = 255


@dataclass(frozen=True)
class Model:
    """One row of a model sheet; see workflow/schemas/sheet.schema.json for each field.

    runs: designs and stages that it runs of those that the configuration names; empty: all.
    """

    id: str
    parameters_total_billion: float
    parameters_active_billion: float
    architecture: str
    developer: str
    layers: int
    hidden_size: int
    thinking: bool
    huggingface_id: str | None = None
    revision: str | None = None
    folder: str | None = None
    experts: int | None = None
    quantized_8: str | None = None
    quantized_4: str | None = None
    prompts: str | None = None
    recipe: str | None = None
    phase: str | None = None
    runs: tuple[str, ...] = ()
    notes: str | None = None

    def leaves_out(self, part: str) -> bool:
        """Whether the sheet says that this model does not run a design or stage."""
        return bool(self.runs) and part not in self.runs

    def ready_made(self, precision: str) -> str | None:
        """Hub id of a ready-made quantized model for this precision, if the sheet names one."""
        return {"8": self.quantized_8, "4": self.quantized_4}.get(precision)


def _lines(path: Path) -> list[str]:
    lines = read_lines(path, "model sheet")
    if not any(line.strip() for line in lines):
        raise PhasescopeError(f"{path}: empty; a model sheet has a header and one row a model")
    return lines


def _check_place(value: str, where: str) -> None:
    """A path that no file system can have would end in a traceback later, and Snakemake takes
    braces for wildcards."""
    if set("{}") & set(value):
        raise PhasescopeError(f"{where}: found {shown(value)}; allowed: a path without braces")
    longest = max(len(part.encode()) for part in value.split("/"))
    if longest > _MAX_NAME_BYTES:
        raise PhasescopeError(
            f"{where}: found a name of {longest} bytes in {shown(value)}; allowed: "
            f"{_MAX_NAME_BYTES}, the most that file systems take"
        )


def _number(text: str, kind: type, where: str):
    try:
        found = kind(text)
        if "_" in text or not math.isfinite(found):  # Python reads 1_000 and nan as numbers
            raise ValueError
        return found
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise PhasescopeError(f"{where}: found {shown(text)}; allowed: {what}") from None


def _runs(value: str, where: str) -> tuple[str, ...]:
    """What a model runs, of a list joined by commas."""
    known = (*load_schema("config")["properties"]["designs"]["items"]["enum"], *OPTIONAL_STAGES)
    found = tuple(name.strip() for name in value.split(","))
    for name in found:
        if name not in known:
            raise PhasescopeError(f"{where}: {unknown(name, known, 'design or stage')}")
    return found


def _header(line: str, path: Path, schema: dict) -> list[str]:
    columns = line.split("\t")
    if len(columns) == 1:
        other = next(
            (
                name
                for sep, name in ((",", "commas"), (";", "semicolons"), (" ", "blanks"))
                if sep in line
            ),
            None,
        )
        if other:
            raise PhasescopeError(
                f"{path}: row 1: wrong separator: found {other}; columns are separated by tabs"
            )
    for column in columns:
        if column != column.strip():
            raise PhasescopeError(
                f"{path}: row 1: column {shown(column)} has leading or trailing blanks"
            )
    twice = {c for c in columns if columns.count(c) > 1}
    if twice:
        raise PhasescopeError(f"{path}: row 1: column {shown(sorted(twice)[0])} stands twice")
    for column in columns:
        if column not in schema["properties"]:
            raise PhasescopeError(
                f"{path}: row 1: {unknown(column, schema['properties'], 'column')}"
            )
    for column in schema["required"]:
        if column not in columns:
            raise PhasescopeError(
                f"{path}: row 1: no column {column!r}; required: {', '.join(schema['required'])}"
            )
    return columns


def _row(number: int, line: str, columns: list[str], path: Path, schema: dict) -> Model:
    cells = line.split("\t")
    where = f"{path}: row {number}"
    if len(cells) != len(columns):
        raise PhasescopeError(f"{where}: found {len(cells)} columns; the header has {len(columns)}")
    kinds = {"number": float, "integer": int}
    value = {}
    for column, cell in zip(columns, cells, strict=True):
        if cell != cell.strip():
            raise PhasescopeError(
                f"{where}, column {column!r}: leading or trailing blanks in {shown(cell)}"
            )
        if cell:
            kind = kinds.get(schema["properties"][column].get("type"))
            value[column] = _number(cell, kind, f"{where}, column {column!r}") if kind else cell
    if error := first_error(value, schema):
        raise PhasescopeError(f"{where}: {explain(error, 'column')}")
    if bool(value.get("huggingface_id")) == bool(value.get("folder")):
        raise PhasescopeError(
            f"{where}, columns 'huggingface_id' and 'folder': exactly one of them is given"
        )
    for column in _PLACES:
        _check_place(value.get(column, ""), f"{where}, column {column!r}")
    if value["id"].lower() in RESERVED or value["id"].lower().startswith("quantize_"):
        raise PhasescopeError(
            f"{where}, column 'id': found {value['id']!r}, a name that the workflow uses; allowed: "
            "another"
        )
    if "runs" in value:
        value["runs"] = _runs(value["runs"], f"{where}, column 'runs'")
    return Model(**value | {"thinking": value["thinking"] == "yes"})


def read_sheet(path: str | Path) -> list[Model]:
    """Read and check a model sheet (tab separated, one row a model, in the sheet's order).

    Raises PhasescopeError that names file, row and column, what was found and what is allowed.
    """
    path = Path(path)
    schema = load_schema("sheet")
    assert set(schema["properties"]) == {f.name for f in fields(Model)}
    lines = _lines(path)
    columns = _header(lines[0], path, schema)
    models: dict[str, Model] = {}
    rows: dict[str, int] = {}
    for number, line in enumerate(lines[1:], start=2):
        model = _row(number, line, columns, path, schema)
        key = model.id.lower()  # file systems of Macs do not tell case apart
        if key in models:
            raise PhasescopeError(
                f"{path}: row {number}, column 'id': {model.id!r} stands already "
                f"in row {rows[key]}; ids are unique, whatever their case"
            )
        models[key], rows[key] = model, number
    if not models:
        raise PhasescopeError(f"{path}: no row below the header")
    return list(models.values())


def from_seeds(models: list[Model], seeds: list[int], folder: str, sheet: str) -> list[Model]:
    """Each organism trained afresh from each seed, as rows of their own: `<id>-seed<N>`, whose
    checkpoint is made under `folder`.

    Raises PhasescopeError for a row without a recipe.
    """
    for model in models:
        if model.recipe is None:
            raise PhasescopeError(
                f"{sheet}: model {model.id!r}, column 'recipe': empty; key 'seeds' trains every "
                "model of the study from its recipe"
            )
    return [
        replace(model, id=name, folder=f"{folder}/{name}")
        for seed in seeds
        for model in models
        for name in [f"{model.id}-seed{seed}"]
    ]


def pick(models: list[Model], ids: list[str] | None, path: str, key: str) -> list[Model]:
    """The models of the given ids in the sheet's order; all for None.

    Raises PhasescopeError for an id that the sheet does not have, and says which it has.
    """
    if ids is None:
        return models
    known = {m.id for m in models}
    for found in ids:
        if found not in known:
            raise PhasescopeError(
                f"{key}: no such model {found!r} in {path}; "
                f"it has: {', '.join(m.id for m in models)}"
            )
    return [m for m in models if m.id in set(ids)]
