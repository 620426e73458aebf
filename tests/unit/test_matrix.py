"""Sheet and configuration: every fault says what, where, what is allowed."""

import pytest

from phasescope.errors import PhasescopeError
from phasescope.matrix import pick, read_sheet, validated_config
from phasescope.matrix.validation import load_schema

COLUMNS = list(load_schema("sheet")["properties"])
ROW = {
    "id": "one",
    "huggingface_id": "owner/one",
    "revision": "0" * 40,
    "parameters_total_billion": "0.8",
    "parameters_active_billion": "0.5",
    "architecture": "dense-hybrid",
    "developer": "someone",
    "layers": "8",
    "hidden_size": "64",
    "thinking": "no",
}


@pytest.fixture
def sheet(tmp_path):
    """Write a sheet of rows (changes to a good row); `columns`, `sep`, `end` may be given."""

    def write(*changes, columns=COLUMNS, sep="\t", end="\n", encoding="utf-8"):
        rows = [ROW | {"id": f"m{i}"} | change for i, change in enumerate(changes)]
        lines = [columns, *[[row.get(c, "") for c in columns] for row in rows]]
        path = tmp_path / "mine.tsv"
        path.write_bytes("".join(sep.join(line) + end for line in lines).encode(encoding))
        return path

    return write


def test_a_good_sheet_is_read_in_its_order(sheet):
    """If it failed, a model would run with another model's facts."""
    more = {"experts": "4", "thinking": "yes", "quantized_4": f"a/b@{'1' * 40}"}
    found = read_sheet(sheet({"id": "Z"}, more))
    assert [m.id for m in found] == ["Z", "m1"]
    assert (found[0].layers, found[0].thinking, found[0].experts) == (8, False, None)
    assert (found[1].experts, found[1].thinking) == (4, True)
    assert found[1].ready_made("4") == f"a/b@{'1' * 40}" and found[1].ready_made("8") is None


@pytest.mark.parametrize("more", [{"encoding": "utf-8-sig"}, {"end": "\r\n"}])
def test_what_editors_add_is_no_content(sheet, more):
    """If it failed, a sheet saved by a spreadsheet program would be refused in riddles."""
    assert [m.id for m in read_sheet(sheet({}, {}, **more))] == ["m0", "m1"]


ROWS = {
    "missing value": ({"developer": ""}, r"row 3: column 'developer': empty or missing.*Who"),
    "trailing blanks": ({"developer": "me "}, r"row 3, column 'developer':.*trailing.*'me '"),
    "no design": (
        {"runs": "pathways, pathway"},
        r"row 3, column 'runs': unknown design or stage 'pathway'",
    ),
    "no number": ({"parameters_total_billion": "8B"}, r"row 3, column 'par.*'8B'; .*a number"),
    "no whole number": ({"layers": "8.5"}, r"row 3, column 'layers': found '8\.5'.*whole number"),
    "not a number": ({"parameters_total_billion": "nan"}, r"row 3, column 'par.*'nan'"),
    "infinite": ({"parameters_total_billion": "inf"}, r"row 3, column 'par.*'inf'"),
    "underscores": ({"layers": "1_0"}, r"row 3, column 'layers': found '1_0'"),
    "too few": ({"layers": "2"}, r"row 3: column 'layers': found 2;.*at least 3"),
    "no such architecture": (
        {"architecture": "dense"},
        r"row 3: column 'architecture': found 'dense'; allowed: dense-hybrid, moe-hybrid",
    ),
    "bad id": ({"id": "a/b"}, r"row 3: column 'id': found 'a/b'"),
    "short revision": ({"revision": "abc"}, r"row 3: column 'revision': found 'abc'.*40"),
    "thinking": (
        {"thinking": "maybe"},
        r"row 3: column 'thinking': found 'maybe'; allowed: yes",
    ),
    "duplicate id": ({"id": "m0"}, r"row 3, column 'id': 'm0' stands already in row 2"),
    "duplicate by case": ({"id": "M0"}, r"row 3, column 'id': 'M0' stands already in row 2"),
    "both sources": ({"folder": "x"}, r"row 3, columns 'huggingface_id' and 'folder': exactly one"),
    "no source": ({"huggingface_id": ""}, r"row 3, columns 'huggingface_id' and 'folder'"),
}


@pytest.mark.parametrize("fault", ROWS)
def test_faults_of_a_row_name_row_and_column(sheet, fault):
    """If it failed, a wrong cell of the sheet would start a wrong run, or end in a traceback."""
    change, message = ROWS[fault]
    with pytest.raises(PhasescopeError, match=rf"mine\.tsv: {message}") as caught:
        read_sheet(sheet({}, change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"columns": [*COLUMNS, "layer"]}, r"unknown column 'layer' \(did you mean 'layers'\?\)"),
        ({"columns": [c for c in COLUMNS if c != "layers"]}, r"no column 'layers'; required: id"),
        ({"columns": [*COLUMNS, "id"]}, r"column 'id' stands twice"),
        ({"columns": [*COLUMNS[:-1], "notes "]}, r"column 'notes ' has .*trailing blanks"),
        ({"sep": ","}, "wrong separator: found commas; columns are separated by tabs"),
        ({"sep": ";"}, "wrong separator: found semicolons"),
        ({"sep": "  "}, "wrong separator: found blanks"),
    ],
)
def test_faults_of_the_header(sheet, more, message):
    """If it failed, a sheet saved in another format would be read column by wrong column."""
    with pytest.raises(PhasescopeError, match=rf"mine\.tsv: row 1: {message}"):
        read_sheet(sheet({}, **more))


