"""Safetensors headers: what a checkpoint holds, read without its weights and without trusting it.

The format: https://huggingface.co/docs/safetensors. Eight bytes of length, a JSON header, the data.
"""

import importlib.util
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from phasescope.errors import PhasescopeError, shown

INDEX = "model.safetensors.index.json"
SHARDS = "model*.safetensors"  # what mlx-lm loads, index or not
PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")
# bytes per value of the types that mlx reads
DTYPES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "C64"), 8),
}
_MAX_JSON = 100 * 2**20  # the format's own limit of a header
_MAX_DIMENSIONS = 16
_ENTRY = {"dtype", "shape", "data_offsets"}
_NUMBERED = re.compile(r"model-(\d{5})-of-(\d{5})\.safetensors")


@dataclass(frozen=True)
class Tensor:
    """One tensor as its shard's header declares it; offsets in bytes after the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def nbytes(self) -> int:
        """Bytes of its values."""
        return self.end - self.begin


@dataclass(frozen=True)
class Header:
    """One shard: its tensors in the header's order, its metadata, and where its data begins."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str] | None
    data_begin: int


@dataclass
class Contents:
    """What the files of a checkpoint folder declare, and the faults found in that, a line each."""

    headers: dict[Path, Header] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name; of two with one name, the first shard's."""
        found: dict[str, Tensor] = {}
        for header in self.headers.values():
            for name, tensor in header.tensors.items():
                found.setdefault(name, tensor)
        return found


class _Fault(ValueError):
    """What is wrong inside a file; the file's name is put before it."""


def _once(pairs: list[tuple[str, object]]) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(k for k, _ in pairs if k in seen or seen.add(k))
        raise _Fault(f"key {shown(twice)} stands twice")
    return found


def _no_constant(text: str):
    raise _Fault(f"not valid JSON: found {text}")


def _parse(content: bytes, *, constants: bool = False) -> dict:
    """A JSON object without double keys; NaN and Infinity only with `constants`."""
    try:
        found = json.loads(
            content.decode(),
            object_pairs_hook=_once,
            **({} if constants else {"parse_constant": _no_constant}),
        )
    except _Fault:
        raise
    except UnicodeDecodeError as error:
        raise _Fault(f"not UTF-8 text ({error.reason} at byte {error.start})") from None
    except RecursionError:
        raise _Fault("not valid JSON: nested too deep") from None
    except ValueError as error:
        raise _Fault(f"not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise _Fault(f"found a {type(found).__name__}; allowed: a JSON object")
    return found


def _readable(path: Path) -> int:
    """Size of a file, bytes; PhasescopeError for what is no file, a pipe or a device included."""
    try:
        if path.is_file():
            return path.stat().st_size
        there = path.exists() or path.is_symlink()
    except (OSError, ValueError) as error:
        raise PhasescopeError(f"{path}: cannot be read: {error}") from None
    if there and path.exists():
        raise PhasescopeError(f"{path}: not a regular file")
    raise PhasescopeError(f"{path}: missing; the file, or what it links to, is gone")


def read_json(path: Path, *, constants: bool = False) -> dict:
    """The JSON object of a checkpoint's own file, at most 100 MB of it.

    `constants` allows NaN and Infinity, which some developers write into config.json. Raises
    PhasescopeError otherwise.
    """
    if (size := _readable(path)) > _MAX_JSON:
        raise PhasescopeError(f"{path}: found {size} bytes; allowed: {_MAX_JSON} of JSON")
    try:
        return _parse(path.read_bytes(), constants=constants)
    except _Fault as fault:
        raise PhasescopeError(f"{path}: {fault}") from None
    except OSError as error:
        raise PhasescopeError(f"{path}: cannot be read: {error.strerror}") from None


def _whole(value, below: int) -> bool:
    return type(value) is int and 0 <= value < below


def _size(value) -> bool:
    return _whole(value, 2**31)  # mlx counts a dimension in 32 bits


def _offset(value) -> bool:
    return _whole(value, 2**63)


def _tensor(entry) -> Tensor:
    if not isinstance(entry, dict) or set(entry) != _ENTRY:
        raise _Fault(f"found {shown(entry)}; allowed: {', '.join(sorted(_ENTRY))}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise _Fault(f"unsupported dtype {shown(dtype)}; allowed: {', '.join(DTYPES)}")
    if not isinstance(shape, list) or len(shape) > _MAX_DIMENSIONS or not all(map(_size, shape)):
        raise _Fault(f"shape {shown(shape)}; allowed: up to {_MAX_DIMENSIONS} sizes below 2^31")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_offset, offsets)):
        raise _Fault(f"data_offsets {shown(offsets)}; allowed: two whole numbers")
    tensor = Tensor(dtype, tuple(shape), *offsets)
    if (expected := math.prod(shape) * DTYPES[dtype]) != tensor.nbytes:
        raise _Fault(
            f"{dtype} of shape {shown(shape)} is {shown(expected)} bytes, its offsets "
            f"{offsets} hold {tensor.nbytes}"
        )
    return tensor


