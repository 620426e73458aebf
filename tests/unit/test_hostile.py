"""Whatever a sheet, configuration, prompt table, recipe or table holds, nothing runs, nothing
leaves its folder, and the fault is one line. Headers of weights, replies of judges and the report's
page have their own such tests (test_headers, test_graders, test_report)."""

import contextlib
import json
import re
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phasescope import cli
from phasescope.errors import Damaged, PhasescopeError
from phasescope.matrix import read_sheet, validated_config
from phasescope.matrix.sheet import RESERVED
from phasescope.model import load_model
from phasescope.probe import Activations, load_activations, save_activations
from phasescope.prompts import read_prompts
from phasescope.tables import frame_of, read_provenance, read_table, write_table
from phasescope.tables.scratch import load_scratch
from phasescope.thresholds import read_thresholds
from phasescope.train.recipe_file import load

SHEET = Path("resources/organisms/organisms.tsv")
PROMPTS = Path("resources/prompts/world-a.tsv")
RECIPE = Path("resources/organisms/recipes/circuit.yaml")
CONFIG = {"study": "s", "sheet": "models.tsv"}
LONG = "x" * 10**6
# levels of a list of aliases: as text it is small, spelled out it has 10 ** 9 values
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)
ENDLESS = "skip: &a [*a]\n"
TAGS = (
    "skip: !!python/object/apply:os.system ['touch pwned']\n",
    "skip: !!python/name:os.system\n",
    "skip: !!python/object/new:subprocess.Popen [['touch', 'pwned']]\n",
    "skip: !include /etc/passwd\n",
)


BROKEN = ("[" * 10**4, "a: 2001-99-99", "\x00", "9" * 5000, "? [a]\n: b", b"\xed\xa0\x80")


def refused(read, path) -> str:
    """The one line with which a file is refused: printable, and of bounded length."""
    with pytest.raises(PhasescopeError) as caught:
        read(path)
    line = str(caught.value)
    assert line.isprintable() and len(line) < len(str(path)) + 1500, line[:3000]
    return line


def exchanged(table: Path, tmp_path: Path, column: str, value: str) -> Path:
    """A copy of a table with one value of its first row exchanged."""
    header, first, *rest = table.read_text().splitlines()
    cells = first.split("\t")
    cells[header.split("\t").index(column)] = value
    path = tmp_path / table.name
    path.write_text("\n".join([header, "\t".join(cells), *rest]) + "\n")
    return path


in_sheet, in_prompts = partial(exchanged, SHEET), partial(exchanged, PROMPTS)


IDS = (
    *("../../etc", "/etc/passwd", "..", ".", ".hidden", "a/b", "a\\b", "C:", "a b", "-rf"),
    *("$(touch pwned)", "`id`", "a;id", "a|id", "a&&id", "a>b", "'a'", '"a"', "{model}", "*", "~"),
    *("cіrcuit", "ｃircuit", "a\u202eb", "a\u200bb", "é", "a\x00b", "a\x1b[2J", "=1+1", "@a", LONG),
    *("all", "Probe", "collect", "prompts", "organisms", "quantize_circuit"),
)


@pytest.mark.parametrize("name", IDS)
def test_an_id_is_a_plain_name(tmp_path, name):
    """If it failed, a row could write outside its folder, pass for another, or reach a shell."""
    refused(read_sheet, in_sheet(tmp_path, "id", name))


@pytest.mark.parametrize(
    "name", ("Qwеn/x", "../x", "/x/y", "a/../b", "a/b/c", "a/b\u00a0", "a/é", LONG)
)
@pytest.mark.parametrize("column", ("huggingface_id", "quantized_4"))
def test_a_hub_id_is_ascii_and_has_an_owner(tmp_path, column, name):
    """If it failed, a look-alike of a known developer's model could be fetched in its place."""
    header, *rows = SHEET.read_text().splitlines()
    names = header.split("\t")
    cells = dict(zip(names, rows[0].split("\t"), strict=True)) | {column: name}
    if column == "huggingface_id":
        cells["folder"] = ""
    path = tmp_path / "sheet.tsv"
    path.write_text("\t".join(cells) + "\n" + "\t".join(cells.values()) + "\n")
    assert f"column '{column}'" in refused(read_sheet, path)


@pytest.mark.parametrize("folder", ("x" * 300, f"a/{LONG}", "a\x00b", "a/{model}/b"))
def test_a_folder_that_cannot_be_is_refused(tmp_path, folder):
    """If it failed, a path that no file system takes would end in a traceback."""
    refused(read_sheet, in_sheet(tmp_path, "folder", folder))


