"""Safetensors headers: what a checkpoint holds, read without its weights."""

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

from phasescope.errors import PhasescopeError

_MAX_HEADER = 100 * 2**20  # the format's own limit
_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Tensor:
    """One tensor as its shard's header declares it; offsets in bytes after the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def _json(path: Path) -> dict:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PhasescopeError(f"{path}: missing; a checkpoint folder needs it") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise PhasescopeError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise PhasescopeError(f"{path}: found a {type(found).__name__}; allowed: a JSON object")
    return found


def _weight_map(index: Path) -> dict[str, str]:
    """Shard by tensor, as an index names them."""
    found = _json(index).get("weight_map")
    if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
        raise PhasescopeError(f"{index}: key 'weight_map': allowed: shards by tensor")
    return found


def read_header(path: Path) -> dict[str, Tensor]:
    """Tensors of one safetensors file by name.

    Raises PhasescopeError for a file that is truncated, too long, or not safetensors.
    """
    if not path.is_file():
        raise PhasescopeError(f"{path}: missing; the file, or what it links to, is gone")
    size = path.stat().st_size
    with open(path, "rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        if size < 8 or length > _MAX_HEADER or 8 + length > size:
            raise PhasescopeError(
                f"{path}: truncated or not safetensors: its header claims {length} bytes, the "
                f"file has {size}"
            )
        try:
            header = json.loads(handle.read(length))
            header.pop("__metadata__", None)
            tensors = {
                name: Tensor(t["dtype"], tuple(t["shape"]), *map(int, t["data_offsets"]))
                for name, t in header.items()
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PhasescopeError(f"{path}: not a safetensors header: {error!r}") from None
    expected = 8 + length + max((t.end for t in tensors.values()), default=0)
    if size != expected:
        raise PhasescopeError(
            f"{path}: {'truncated' if size < expected else 'has trailing bytes'}: its header "
            f"declares {expected} bytes, the file has {size}"
        )
    return tensors


def shards(folder: Path) -> list[Path]:
    """The weight files of a checkpoint folder, in order.

    Raises PhasescopeError when there are none, or when the index names one that is missing.
    """
    found = sorted(folder.glob("model*.safetensors"))
    index = folder / _INDEX
    if index.exists():
        for name in sorted(set(_weight_map(index).values())):
            if not (folder / name).is_file():
                raise PhasescopeError(f"{folder / name}: missing; {_INDEX} names this shard")
    if not found:
        raise PhasescopeError(f"{folder}: no model*.safetensors; other formats are never opened")
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
    config = _json(path)
    found = config.get("model_type")
    if "model_file" in config:
        raise PhasescopeError(f"{path}: key 'model_file': asks to run code; code never runs")
    if not _known_to_mlx_lm(found):
        raise PhasescopeError(
            f"{path}: key 'model_type': found {found!r}, which this mlx-lm does not know"
        )
    return found


def check(folder: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint folder, after checking its config, index and shards.

    Raises PhasescopeError for the first fault found; no weight is read.
    """
    model_type(folder)
    tensors: dict[str, Tensor] = {}
    for shard in shards(folder):
        for name, tensor in read_header(shard).items():
            if name in tensors:
                raise PhasescopeError(f"{shard}: tensor {name!r} stands in another shard too")
            tensors[name] = tensor
    index = folder / _INDEX
    if index.exists():
        for name, shard in _weight_map(index).items():
            if name not in tensors:
                raise PhasescopeError(f"{index}: tensor {name!r} is not in shard {shard}")
    return tensors
