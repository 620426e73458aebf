"""JSON schemas of configuration and sheets, and messages that a person understands."""

import difflib
import json
import re
from pathlib import Path

import jsonschema

from phasescope.errors import PhasescopeError, shown
from phasescope.tables.reading import check_bounds

SCHEMAS = Path(__file__).parents[2] / "schemas"


def _pattern(validator, pattern, instance, schema):
    """As JSON Schema means it: `$` is the end, not a last line end, and `\\w` is ASCII, so that no
    letter that looks like another is in a name."""
    whole = re.sub(r"\$\Z", r"\\Z", pattern)
    if isinstance(instance, str) and not re.search(whole, instance, re.ASCII):
        yield jsonschema.ValidationError(f"{instance!r} does not match {pattern!r}")


# JSON Schema calls 16.0 an integer; as a count or a precision it would fail later
_VALIDATOR = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    {"pattern": _pattern},
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    ),
)


def load_schema(name: str) -> dict:
    """One of workflow/schemas/<name>.schema.json."""
    return json.loads((SCHEMAS / f"{name}.schema.json").read_text())


def unknown(found: str, allowed, kind: str) -> str:
    """One line about a name that is not among the allowed ones, with the nearest of them."""
    near = difflib.get_close_matches(found, list(allowed), n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"unknown {kind} {shown(found)}{hint}; allowed: {', '.join(allowed)}"


def _rule(schema: dict) -> str:
    """What a property's schema allows, in words."""
    if "enum" in schema:
        return ", ".join(str(v) for v in schema["enum"])
    words = {
        "type": "",
        "pattern": "pattern ",
        "minimum": "at least ",
        "maximum": "at most ",
        "exclusiveMinimum": "more than ",
        "minLength": "characters, at least ",
        "minItems": "entries, at least ",
        "uniqueItems": "no entry twice: ",
    }
    parts = [f"{words[k]}{v}" for k, v in schema.items() if k in words]
    return (
        f"{', '.join(parts)} ({schema['description']})"
        if "description" in schema
        else ", ".join(parts)
    )


def explain(error: jsonschema.ValidationError, kind: str) -> str:
    """One clear line of a schema violation; `kind` is 'key' or 'column'."""
    name = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error.absolute_path)
    name = name.removeprefix(".")
    if error.validator == "additionalProperties":
        allowed = error.schema["properties"]
        return unknown(sorted(map(str, set(error.instance) - set(allowed)))[0], allowed, kind)
    if error.validator == "required":
        missing = next(k for k in error.validator_value if k not in error.instance)
        rule = _rule(error.schema["properties"][missing])
        return f"{kind} {missing!r}: empty or missing; allowed: {rule}"
    return f"{kind} {name!r}: found {shown(error.instance)}; allowed: {_rule(error.schema)}"


def first_error(value, schema: dict) -> jsonschema.ValidationError | None:
    """The violation that speaks most to the point, or none."""
    errors = _VALIDATOR(schema).iter_errors(value)
    return min(
        errors,
        key=lambda e: (e.validator == "required", list(map(str, e.absolute_path))),
        default=None,
    )


def validated_config(config: dict, files: list[str]) -> dict:
    """The configuration with defaults filled in, its keys in one order: Snakemake compares params
    as text, and the copy in a study's results is sorted.

    `files` are the configuration files it was merged from, for the message. Raises
    PhasescopeError with the file, the key, what was found and what is allowed.
    """
    schema = load_schema("config")
    check_bounds(config, " + ".join(files))
    if error := first_error(config, schema):
        raise PhasescopeError(f"{' + '.join(files)}: {explain(error, 'key')}")
    defaults = {k: v["default"] for k, v in schema["properties"].items() if "default" in v}
    return json.loads(json.dumps(defaults | config, sort_keys=True))
