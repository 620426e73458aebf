"""Prompt tables: what is refused, what is tolerated, and which prompts a limit takes."""

import pytest

from phasescope import world
from phasescope.errors import PhasescopeError
from phasescope.prompts import COLUMNS, read_prompts, render, rendered_hash


def _rows() -> list[dict]:
    rows = []
    for split in ("fit", "select", "evaluate"):
        for pair in ("a", "b"):
            for label in ("hazardous", "benign"):
                name = f"{split}-{pair}"
                rows.append(
                    dict.fromkeys(COLUMNS, "x")
                    | {"id": f"{name}-{label}", "label": label, "pair": name, "split": split}
                    | {"source": name, "text": f"how to {name} {label}"}
                )
    return rows


def _text(rows, columns=COLUMNS, sep="\t", end="\n") -> str:
    lines = [columns, *[[row[c] for c in columns] for row in rows]]
    return "".join(sep.join(line) + end for line in lines)


def _with(number: int, **values):
    """Change the row that stands in that line of the file."""
    return lambda rows: rows[number - 2].update(values)


FAULTS = {
    "no partner": (lambda r: r.pop(5), r"row 6, column 'pair': unmatched pair 'select-a'"),
    "three in a pair": (
        _with(4, pair="fit-a"),
        r"row 2, column 'pair': unmatched pair 'fit-a'.*one hazardous and one benign",
    ),
    "pair across splits": (_with(3, split="evaluate"), r"column 'pair': unmatched pair 'fit-a'"),
    "overlapping splits": (
        _with(7, text="how to fit-a benign"),
        r"row 3, column 'split': overlapping splits.*fit and select",
    ),
    "duplicate id": (
        _with(4, id="fit-a-benign"),
        r"row 4, column 'id': 'fit-a-benign' stands twice",
    ),
    "wrong label": (
        _with(4, label="harmful"),
        r"row 4, column 'label': found 'harmful'; allowed: hazardous, benign",
    ),
    "wrong split": (_with(4, split="test"), r"row 4, column 'split': found 'test'; allowed: fit"),
    "a source in two splits": (
        _with(2, source="select-a"),
        r"row 2, column 'source': 'select-a' stands in two splits",
    ),
    "empty text": (_with(5, text=" "), r"row 5, column 'text': empty"),
    "two languages": (_with(5, language="y"), r"column 'language': found \['x', 'y'\]; one table"),
    "a split missing": (lambda r: r.__delitem__(slice(8, 12)), r"no row of evaluate"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_name_file_row_and_column(tmp_path, fault):
    """If it failed, directions would be fitted on what they are tested on, or on no pairs."""
    change, message = FAULTS[fault]
    rows = _rows()
    change(rows)
    path = tmp_path / "mine.tsv"
    path.write_text(_text(rows))
    with pytest.raises(PhasescopeError, match=rf"mine\.tsv: {message}|mine\.tsv: .*{message}"):
        read_prompts(path)


TEXTS = {
    "column missing": (_text(_rows(), COLUMNS[:4] + COLUMNS[5:]), r"row 1:.*missing: pair"),
    "column unknown": (_text(_rows()).replace("pair\t", "match\t", 1), r"row 1: unknown.*match"),
    "column twice": (_text(_rows()).replace("family", "id", 1), r"row 1: (column 'id'|unknown)"),
    "commas": (_text(_rows(), sep=","), r"row 1:.*separated by tabs"),
    "a field too many": (
        _text(_rows()).replace("\n", "\t\n").replace("\t\n", "\n", 1),
        "row 2: found 11",
    ),
    "a field too few": (_text(_rows()).replace("how to fit-b benign\tx", "x"), "row 5: found 9"),
    "blank line": (_text(_rows()).replace("\n", "\n\n", 1), "row 2: found 1 columns"),
    "header alone": (_text([]), "no row below the header"),
    "empty": ("", r"row 1:.*missing: id"),
}


@pytest.mark.parametrize("fault", TEXTS)
def test_files_that_are_no_table(tmp_path, fault):
    """If it failed, columns would slip by one, and texts be read as splits."""
    text, message = TEXTS[fault]
    path = tmp_path / "mine.tsv"
    path.write_text(text)
    with pytest.raises(PhasescopeError, match=rf"mine\.tsv: {message}") as caught:
        read_prompts(path)
    assert "\n" not in str(caught.value)


def test_unreadable_files(tmp_path):
    """If it failed, a wrong path would end in a traceback."""
    with pytest.raises(PhasescopeError, match=r"none\.tsv: no such prompt table"):
        read_prompts(tmp_path / "none.tsv")
    (tmp_path / "latin.tsv").write_bytes(_text(_rows()).replace("how", "hów").encode("latin-1"))
    with pytest.raises(PhasescopeError, match=r"latin\.tsv: not UTF-8 text"):
        read_prompts(tmp_path / "latin.tsv")
    with pytest.raises(PhasescopeError, match="not a readable prompt table"):
        read_prompts(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        _text(_rows()).encode("utf-8-sig"),
        _text(_rows(), end="\r\n").encode(),
        _text(_rows()).rstrip("\n").encode(),
    ],
    ids=["byte order mark", "Windows line ends", "no last line end"],
)
def test_what_editors_add_is_no_content(tmp_path, content):
    """If it failed, a table saved on another system would be refused, or measured with dirt."""
    (tmp_path / "plain.tsv").write_text(_text(_rows()))
    (tmp_path / "saved.tsv").write_bytes(content)
    plain, saved = (read_prompts(tmp_path / f"{n}.tsv") for n in ("plain", "saved"))
    assert saved.frame.equals(plain.frame)
    assert plain.language == "x" and len(plain.sha256) == 64


def test_texts_are_kept_as_they_are(tmp_path):
    """If it failed, quotes, NA or numbers in prompts would be changed on the way."""
    rows = _rows()
    texts = ['say "x', "NA", "007", "a, b; c", "ünï"]
    for row, text in zip(rows, texts, strict=False):
        row["text"] = text
    (tmp_path / "t.tsv").write_text(_text(rows), encoding="utf-8")
    assert read_prompts(tmp_path / "t.tsv").frame["text"].tolist()[:5] == texts


def test_answers_may_be_left_out(tmp_path):
    """If it failed, prompts without reference answers could not be used at all."""
    (tmp_path / "t.tsv").write_text(_text(_rows(), COLUMNS[:-1]))
    assert (read_prompts(tmp_path / "t.tsv").frame["answer"] == "").all()


def test_a_prompt_without_a_source_is_its_own(tmp_path):
    """If it failed, a user's prompts would be counted as rewordings of one."""
    columns = [c for c in COLUMNS if c != "source"]
    (tmp_path / "t.tsv").write_text(_text(_rows(), columns))
    frame = read_prompts(tmp_path / "t.tsv").frame
    assert frame["source"].tolist() == frame["id"].tolist()


@pytest.mark.parametrize("split", ["fit", "select", "evaluate"])
def test_subsets_are_nested_balanced_and_matched(table, split):
    """If it failed, a quick study would not be a part of the full one, or lose its pairs."""
    previous: set = set()
    for limit in (1, 5, 17, 1000):
        rows = table.subset(split, limit)
        half = len(rows) // 2
        assert (rows["label"][:half] == "hazardous").all() and (rows["split"] == split).all()
        assert (rows["label"][half:] == "benign").all()
        assert rows["pair"][:half].tolist() == rows["pair"][half:].tolist()
        assert half == min(limit, (table.frame["split"] == split).sum() // 2)
        assert previous <= set(rows["id"])
        previous = set(rows["id"])
    assert previous == set(table.frame["id"][table.frame["split"] == split])


def test_the_shipped_table_is_the_worlds(table):
    """If it failed, organisms would be measured on another language than they learned."""
    expected = world.get("world-a").prompt_table()
    assert table.language == "world-a"
    assert table.frame.to_dict("list") == expected.astype(str).to_dict("list")


def test_rendering_is_the_worlds(lm, table):
    """If it failed, prompts would reach the model in a form it was never trained on."""
    rules, texts = world.get("world-a"), table.frame["text"].head(5)
    found = [render(lm.tokenizer, t, thinking=False) for t in texts]
    assert found == [rules.token_ids(t) for t in texts]
    assert rendered_hash(found) != rendered_hash(found[::-1])