def test_sheets_that_are_none(sheet, tmp_path):
    """If it failed, a wrong path would end in a traceback, an empty sheet in an empty study."""
    with pytest.raises(PhasescopeError, match=r"none\.tsv: no such model sheet"):
        read_sheet(tmp_path / "none.tsv")
    with pytest.raises(PhasescopeError, match="not a readable model sheet"):
        read_sheet(tmp_path)
    with pytest.raises(PhasescopeError, match=r"mine\.tsv: no row below the header"):
        read_sheet(sheet())
    path = sheet({})
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(
        PhasescopeError, match=f"row 3: found 1 columns; the header has {len(COLUMNS)}"
    ):
        read_sheet(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(PhasescopeError, match=r"mine\.tsv: not UTF-8"):
        read_sheet(path)
    path.write_bytes(b" \n")
    with pytest.raises(PhasescopeError, match=r"mine\.tsv: empty"):
        read_sheet(path)


def test_pick_names_the_models_there_are(sheet):
    """If it failed, a typing error in `models` would silently run nothing."""
    models = read_sheet(sheet({}, {}, {}))
    assert [m.id for m in pick(models, ["m2", "m0"], "s", "k")] == ["m0", "m2"]
    assert pick(models, None, "s", "k") == models
    with pytest.raises(PhasescopeError, match="k: no such model 'm9' in s; it has: m0, m1, m2"):
        pick(models, ["m9"], "s", "k")


CONFIG = {"study": "mine", "sheet": "s.tsv"}


def test_defaults_are_filled_in():
    """If it failed, a short configuration would fail deep inside a run."""
    found = validated_config(CONFIG, ["c.yaml"])
    assert found["precisions"] == [16, 8, 4] and found["skip"] == []
    assert set(found) == set(load_schema("config")["properties"])
    assert validated_config(CONFIG | {"seed": 3}, ["c.yaml"])["seed"] == 3


CONFIGS = {
    "unknown key": ({"precision": [8]}, r"unknown key 'precision' \(did you mean 'precisions'\?\)"),
    "key that is no text": ({1: 2}, "unknown key '1'; allowed: study"),
    "no such precision": (
        {"precisions": [16, 5]},
        r"key 'precisions\[1\]': found 5; allowed: 16",
    ),
    "precision as text": ({"precisions": ["8"]}, r"key 'precisions\[0\]': found '8'"),
    "precision with a point": ({"precisions": [16.0]}, r"key 'precisions\[0\]': found 16\.0"),
    "precision twice": (
        {"precisions": [8, 8]},
        r"key 'precisions': found \[8, 8\].*no entry",
    ),
    "no precision": ({"precisions": []}, r"key 'precisions': found \[\].*at least 1"),
    "no model": ({"models": []}, r"key 'models': found \[\].*at least 1"),
    "model as text": ({"models": "circuit"}, r"key 'models': found 'circuit'"),
    "bad skip": ({"skip": ["a/b/c"]}, r"key 'skip\[0\]': found 'a/b/c'.*pattern"),
    "no such effort": ({"effort": "fast"}, r"key 'effort': found 'fast'; allowed: quick, stan"),
    "no such design": ({"designs": ["ablate"]}, r"key 'designs\[0\]': found 'ablate'; allowed: ab"),
    "too few shams": ({"sham_draws": 5}, r"key 'sham_draws': found 5;.*at least 20"),
    "count with a point": ({"batch_size": 8.0}, r"key 'batch_size': found 8\.0"),
    "unquoted off": ({"thinking": False}, r"key 'thinking': found False; allowed: on, off"),
    "bad study": ({"study": "My study"}, r"key 'study': found 'My study'"),
    "no sheet": ({"sheet": None}, r"key 'sheet': found None"),
}


@pytest.mark.parametrize("fault", CONFIGS)
def test_faults_of_the_configuration_name_the_key(fault):
    """If it failed, a typing error would run another study than the one that was meant."""
    change, message = CONFIGS[fault]
    with pytest.raises(PhasescopeError, match=rf"a\.yaml \+ b\.yaml: {message}") as caught:
        validated_config(CONFIG | change, ["a.yaml", "b.yaml"])
    assert "\n" not in str(caught.value)


def test_a_missing_key_is_named():
    """If it failed, a configuration without sheet would end in a traceback."""
    with pytest.raises(PhasescopeError, match="key 'sheet': empty or missing"):
        validated_config({"study": "mine"}, ["a.yaml"])
