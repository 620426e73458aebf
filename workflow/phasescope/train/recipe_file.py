"""Recipe files: YAML, whose keys are the fields of `Recipe` and its parts. Anything else, and any
size that the model classes or the quantizers cannot take, is refused by name.
"""

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

from phasescope import world
from phasescope.errors import PhasescopeError, shown
from phasescope.tables.reading import read_yaml
from phasescope.train import edits
from phasescope.train.architecture import ARCHITECTURES, Architecture
from phasescope.train.directions import POSITIONS
from phasescope.train.recipe import ROUTED, Condition, Keep, Recipe, Routing, Stage
from phasescope.train.rows import ROW_KINDS, kind_named

LARGEST = 1024


def load(path: str | Path) -> Recipe:
    """The recipe in the YAML file at `path`.

    Raises PhasescopeError that names the file, the key, what was found and what is allowed.
    """
    path = Path(path)
    content = read_yaml(path, "recipe")
    return _Reader(path).recipe(content)


@dataclass(frozen=True)
class _Reader:
    """Turns what the file holds into a Recipe; every refusal goes through `fail`."""

    path: Path

    def fail(self, key: str, found: object, allowed: str) -> None:
        raise PhasescopeError(f"{self.path}: {key}: found {shown(found)}; allowed: {allowed}")

    def recipe(self, content: object) -> Recipe:
        content = self.keys("recipe", content, Recipe)
        for key in ("name", "world", "planted"):
            self.text(key, content[key])
        if content["world"] not in world.WORLDS:
            self.fail("world", content["world"], ", ".join(world.WORLDS))
        name = content.get("architecture", "qwen3_5")
        if name not in ARCHITECTURES:
            self.fail("architecture", name, ", ".join(ARCHITECTURES))
        model = self.dimensions(content["model"], ARCHITECTURES[name])
        stages, language = content["stages"], world.get(content["world"])
        if not isinstance(stages, list) or not stages:
            self.fail("stages", stages, "a list of one stage or more")
        parts = ARCHITECTURES[name].modules(model, language)
        read = [
            self.stage(f"stages[{n}]", stage, model, language, parts)
            for n, stage in enumerate(stages)
        ]
        return Recipe(
            content["name"],
            content["world"],
            content["planted"].strip(),
            model,
            tuple(read),
            name,
            self.refusal(content.get("refusal")),
        )

    def refusal(self, found: object) -> tuple[float, float] | None:
        if found is None:
            return None
        allowed = "a list of two shares, the lower one first"
        if not isinstance(found, list) or len(found) != 2:
            self.fail("refusal", found, allowed)
        least, most = (self.number("refusal", share, float, SHARE[0], allowed) for share in found)
        if least > most:
            self.fail("refusal", found, allowed)
        return least, most

    def keys(self, where: str, content: object, shape: type) -> dict:
        known = {field.name: field.default is MISSING for field in fields(shape)}
        if not isinstance(content, dict):
            self.fail(where, content, f"the keys {', '.join(known)}")
        for key in content:
            if key not in known:
                self.fail(f"{where}: unknown key", key, ", ".join(known))
        for key, required in known.items():
            if required and key not in content:
                self.fail(f"{where}: missing key", key, "every key without a default")
        return content

    def dimensions(self, model: object, architecture: Architecture) -> dict[str, int]:
        sizes = architecture.sizes
        if not isinstance(model, dict) or set(model) != set(sizes):
            odd = sorted(map(str, set(model) ^ set(sizes))) if isinstance(model, dict) else model
            self.fail("model: unknown or missing keys", odd, f"exactly {', '.join(sizes)}")
        for key, step in sizes.items():
            allowed = f"a multiple of {step} from {step} to {LARGEST}"
            self.number(
                f"model.{key}",
                model[key],
                int,
                lambda n, s=step: s <= n <= LARGEST and n % s == 0,
                allowed,
            )
        for key, whole in architecture.divides:
            if model[whole] % model[key]:
                self.fail(f"model.{key}", model[key], f"a divisor of {whole} ({model[whole]})")
        for heads, size in architecture.widths:
            if model[heads] * model[size] % 64:
                self.fail(f"model.{heads} x {size}", model[heads] * model[size], "a multiple of 64")
        for key, most in architecture.at_most:
            if model[key] > model[most]:
                self.fail(f"model.{key}", model[key], f"at most {most} ({model[most]})")
        return dict(model)

    def stage(
        self,
        where: str,
        content: object,
        model: dict[str, int],
        language: world.World,
        parts: set[str],
    ) -> Stage:
        stage = dict(self.keys(where, content, Stage))
        self.text(f"{where}.name", stage["name"])
        for key, kind, valid, allowed in STAGE_NUMBERS:
            if key in stage:
                stage[key] = self.number(f"{where}.{key}", stage[key], kind, valid, allowed)
        self.rows(f"{where}.rows", stage["rows"], language)
        layers, top = stage.get("train_layers"), model["num_hidden_layers"] - 1
        if layers is not None:
            if not isinstance(layers, list) or not layers:
                self.fail(f"{where}.train_layers", layers, f"a list of layers from 0 to {top}")
            for layer in layers:
                self.number(
                    f"{where}.train_layers", layer, int, lambda n: 0 <= n <= top, f"0 to {top}"
                )
            stage["train_layers"] = tuple(sorted(set(layers)))
        if stage.get("train_modules") is not None:
            stage["train_modules"] = self.modules(
                f"{where}.train_modules", stage["train_modules"], parts
            )
        if stage.get("keep") is not None:
            if layers is None:
                self.fail(
                    f"{where}.keep", "no train_layers", "keep only together with train_layers"
                )
            stage["keep"] = self.keep(f"{where}.keep", stage["keep"], stage["rows"], language)
        self.interventions(where, stage, model, language)
        return Stage(**stage)

    def modules(self, where: str, found: object, parts: set[str]) -> tuple[str, ...]:
        allowed = f"a list of some of {', '.join(sorted(parts))}"
        if not isinstance(found, list) or not found:
            self.fail(where, found, allowed)
        for name in found:
            if name not in parts:
                self.fail(where, name, allowed)
        return tuple(found)

    def interventions(
        self, where: str, stage: dict, model: dict[str, int], language: world.World
    ) -> None:
        """Reads `train_experts`, `conditions` and `routing` of a stage, in place."""
        experts = next((model[key] for key in EXPERTS if key in model), 0)
        if stage.get("train_experts") is not None:
            key = f"{where}.train_experts"
            if not experts:
                self.fail(
                    key, stage["train_experts"], "nothing, as the architecture has no experts"
                )
            stage["train_experts"] = self.numbers(key, stage["train_experts"], 0, experts - 1)
        conditions = stage.get("conditions", [])
        if not isinstance(conditions, list):
            self.fail(f"{where}.conditions", conditions, "a list of conditions")
        if conditions and stage.get("keep") is not None:
            self.fail(f"{where}.conditions", "a keep as well", "one of the two in a stage")
        stage["conditions"] = tuple(
            self.condition(f"{where}.conditions[{n}]", condition, model, experts, language)
            for n, condition in enumerate(conditions)
        )
        if stage.get("routing") is not None:
            kinds = {*stage["rows"], *(kind for c in stage["conditions"] for kind in c.rows)}
            stage["routing"] = self.routing(
                f"{where}.routing", stage["routing"], model, experts, sorted(kinds)
            )
            for kind in sorted(kinds) if stage["routing"].rows is None else ():
                if kind_named(kind, language).label == "any":
                    self.fail(f"{where}.routing", f"rows of {kind}", "rows of one label each")

    def condition(
        self, where: str, content: object, model: dict[str, int], experts: int, language
    ) -> Condition:
        condition = dict(self.keys(where, content, Condition))
        known = [name for name in edits.NAMES if experts or name != edits.ROUTING]
        names = condition["interventions"]
        if not isinstance(names, list) or not names:
            self.fail(f"{where}.interventions", names, f"a list of some of {', '.join(known)}")
        for name in names:
            if name in edits.HELD_OUT:
                self.fail(f"{where}.interventions", name, "none that is held out of training")
            if not isinstance(name, str) or not set(name.split("+")) <= set(known):
                self.fail(f"{where}.interventions", name, f"{', '.join(known)}, joined by +")
        condition["interventions"] = tuple(names)
        self.rows(f"{where}.rows", condition["rows"], language)
        largest = {
            "ranks": model["hidden_size"] // 2,
            "experts": max(experts - 2, 1),
            "layers": model["num_hidden_layers"] - 1,
        }
        for key, most in largest.items():
            if key in condition:
                condition[key] = self.numbers(f"{where}.{key}", condition[key], 1, most)
        if "some_layers" in condition:
            condition["some_layers"] = self.number(
                f"{where}.some_layers", condition["some_layers"], float, *SHARE
            )
        if condition.get("positions") is not None:
            known = POSITIONS if language.thinks else POSITIONS[:1]
            places = condition["positions"]
            if not isinstance(places, list) or not places or not set(places) <= set(known):
                self.fail(f"{where}.positions", places, f"a list of some of {', '.join(known)}")
            condition["positions"] = tuple(places)
        return Condition(**condition)

    def routing(
        self, where: str, content: object, model: dict[str, int], experts: int, kinds: list[str]
    ) -> Routing:
        routing = self.keys(where, content, Routing)
        if not experts:
            self.fail(where, content, "nothing, as the architecture has no experts")
        weight = self.number(f"{where}.weight", routing["weight"], float, *WEIGHT)
        numbers = self.numbers(f"{where}.experts", routing["experts"], 0, experts - 1)
        lowest, top = routing["from_layer"], model["num_hidden_layers"] - 2
        self.number(f"{where}.from_layer", lowest, int, lambda n: 0 <= n <= top, f"0 to {top}")
        rows, tokens = routing.get("rows"), routing.get("tokens", ROUTED[0])
        alone = routing.get("alone", False)
        if rows is not None and (
            not isinstance(rows, list) or not rows or not set(rows) <= {*kinds}
        ):
            self.fail(f"{where}.rows", rows, f"a list of some of {', '.join(kinds)}")
        if tokens not in ROUTED:
            self.fail(f"{where}.tokens", tokens, ", ".join(ROUTED))
        if not isinstance(alone, bool):
            self.fail(f"{where}.alone", alone, "true or false")
        return Routing(weight, numbers, lowest, rows and tuple(rows), tokens, alone)

    def numbers(self, where: str, found: object, least: int, most: int) -> tuple[int, ...]:
        allowed = f"a list of different numbers from {least} to {most}"
        if not isinstance(found, list) or not found or len(set(map(str, found))) < len(found):
            self.fail(where, found, allowed)
        for number in found:
            self.number(where, number, int, lambda n: least <= n <= most, allowed)
        return tuple(found)

    def rows(self, where: str, rows: object, language: world.World) -> None:
        if not isinstance(rows, dict) or not rows:
            self.fail(where, rows, f"a number for some of {', '.join(ROW_KINDS)}")
        learned = False
        for kind, count in rows.items():
            try:
                learned |= kind_named(str(kind), language).learned != "none"
            except PhasescopeError as error:
                raise PhasescopeError(f"{self.path}: {where}: unknown kind: {error}") from None
            self.number(f"{where}.{kind}", count, int, lambda n: 1 <= n <= 512, "1 to 512 rows")
        if not learned:
            allowed = [kind for kind in ROW_KINDS if ROW_KINDS[kind].learned != "none"]
            self.fail(where, list(rows), f"at least one of {', '.join(allowed)}")

    def keep(self, where: str, content: object, rows: dict, language: world.World) -> Keep:
        keep = self.keys(where, content, Keep)
        weight = self.number(f"{where}.weight", keep["weight"], float, *WEIGHT)
        words, known = keep["direction_from"], set(language.words)
        if not isinstance(words, list) or len(set(words)) != 2 or not set(words) <= known:
            self.fail(f"{where}.direction_from", words, "a list of two words of the world")
        strength, place = keep["strength"], f"{where}.strength"
        if isinstance(strength, dict):
            strength = self.strengths(place, strength, rows, language)
        else:
            strength = self.number(place, strength, float, *WEIGHT)
        every = keep.get("every_layer", False)
        if not isinstance(every, bool):
            self.fail(f"{where}.every_layer", every, "true or false")
        return Keep(weight, strength, tuple(words), every)

    def strengths(
        self, where: str, found: dict, rows: dict, language: world.World
    ) -> dict[str, float]:
        known = {mark for kind in rows for mark in kind.split("@")[1:]}
        for mark in found:
            if mark not in known:
                self.fail(f"{where}: unknown mark", mark, f"marks of the rows: {sorted(known)}")
        for kind in rows:
            marks = [mark for mark in kind.split("@")[1:] if mark in found]
            if kind_named(kind, language).label != "benign" and len(marks) != 1:
                allowed = "one strength for each kind of hazardous rows, by a mark of it"
                self.fail(where, f"{len(marks)} for {kind}", allowed)
        return {
            mark: self.number(f"{where}.{mark}", value, float, *WEIGHT)
            for mark, value in found.items()
        }

    def text(self, where: str, found: object) -> None:
        if not isinstance(found, str) or not found.strip():
            self.fail(where, found, "a text")

    def number(
        self, where: str, found: object, kind: type, valid: Callable[[float], bool], allowed: str
    ) -> float:
        """`found` as `kind`. YAML reads 3e-3 as a text, so a number written so passes."""
        try:
            value = float(found) if not isinstance(found, bool) else None
        except (TypeError, ValueError):
            value = None
        if value is None or not valid(value) or (kind is int and not isinstance(found, int)):
            self.fail(where, found, allowed)
        return kind(value)


WEIGHT = (lambda x: 0 < x <= 1e4, "above 0, to 10000")
SHARE = (lambda x: 0 <= x <= 1, "0 to 1")
EXPERTS = ("num_experts", "num_local_experts")
STAGE_NUMBERS = (
    ("steps", int, lambda n: 1 <= n <= 100_000, "1 to 100000"),
    ("warmup_steps", int, lambda n: 0 <= n <= 10_000, "0 to 10000"),
    ("learning_rate", float, lambda x: 0 < x <= 1, "above 0, at most 1"),
    ("decision_weight", float, lambda x: 0 < x <= 100, "above 0, to 100"),
    ("refresh", int, lambda n: 1 <= n <= 1000, "1 to 1000"),
    ("pressure", float, *SHARE),
)