def _metadata(found) -> dict[str, str] | None:
    if found is None:
        return None
    if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
        raise _Fault(f"__metadata__ {shown(found)}; allowed: texts by name")
    return found


def _check_layout(tensors: dict[str, Tensor], data: int) -> None:
    """Tensors follow each other without gap or overlap, and fill the data to its end."""
    at, before = 0, "the header"
    for name, tensor in sorted(tensors.items(), key=lambda t: (t[1].begin, t[1].end)):
        if tensor.begin != at:
            what = "overlaps" if tensor.begin < at else "leaves a gap after"
            raise _Fault(f"tensor {shown(name)} at {tensor.begin} {what} {before}, ending at {at}")
        at, before = tensor.end, f"tensor {shown(name)}"
    if at != data:
        what = "truncated" if at > data else "has trailing bytes"
        raise _Fault(f"{what}: its header declares {at} bytes of data, the file has {data}")


def parse_header(content: bytes, data: int) -> tuple[dict[str, Tensor], dict[str, str] | None]:
    """Tensors and metadata of a header's JSON, before `data` bytes of data; ValueError if wrong."""
    header = _parse(content)
    metadata = _metadata(header.pop("__metadata__", None))
    tensors = {}
    for name, entry in header.items():
        try:
            tensors[name] = _tensor(entry)
        except _Fault as fault:
            raise _Fault(f"tensor {shown(name)}: {fault}") from None
    _check_layout(tensors, data)
    return tensors, metadata


def read_shard(path: Path) -> Header:
    """One safetensors file's header, every claim of it checked against the file's size.

    Raises PhasescopeError for a file that is truncated, too long, or not safetensors.
    """
    size = _readable(path)
    try:
        with open(path, "rb") as handle:
            length = int.from_bytes(handle.read(8), "little")
            if size < 8 or length > _MAX_JSON or 8 + length > size:
                raise _Fault(
                    f"truncated or not safetensors: its header claims {length} bytes, the file "
                    f"has {size}"
                )
            tensors, metadata = parse_header(handle.read(length), size - 8 - length)
    except _Fault as fault:
        raise PhasescopeError(f"{path}: {fault}") from None
    except OSError as error:
        raise PhasescopeError(f"{path}: cannot be read: {error.strerror}") from None
    return Header(tensors, metadata, 8 + length)


def read_header(path: Path) -> dict[str, Tensor]:
    """Tensors of one safetensors file by name; see `read_shard`."""
    return read_shard(path).tensors


def weight_map(folder: Path) -> dict[str, str] | None:
    """Shard by tensor, as the folder's index names them; None without an index.

    Raises PhasescopeError for an index that is not one, or that leads out of the folder.
    """
    index = folder / INDEX
    if not index.exists() and not index.is_symlink():
        return None
    found = read_json(index).get("weight_map")
    if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
        raise PhasescopeError(f"{index}: key 'weight_map': allowed: shards by tensor")
    for name in sorted(set(found.values())):
        if name != PurePosixPath(name).name or name in ("", ".", "..") or "\\" in name:
            raise PhasescopeError(f"{index}: shard {shown(name)} leads out of the folder")
        if not PurePosixPath(name).match(SHARDS) or not name.isprintable():
            raise PhasescopeError(f"{index}: shard {shown(name)}; allowed: {SHARDS}")
    return found


def _named_by_number(found: list[Path]) -> Iterator[str]:
    """Every shard of a series of which at least one is there: model-00001-of-00003 and so on."""
    totals = {int(m[2]) for p in found if (m := _NUMBERED.fullmatch(p.name))}
    for total in sorted(totals):
        for number in range(1, min(total, 10_000) + 1):
            yield f"model-{number:05}-of-{total:05}.safetensors"


