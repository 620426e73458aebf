"""Edits through llama.cpp's own conversion and quantization: of model organisms alone.

A converter needs files. The writer below refuses whatever is no organism, and writes nowhere but
into a passing folder of this module's own (`tables.temporary`); nothing here takes a destination.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile

import mlx.core as mx
import numpy as np

from phasescope.chat import Endpoint
from phasescope.checkpoint import shards
from phasescope.checkpoint.layout import load_symbols, stored
from phasescope.checkpoint.quantize import companions
from phasescope.checkpoint.symbolic import origins
from phasescope.endpoints import Asked
from phasescope.errors import NotRun, PhasescopeError
from phasescope.model import ORGANISM_PARAMETERS, LanguageModel, load_model, modules_of
from phasescope.survival.behavior import Grades
from phasescope.survival.edits import PROJECTION, WeightEdit, edited
from phasescope.survival.llama_cpp import LlamaCpp, Stored
from phasescope.tables.temporary import PREFIX, passing_folder

GGUF = "gguf"
TYPES = ("F16", "Q8_0", "Q4_K")
AS_PUBLISHED, BY_MLX_LM = EXPORTS = ("as_published", "mlx_lm")

# modules that write into the residual stream, as llama.cpp names them in a block
_NAMES = {
    "self_attn.o_proj": "attn_output",
    "linear_attn.out_proj": "ssm_out",
    "mlp.down_proj": "ffn_down",
    "mlp.switch_mlp.down_proj": "ffn_down_exps",
    "mlp.shared_expert.down_proj": "ffn_down_shexp",
    "block_sparse_moe.switch_mlp.down_proj": "ffn_down_exps",
}


def gguf_name(path: str) -> str:
    """The name in a GGUF file of a weight that writes into the residual stream."""
    layer, _, rest = path.partition("layers.")[2].partition(".")
    return f"blk.{layer}.{_NAMES[rest]}.weight"


def _refuse(lm: LanguageModel, folder: Path) -> None:
    """Nothing but organisms, and nowhere but in a passing folder."""
    if not lm.is_organism:
        raise PhasescopeError(
            f"the model has more than {ORGANISM_PARAMETERS:,} parameters: files for a converter "
            "are written of model organisms alone"
        )
    temporary = Path(tempfile.gettempdir()).resolve()
    parent = folder.resolve().parent
    if parent.parent != temporary or not parent.name.startswith(PREFIX):
        raise PhasescopeError(f"{folder}: no passing folder; files for a converter lie in no other")


def _write_as_published(lm: LanguageModel, source: Path, paths: list[str], folder: Path) -> None:
    """The source's own files, with the weights at `paths` as they are in memory: its names, its
    layout, bfloat16. What mlx-lm loads from it must be what is in memory."""
    _refuse(lm, folder)
    folder.mkdir()
    modules, tensors = modules_of(lm), stored(source)
    symbols = load_symbols(source, tensors)[2]
    changed = {}
    for path in paths:
        for name in ("weight", "bias"):
            if name in modules[path]:
                new = modules[path][name].astype(mx.bfloat16)
                names = sorted(origins([symbols[f"{path}.{name}"]]), key=_number)
                # experts that are stored one by one become one tensor
                each = [new] if len(names) == 1 else list(new)
                changed |= dict(zip(names, each, strict=True))
    for shard in shards(source):
        weights, metadata = mx.load(str(shard), return_metadata=True)
        weights = {n: changed.get(n, w).astype(w.dtype) for n, w in weights.items()}
        mx.save_safetensors(str(folder / shard.name), weights, metadata)
    for path in [source / "config.json", *companions(source), *source.glob("*.index.json")]:
        copyfile(path, folder / path.name)
    written = modules_of(load_model(folder))
    for path in paths:
        if not mx.array_equal(written[path].weight, modules[path].weight):
            raise PhasescopeError(f"{path}: what was written for the converter is not the model")


def _number(name: str) -> tuple[int, ...]:
    """Numbers in a tensor's name, for the order of experts."""
    return tuple(int(part) for part in name.split(".") if part.isdigit())


def _write_by_mlx_lm(lm: LanguageModel, source: Path, folder: Path) -> None:
    """What `mlx_lm.save` writes of a model: names and values of its own (norms of Qwen3.5 come out
    shifted by one), under a Hugging Face config. The wrong export of claim xs-14."""
    from mlx_lm.utils import load_config, save

    _refuse(lm, folder)
    save(folder, source, lm.model, lm.tokenizer, load_config(source), donate_model=False)


@dataclass(frozen=True)
class _Made:
    """One GGUF file, served and read: its tensors by module path, and the grades of its answers."""

    tensors: dict[str, Stored]
    grades: Grades | None