def test_the_names_that_the_workflow_uses_are_reserved():
    """If it failed, a model could be called as a rule is, and another thing would be made."""
    rules = "".join(p.read_text() for p in [Path("Snakefile"), *Path("workflow/rules").glob("*")])
    found = set(re.findall(r"^\s*rule (\w+):", rules, re.M))
    folders = set(re.findall(r"\{RESULTS\}/(\w+)/", rules))
    assert found | folders <= RESERVED


@pytest.mark.parametrize("cell", ("=cmd|' /C calc'!A0", "@SUM(1)", "+1", "-1", "<script>", LONG))
def test_notes_stay_notes(tmp_path, cell):
    """If it failed, a formula or an enormous note would change what a sheet says."""
    assert read_sheet(in_sheet(tmp_path, "notes", cell))[0].notes == cell


@pytest.mark.parametrize(
    "study", ("demo\n", "../x", "/x", "a/b", "dеmo", "x" * 99, "", "{x}", "$(id)")
)
def test_a_study_is_a_plain_name(study):
    """If it failed, results could be written outside of results/."""
    refused(lambda _: validated_config(CONFIG | {"study": study}, ["c.yaml"]), "c.yaml")


def test_an_endpoint_is_a_plain_name():
    """If it failed, its log could be written outside of its folder."""
    for name in ("../x", "a/b", "x\n", "é", "."):
        entry = {"id": name, "model": "mlx", "folder": "x"}
        refused(lambda _, e=entry: validated_config(CONFIG | {"endpoints": [e]}, ["c"]), "c")


READERS = {"configuration": cli._configuration, "recipe": load, "thresholds": read_thresholds}


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    "content",
    [
        *TAGS,
        BOMB,
        ENDLESS,
        "[" * 10**5,
        "a: 2001-99-99",
        "\x00",
        "9" * 5000,
        "? [a]\n: b",
        "\ud800".encode("utf-8", "surrogatepass"),
    ],
)
def test_yaml_is_data_and_has_an_end(tmp_path, monkeypatch, read, content):
    """If it failed, a file that is shared could run a program, or fill the memory."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "file.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(READERS[read], path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file.yaml"]


@pytest.mark.parametrize("content", [BOMB, ENDLESS])
def test_a_bomb_that_snakemake_has_read_is_defused(content):
    """If it failed, checking would walk through all that the aliases stand for."""
    found = CONFIG | {"skip": list(yaml.safe_load(content).values())[-1]}
    assert "levels" in refused(lambda _: validated_config(found, ["c.yaml"]), "c.yaml")


def test_prompts_are_text_whatever_they_say(tmp_path):
    """If it failed, a prompt could be changed on its way to the model."""
    for text in ("<script>alert(1)</script>", "=HYPERLINK(1)", "{{7*7}} $(id) `id`", LONG):
        table = read_prompts(in_prompts(tmp_path, "text", text))
        assert table.frame["text"].iloc[0] == text


@pytest.mark.parametrize("text", ("a\x00b", "\x1b[2J", "a\x07"))
def test_control_characters_are_no_prompt(tmp_path, text):
    """If it failed, a prompt could cut strings short, or write to the console."""
    line = refused(read_prompts, in_prompts(tmp_path, "text", text))
    assert "row 2" in line and "control characters" in line


@pytest.mark.parametrize("read", (read_sheet, read_prompts, load, read_thresholds))
def test_what_is_no_file_is_refused(tmp_path, read):
    """If it failed, a device or a folder would block a run for good, or end it in a traceback."""
    for path in (tmp_path, Path("/dev/zero"), tmp_path / "x", tmp_path / ("x" * 300), "a\x00b"):
        refused(read, path)


FUZZ = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SCRAP = st.one_of(
    st.text(max_size=12),
    st.sampled_from(("\t", "\n", "\r", "\x00", "'", "nan", "1e999", "1_0", "../x", "-1", "{x}")),
)


@st.composite
def spoiled(draw, content: str):
    """A sound file with pieces exchanged for scraps, or its bytes cut off or changed."""
    for _ in range(draw(st.integers(1, 3))):
        begin = draw(st.integers(0, len(content)))
        content = content[:begin] + draw(SCRAP) + content[begin + draw(st.integers(0, 12)) :]
    data = content.encode(errors="surrogatepass")
    if draw(st.booleans()):
        at = draw(st.integers(0, len(data) - 1))
        data = data[:at] + bytes([draw(st.integers(0, 255))]) + data[at + 1 :]
    return data


def sound_or_refused(read, path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        read(path)
    except PhasescopeError as error:
        assert str(error).isprintable() and len(str(error)) < len(str(path)) + 1500


def few_lines(path: Path, count: int) -> str:
    return "\n".join(path.read_text().splitlines()[:count]) + "\n"


@FUZZ
@given(spoiled(few_lines(SHEET, 4)))
def test_any_sheet_is_read_or_refused(tmp_path, content):
    """If it failed, a damaged or hostile sheet would end in a traceback."""
    sound_or_refused(read_sheet, tmp_path / "sheet.tsv", content)


@FUZZ
@given(spoiled(few_lines(PROMPTS, 9)))
def test_any_prompt_table_is_read_or_refused(tmp_path, content):
    """If it failed, a damaged or hostile prompt table would end in a traceback."""
    read = lambda path: read_prompts(path, paired=False)  # noqa: E731
    sound_or_refused(read, tmp_path / "prompts.tsv", content)


@FUZZ
@given(spoiled(RECIPE.read_text()))
def test_any_recipe_is_read_or_refused(tmp_path, content):
    """If it failed, a damaged or hostile recipe would end in a traceback."""
    sound_or_refused(load, tmp_path / "recipe.yaml", content)


@FUZZ
@given(spoiled(Path("config/demo.yaml").read_text()))
def test_any_configuration_is_read_or_refused(tmp_path, content):
    """If it failed, a damaged or hostile configuration would end in a traceback."""

    def read(path):
        validated_config(cli._configuration(path), [str(path)])

    sound_or_refused(read, tmp_path / "config.yaml", content)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | SCRAP,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCRAP, inner, max_size=3),
    max_leaves=8,
)
KEYS = ("study", "models", "precisions", "skip", "prompt_tables", "judge", "endpoints", "memory_gb")


@FUZZ
@given(st.dictionaries(st.sampled_from(KEYS) | SCRAP | st.integers(), VALUES, max_size=4))
def test_any_value_of_a_configuration_is_taken_or_refused(config):
    """If it failed, a value of another type than was thought of would end in a traceback."""
    try:
        validated_config(CONFIG | config, ["c.yaml"])
    except PhasescopeError as error:
        assert str(error).isprintable() and len(str(error)) < 1500


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A sound table as bytes."""
    path = tmp_path_factory.mktemp("table") / "cells.parquet"
    row = {"model": "a", "precision": "16", "architecture": "dense-hybrid", "developer": "b",
           "parameters_total_billion": 1.0, "parameters_active_billion": 1.0, "status": "run",
           "memory_needed_bytes": 1.0, "memory_usable_bytes": 2.0}  # fmt: skip
    write_table(path, frame_of("cells", [row] * 50), "cells", {"seed": "0"})
    return path.read_bytes()


