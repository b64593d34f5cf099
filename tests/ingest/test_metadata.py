"""Metadata files: what is joined to images, and what is refused, with file and line."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from unicodedata import normalize

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbir.errors import CbirError
from cbir.images.ids import encode_path
from cbir.ingest.metadata import read_metadata


def written(folder: Path, name: str, text: str, encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def test_csv_rows_join_by_id(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", "id,colour,price\nshop/a,red,3\nshop/b,blue,12\n")
    metadata = read_metadata(path)
    assert metadata.lookup("shop/a", "a.jpg") == {"colour": "red", "price": 3}
    assert metadata.lookup("shop/c", "shop/a") == {}
    assert metadata.unused() == ["shop/b"]
    assert metadata.lookup("shop/b", "b.jpg") == {"colour": "blue", "price": 12}
    assert metadata.unused() == []


@pytest.mark.parametrize("name", ["a b/ü 100%.jpg", "a b\\ü 100%.jpg", "./a b//ü 100%.jpg"])
def test_paths_join_as_people_write_them(tmp_path: Path, name: str) -> None:
    location = encode_path("a b/ü 100%.jpg")
    for path in (
        written(tmp_path, "a.csv", f"path,n\n{name},1\n"),
        written(tmp_path, "a.jsonl", json.dumps({"path": name, "n": 1})),
    ):
        metadata = read_metadata(path)
        assert metadata.lookup("x/other", "other.jpg") == {}
        assert metadata.unused() == [name]
        assert metadata.lookup("x/y", location) == {"n": 1}
        assert metadata.unused() == []


def test_absolute_paths_join_with_links_and_without(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for folder in ("real", "link"):
        name = f"{tmp_path}/{folder}/ü 1.jpg"
        metadata = read_metadata(written(tmp_path, "a.csv", f"path,n\n{name},1\n"))
        assert metadata.lookup("x/y", encode_path("ü 1.jpg"), str(tmp_path)) == {}
        found = metadata.lookup("x/y", encode_path("ü 1.jpg"), str(tmp_path / "real"))
        assert (found, metadata.unused()) == ({"n": 1}, [])


@pytest.mark.parametrize("key", ["id", "path"])
def test_names_join_however_their_letters_are_composed(tmp_path: Path, key: str) -> None:
    composed, apart = (normalize(form, "Zürich/é.png") for form in ("NFC", "NFD"))
    for one, other in ((composed, apart), (apart, composed)):
        metadata = read_metadata(written(tmp_path, "a.csv", f"{key},n\n{one},1\n"))
        assert metadata.lookup(other, other) == {"n": 1}
        assert metadata.unused() == []
    both = read_metadata(written(tmp_path, "a.csv", f"{key},n\n{composed},1\n{apart},2\n"))
    assert [both.lookup(name, name)["n"] for name in (composed, apart)] == [1, 2]


def test_dates_taken_are_written_in_one_way(tmp_path: Path) -> None:
    text = "id,taken,day\na,2024:05:03 12:30:45,2024:05:03\nb,2024,2023\n"
    metadata = read_metadata(written(tmp_path, "a.csv", text))
    assert metadata.lookup("a", "") == {"taken": "2024-05-03T12:30:45", "day": "2024:05:03"}
    assert metadata.lookup("b", "")["taken"] == "2024"


def test_a_csv_column_is_numbers_only_if_all_its_cells_are(tmp_path: Path) -> None:
    text = (
        "id,whole,mixed,text,code,long,huge,label\n"
        "a,1,1,1,007,1234567890123456789,1e999,1\n"
        "b,-2,2.5,x,123,5,1,2\n"
        "c,,,,,,,\n"
    )
    metadata = read_metadata(written(tmp_path, "a.csv", text))
    long = "1234567890123456789"
    found = metadata.lookup("a", "")
    assert found == {
        "whole": 1,
        "mixed": 1.0,
        "text": "1",
        "code": "007",
        "long": long,
        "huge": "1e999",
        "label": "1",
    }
    assert isinstance(found["mixed"], float)
    assert metadata.lookup("b", "")["whole"] == -2
    assert metadata.lookup("b", "")["code"] == "123"
    assert set(metadata.lookup("c", "").values()) == {None}
    assert metadata.unused() == []


def test_csv_as_spreadsheets_write_it_is_read(tmp_path: Path) -> None:
    text = '\ufeffid, name ,note\r\na, "Smith, J.","two\r\nlines"\r\n\r\n,,\r\nb,x,y\r\n'
    metadata = read_metadata(written(tmp_path, "a.CSV", text))
    assert metadata.lookup("a", "") == {"name": "Smith, J.", "note": "two\r\nlines"}
    assert metadata.lookup("b", "") == {"name": "x", "note": "y"}


def test_json_keeps_types_and_leaves_nulls_out(tmp_path: Path) -> None:
    text = (
        '{"id": "a", "n": 1, "x": 2.0, "s": "007", "none": null, "label": 7}\n\n'
        '{"id": "b", "empty": "", "other": -1}\n'
    )
    metadata = read_metadata(written(tmp_path, "a.jsonl", text))
    found = metadata.lookup("a", "")
    assert found == {"n": 1, "x": 2.0, "s": "007", "none": None, "label": "7"}
    assert (type(found["n"]), type(found["x"])) == (int, float)
    assert metadata.lookup("b", "") == {"empty": "", "other": -1}


@settings(deadline=None)
@given(
    st.dictionaries(
        st.text(st.characters(min_codepoint=33, exclude_categories=["C", "Z"]), min_size=1),
        st.integers(-(10**17), 10**17) | st.none(),
        min_size=1,
    )
)
def test_a_csv_file_of_any_ids_reads_back(
    tmp_path_factory: pytest.TempPathFactory, numbers: dict[str, int | None]
) -> None:
    path = tmp_path_factory.mktemp("metadata") / "a.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("id", "n"), *numbers.items()])
    metadata = read_metadata(path)
    for name, number in numbers.items():
        assert metadata.lookup(name, "") == {"n": number}
    assert metadata.unused() == []


CSV_ERRORS = [
    ("name\nx\n", ":1: one column 'id' or 'path' expected, found: name"),
    ("id;name\na;x\n", ":1: one column 'id' or 'path' expected, found: id;name"),
    ("id,path\na,b\n", ":1: one column 'id' or 'path' expected, found: id, path"),
    ("id,width\na,1\n", ":1: 'width' is a reserved name"),
    ("id,source\na,1\n", ":1: 'source' is a reserved name"),
    ("id,n,n\na,1,2\n", ":1: column 'n' appears twice"),
    ("id,\na,1\n", ":1: '' is not a valid column name"),
    ("id,a>b\na,1\n", ":1: 'a>b' is not a valid column name"),
    ("id,n\na,1\nb\n", ":3: 2 cells expected, found 1"),
    ("id,n\na,1,2\n", ":2: 2 cells expected, found 3"),
    ("id,n\na,1\n\n,2\n", ":4: the row has neither 'id' nor 'path'"),
    ('id,n\na,"two\nlines"\na,1\n', ":4: id 'a' appears twice"),
    ("path,n\na/b,1\na\\b,1\n", ":3: path 'a\\b' appears twice"),
    ('id,n\na,"x"y\n', ":2: not CSV: "),
    ('id,n\na,1\nb,"x\n', ":3: not CSV: "),
]


@pytest.mark.parametrize(("text", "message"), CSV_ERRORS)
def test_bad_csv_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, "a.csv", text)
    with pytest.raises(CbirError) as error:
        read_metadata(path)
    assert error.value.message.startswith(f"{path}{message}")


JSON_ERRORS = [
    ('{"id": "b", "n": 1', "not JSON: "),
    ('["id", "b"]', "not a JSON object"),
    ('"b"', "not a JSON object"),
    ('{"id": "b"} {"id": "c"}', "not JSON: "),
    ('{"id": "b", "n": NaN}', "not JSON: NaN is not valid JSON"),
    ('{"id": "b", "n": 1, "n": 2}', "'n' appears twice"),
    ('{"id": "b", "n": {"x": 1}}', "'n' is neither text nor a number"),
    ('{"id": "b", "n": {}}', "'n' is neither text nor a number"),
    ('{"id": "b", "n": [1]}', "'n' is neither text nor a number"),
    ('{"id": "b", "n": true}', "'n' is neither text nor a number"),
    ('{"id": "b", "n": 1e999}', "'n' is too large a number"),
    ('{"id": "b", "n": 9223372036854775808}', "'n' is too large a number"),
    ('{"id": "b", "height": 1}', "'height' is a reserved name"),
    ('{"id": "b", "a=b": 1}', "'a=b' is not a valid column name"),
    ('{"id": "a"}', "id 'a' appears twice"),
    ('{"id": "b", "n": "\\ud800"}', "not JSON: "),
    ('{"id": "b\\u0000"}', "id 'b\\x00' is not text"),
    ('{"id": 1}', "id 1 is not text"),
    ('{"id": ""}', "id '' is not text"),
    ('{"id": null, "n": 1}', "the row has neither 'id' nor 'path'"),
    ('{"id": "b", "path": "b"}', "the row has both 'id' and 'path'"),
    ('{"path": "b"}', "this row has no 'id', but the first has"),
]


@pytest.mark.parametrize(("text", "message"), JSON_ERRORS)
def test_bad_json_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, "a.jsonl", f'{{"id": "a"}}\n\n{text}\n')
    with pytest.raises(CbirError) as error:
        read_metadata(path)
    assert error.value.message.startswith(f"{path}:3: {message}")


def test_an_absolute_path_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CbirError, match="is not text"):
        read_metadata(written(tmp_path, "a.jsonl", '{"path": "/a\\u0000b/c.png"}'))


def test_a_file_that_says_nothing_is_refused(tmp_path: Path) -> None:
    for name, text in (("a.csv", ""), ("a.csv", "id,n\n"), ("a.jsonl", "\n"), ("a.jsonl", "")):
        with pytest.raises(CbirError, match=rf"{name} has no rows"):
            read_metadata(written(tmp_path, name, text))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(CbirError, match=r"cannot read .*none\.csv: No such file"):
        read_metadata(tmp_path / "none.csv")
    with pytest.raises(CbirError, match=r"a\.txt is neither \.csv nor \.jsonl"):
        read_metadata(written(tmp_path, "a.txt", "id\na\n"))
    for name in ("a.csv", "a.jsonl"):
        with pytest.raises(CbirError, match=rf"{name} is not UTF-8"):
            read_metadata(written(tmp_path, name, "id,n\na,\u00e9\n", "latin-1"))