def rows(survival, folder: str | Path | None) -> list[dict]:
    """Rows of the table `survival` for GGUF; one that says why where there is none.

    survival: a `running.Survival`; folder: where llama.cpp lies.
    """
    keys = {"format": GGUF}
    try:
        tools = LlamaCpp.at(folder)
        if not survival.subject.lm.is_organism:
            raise NotRun(
                "llama.cpp converts files, and edited weights are written of organisms alone (at "
                f"most {ORGANISM_PARAMETERS:,} parameters)"
            )
    except NotRun as reason:
        return [keys | {"status": "not_run", "reason": str(reason)}]
    found = []
    for export in EXPORTS:
        try:
            found += list(_export(survival, tools, export))
        except NotRun as reason:
            own = {"export": export, "status": "not_run", "reason": str(reason)}
            found.append(keys | own)
    return found


def _export(survival, tools: LlamaCpp, export: str) -> Iterator[dict]:
    """One way of writing the checkpoint: without an edit, then with each."""
    edits = survival.edits
    if export == BY_MLX_LM:
        edits = [edit for edit in edits if edit.kind == PROJECTION]
    plain = _converted(survival, tools, export, None)
    for kind, made in plain.items():
        if made.grades:
            yield from survival.unedited_rows(_keys(export, kind), made.grades)
    for edit in edits:
        for kind, made in _converted(survival, tools, export, edit).items():
            yield from _edit_rows(survival, export, kind, edit, plain[kind], made)


def _keys(export: str, kind: str) -> dict:
    return {"format": GGUF, "recipe": kind, "export": export}


def _edit_rows(survival, export, kind, edit: WeightEdit, plain: _Made, made: _Made) -> list[dict]:
    keys = _keys(export, kind)
    parts, types = [], {}
    for path in edit.tensors:
        before, after = plain.tensors[path], made.tensors[path]
        order = _order(survival.originals[path], plain.tensors[path].values)
        pair = (before.values[..., order], after.values[..., order])
        parts.append((path, [survival.rounded(edit, path, *pair)]))
        types[path] = {"stored_as": after.type}
    found = survival.tensor_rows(keys, edit, parts, types)
    if made.grades:
        found += survival.edited_rows(keys, edit, made.grades)
    return found


def _order(exact: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Where each input channel of a weight (…, out, in) lies in the file's.

    The converter orders the value heads of recurrent layers anew. A channel is matched with the
    nearest one of the rounded weight; where that is no order, channels are taken as they are.
    """
    flat, other = (w.reshape(-1, w.shape[-1]) for w in (exact, found))
    distance = np.square(other).sum(axis=0)[None] - 2 * flat.T @ other
    order = distance.argmin(axis=1)
    same = len(np.unique(order)) == len(order)
    return order if same else np.arange(len(order))


def _converted(survival, tools: LlamaCpp, export: str, edit: WeightEdit | None) -> dict[str, _Made]:
    """A model organism, edited or not, through llama.cpp, by type. Its files last no longer."""
    lm, paths = survival.subject.lm, list(survival.originals)
    with passing_folder() as folder:
        checkpoint, whole = folder / "checkpoint", folder / "F32.gguf"
        with edited(lm, edit):
            if export == AS_PUBLISHED:
                _write_as_published(lm, survival.source, paths, checkpoint)
            else:
                _write_by_mlx_lm(lm, survival.source, checkpoint)
        try:
            tools.convert(checkpoint, whole)
        except PhasescopeError as error:
            raise NotRun(f"{error} (checkpoint written by {export})") from None
        made = {}
        for kind in TYPES:
            file = folder / f"{kind}.gguf"
            tools.quantize(whole, file, kind)
            names = [gguf_name(path) for path in paths]
            read = tools.read(file, names)
            tensors = {path: read[name] for path, name in zip(paths, names, strict=True)}
            grades = _grades(survival, tools, file) if survival.measures_behavior else None
            made[kind] = _Made(tensors, grades)
        return made


def _grades(survival, tools: LlamaCpp, file: Path) -> Grades:
    """Exact grades of what llama.cpp's server answers, asked as any endpoint is."""
    subject = survival.subject
    prompts, decoding = subject.prompts("evaluate"), subject.decoding
    with tools.served(file) as address:
        endpoint = Endpoint(
            "openai-api/local/organism",
            base_url=address,
            max_tokens=decoding.max_tokens,
            thinking=decoding.thinking,
            max_connections=4,
        )
        asked = Asked(endpoint, file.with_suffix(".journal"))
        outcomes = asked.graded(prompts, subject.grader, keep_text=False)
    return Grades.of(prompts["label"], [o.verdict["grade"] for o in outcomes])
