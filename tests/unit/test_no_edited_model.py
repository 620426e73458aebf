"""No public function takes an edit and a destination, and none that edits leads to one that writes
weights: read from the source, so that a new function is held to it as well."""

import ast
from pathlib import Path

ROOM = Path(__file__).parents[2] / "workflow" / "phasescope"
PARAMETERS = {"edit", "edits"}
DESTINATIONS = {"path", "folder", "file", "destination", "output", "target", "dst", "directory"}
# what makes an edit hold, and what writes weights to a file
EDITING = {"applied", "entered", "replaced", "tapped", "edited"}
WRITING = {
    "save_safetensors",
    "save_file",
    "save_gguf",
    "save_model",
    "save_weights",
    "save_pretrained",
    "savez",
    "convert",
}
# of the library: what fills a checkpoint's shards, and what exports a trained organism
WRITERS = {("checkpoint/stream", "_write_shard"), ("train/export", "save")}
# write an edited organism for a converter, and refuse all else; called in one place alone
CONVERTED = ("survival/gguf", "_converted")
GUARDED = {("survival/gguf", name) for name in ("_write_as_published", "_write_by_mlx_lm")}


def _functions():
    """Every function and method of the library: module and node."""
    for path in sorted(ROOM.rglob("*.py")):
        module = path.relative_to(ROOM).with_suffix("").as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                yield module, node


def _parameters(node: ast.FunctionDef) -> dict[str, set[str]]:
    """Names in the annotation of each parameter."""
    own = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return {
        a.arg: {n.id for n in ast.walk(a.annotation) if isinstance(n, ast.Name)}
        if a.annotation
        else set()
        for a in own
    }


def _edit_classes() -> set[str]:
    """`Edit` and all that inherit from it, by name."""
    bases = {}
    for path in ROOM.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                bases[node.name] = {b.id for b in node.bases if isinstance(b, ast.Name)}
    found = {"Edit", "WeightEdit", "TensorEdit"}
    assert found <= set(bases)
    while more := {name for name, own in bases.items() if own & found} - found:
        found |= more
    return found


def test_no_public_function_takes_an_edit_and_a_destination():
    """If it failed, a model with its safety removed could be written by one call."""
    classes, seen = _edit_classes(), 0
    assert {"Ablation", "WeightProjection", "RoutingMask", "Combination"} <= classes
    for module, node in _functions():
        own = _parameters(node)
        edits = [n for n, types in own.items() if n in PARAMETERS or types & classes]
        places = [n for n, types in own.items() if n in DESTINATIONS or "Path" in types]
        seen += bool(edits)
        assert not (edits and places), f"{module}.{node.name} takes {edits} and {places}"
    assert seen > 10


class Graph:
    """Who calls whom: functions by (module, name), methods by name alone, of any class.

    A plain name is what its module defines or imports; a call on an imported module, of the library
    or not, is that module's function; any other call on something is a method of that name.
    """

    def __init__(self):
        self.calls, self.defined, self.methods = {}, {}, {}
        for path in sorted(ROOM.rglob("*.py")):
            module = path.relative_to(ROOM).with_suffix("").as_posix()
            tree = ast.parse(path.read_text())
            imported = self._imported(tree)
            owners = {
                f: c.name
                for c in ast.walk(tree)
                if isinstance(c, ast.ClassDef)
                for f in c.body
                if isinstance(f, ast.FunctionDef)
            }
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef):
                    own = f"{owners[node]}.{node.name}" if node in owners else node.name
                    called = self.calls.setdefault((module, own), set())
                    called |= self._called(node, module, imported)
                    kind = self.methods if node in owners else self.defined
                    kind.setdefault(node.name, set()).add((module, own))

    @staticmethod
    def _imported(tree) -> dict[str, str]:
        """Where each imported name comes from."""
        found = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                found |= {n.asname or n.name: node.module for n in node.names}
            elif isinstance(node, ast.Import):
                found |= {(n.asname or n.name).partition(".")[0]: n.name for n in node.names}
        return found

    @staticmethod
    def _called(node, module, imported) -> set[tuple[str, str, str]]:
        """(what, where, name) of each call: a function of the library, an outsider's, a method."""
        found = set()
        for call in (n.func for n in ast.walk(node) if isinstance(n, ast.Call)):
            if isinstance(call, ast.Name):
                origin = imported.get(call.id, f"phasescope/{module}")
                ours = origin.startswith("phasescope")
                found.add(("function" if ours else "outside", origin, call.id))
            elif isinstance(call, ast.Attribute):
                base = call.value.id if isinstance(call.value, ast.Name) else None
                if base in imported and not imported[base].startswith("phasescope"):
                    found.add(("outside", imported[base], call.attr))
                elif base in imported:
                    found.add(("function", f"{imported[base]}.{base}", call.attr))
                    found.add(("method", "", call.attr))
                else:
                    found.add(("method", "", call.attr))
        return found

    def resolved(self, call: tuple[str, str, str]) -> set[tuple[str, str]]:
        """The functions that a call may lead to."""
        what, origin, name = call
        if what == "method":
            return self.methods.get(name, set())
        room = origin.removeprefix("phasescope").lstrip("./").replace(".", "/")
        own = {k for k in self.defined.get(name, set()) if k[0] == room}
        return own or {k for k in self.defined.get(name, set()) if k[0].startswith(room + "/")}

    def names(self, key) -> set[str]:
        """What a function calls, by name."""
        return {name for _, _, name in self.calls[key]}

    def writer_from(self, key) -> list | None:
        """The way from a function to one that writes weights, or None."""
        ways = [[key]]
        seen = {key}
        while ways:
            way = ways.pop()
            if way[-1] in WRITERS or self.names(way[-1]) & WRITING:
                return way
            for call in self.calls[way[-1]]:
                for following in self.resolved(call) - seen - GUARDED:
                    seen.add(following)
                    ways.append([*way, following])
        return None


def test_nothing_that_edits_leads_to_a_writer_of_weights():
    """If it failed, weights could reach the disk while an edit holds."""
    graph = Graph()
    editing = [key for key in graph.calls if graph.names(key) & EDITING]
    assert ("intervene/measuring", "generate") in editing and len(editing) > 10
    assert set(graph.calls) >= WRITERS
    for writes in (("checkpoint/quantize", "quantize"), ("train/organism", "train")):
        assert graph.writer_from(writes), f"{writes} is not seen to write"
    for key in set(editing) - {CONVERTED}:
        way = graph.writer_from(key)
        assert way is None, " leads to ".join(f"{m}.{n}" for m, n in way)


def test_the_guarded_writers_are_called_in_one_place_within_a_passing_folder():
    """If it failed, another way to disk would have opened beside the guarded one."""
    graph = Graph()
    names = {name for _, name in GUARDED}
    assert set(graph.calls) >= GUARDED
    assert {key for key in graph.calls if graph.names(key) & names} == {CONVERTED}
    assert all("_refuse" in graph.names(key) for key in GUARDED)
    whole = {f"{module}.{node.name}": node for module, node in _functions()}[".".join(CONVERTED)]
    blocks = [n for n in ast.walk(whole) if isinstance(n, ast.With)]
    (block,) = (n for n in blocks if "passing_folder" in _calls(n))
    written = names | {"convert", "quantize"}
    assert _calls(block) >= written
    outside = ast.Module([n for n in whole.body if n is not block], [])
    assert not _calls(outside) & written


def _calls(node) -> set[str]:
    """What is called in a piece of source, by name."""
    functions = [n.func for n in ast.walk(node) if isinstance(n, ast.Call)]
    return {getattr(f, "attr", getattr(f, "id", "")) for f in functions}