def shards(folder: Path) -> list[Path]:
    """The weight files of a checkpoint folder, in order.

    Raises PhasescopeError when there are none, or when the index or the others' numbers name one
    that is missing.
    """
    found = sorted(folder.glob(SHARDS))
    here = {p.name for p in found if p.is_file()}
    for name in sorted(set((weight_map(folder) or {}).values())):
        if name not in here:
            raise PhasescopeError(f"{folder / name}: missing; {INDEX} names this shard")
    for name in _named_by_number(found):
        if name not in here:
            raise PhasescopeError(f"{folder / name}: missing; the other shards count it")
    if not found:
        raise PhasescopeError(f"{folder}: no {SHARDS}; other formats are never opened")
    return found


def _known_to_mlx_lm(name) -> bool:
    """Whether mlx-lm has a model of that type; imports it, which takes seconds, only if it must."""
    if not isinstance(name, str) or not name.isidentifier():
        return False
    models = Path(importlib.util.find_spec("mlx_lm").submodule_search_locations[0], "models")
    if (models / f"{name}.py").is_file():
        return True
    from mlx_lm.utils import MODEL_REMAPPING

    return name in MODEL_REMAPPING


def model_type(folder: Path) -> str:
    """The architecture that config.json names, one that mlx-lm can load.

    Raises PhasescopeError naming the file and what was found otherwise.
    """
    path = folder / "config.json"
    config = read_json(path, constants=True)
    found = config.get("model_type")
    if "model_file" in config:
        raise PhasescopeError(f"{path}: key 'model_file': asks to run code; code never runs")
    if not _known_to_mlx_lm(found):
        raise PhasescopeError(
            f"{path}: key 'model_type': found {shown(found)}, which this mlx-lm does not know"
        )
    return found


def refuse_pickles(folder: Path) -> None:
    """Raises PhasescopeError for a folder with a file of a kind that runs code when opened."""
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in PICKLES:
            raise PhasescopeError(
                f"{path}: a pickle, which may run code when opened; refused, never opened "
                "(move it away, or use the safetensors files alone)"
            )


def _index_faults(folder: Path, headers: dict[Path, Header]) -> Iterator[str]:
    """Where the index and the shards disagree on what stands where."""
    named = weight_map(folder)
    if named is None:
        return
    where = {name: path.name for path, header in headers.items() for name in header.tensors}
    for name, shard in named.items():
        if name not in where:
            yield f"{folder / INDEX}: tensor {shown(name)} is not in shard {shard}"
        elif where[name] != shard:
            yield f"{folder / INDEX}: tensor {shown(name)} is in {where[name]}, not in {shard}"
    for name, shard in where.items():
        if name not in named:
            yield f"{folder / shard}: tensor {shown(name)} is not in {INDEX}, but would be loaded"


def scan(folder: Path) -> Contents:
    """Everything that a folder's files declare, with every fault found; no weight is read."""
    found = Contents()

    def attempt(function, *arguments):
        try:
            return function(*arguments)
        except PhasescopeError as fault:
            found.faults.append(str(fault))

    attempt(model_type, folder)
    paths = attempt(shards, folder) or []
    seen: set[str] = set()
    for path in paths:
        if header := attempt(read_shard, path):
            found.headers[path] = header
            for name in sorted(header.tensors.keys() & seen):
                found.faults.append(f"{path}: tensor {shown(name)} stands in another shard too")
            seen |= header.tensors.keys()
    if not found.faults:
        found.faults += _index_faults(folder, found.headers)
    return found


def check(folder: Path, *, pickles_beside: bool = False) -> dict[str, Tensor]:
    """All tensors of a checkpoint folder, after checking its config, index and shards.

    `pickles_beside`: files that run code when opened may lie in the folder; they are never opened
    either way. Raises PhasescopeError for the first fault found; no weight is read.
    """
    if not folder.is_dir():
        raise PhasescopeError(f"{folder}: no such checkpoint folder")
    if not pickles_beside:
        refuse_pickles(folder)
    found = scan(folder)
    if found.faults:
        raise PhasescopeError(found.faults[0])
    return found.tensors