@FUZZ
@given(at=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255), cut=st.booleans())
def test_a_damaged_table_is_found(tmp_path, table, at, flip, cut):
    """If it failed, a decaying disk would change a number, or end in a traceback."""
    place = int(at * len(table))
    changed = (
        table[:place] if cut else table[:place] + bytes([table[place] ^ flip]) + table[place + 1 :]
    )
    path = tmp_path / "cells.parquet"
    path.write_bytes(table)
    sound = read_table(path)
    path.write_bytes(changed)
    try:
        read_provenance(path)
        found = read_table(path)
    except Damaged as error:
        assert str(error).startswith(str(path)) and error.path == path
    else:
        assert found.equals(sound)  # the name of the hash itself was hit


def test_a_damaged_file_of_a_cell_is_found(tmp_path):
    """If it failed, half a file that a job left would be measured with, or end in a traceback."""
    path = tmp_path / "activations.npz"
    zeros = np.zeros((2, 3, 4, 5), np.float32)
    save_activations(path, Activations(("last_prompt",), zeros, zeros[..., 0, 0] == 0))
    whole = path.read_bytes()
    for content in (b"", whole[:-30], whole[:400] + bytes([whole[400] ^ 1]) + whole[401:]):
        path.write_bytes(content)
        with pytest.raises(Damaged):
            load_activations(path)
    for content in ("", "[1]", '{"a": 1', "\x00"):
        path.write_text(content)
        with pytest.raises(Damaged):
            load_scratch(path)


def test_code_in_a_checkpoint_never_runs(dense, tmp_path):
    """If it failed, loading a stranger's model would run the stranger's program."""
    folder = tmp_path / "model"
    shutil.copytree(dense, folder)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'pwned')!r}, 'w')\nclass Evil: pass\n")
    for name, kind in (("config.json", "AutoConfig"), ("tokenizer_config.json", "AutoTokenizer")):
        found = json.loads((folder / name).read_text())
        code = ["evil.Evil", "evil.Evil"] if kind == "AutoTokenizer" else "evil.Evil"
        (folder / name).write_text(json.dumps(found | {"auto_map": {kind: code}}))
    with contextlib.suppress(PhasescopeError):
        load_model(folder)
    assert not (tmp_path / "pwned").exists()
