"""The schema for editors: current, valid, and of one mind with what the loader accepts."""

from __future__ import annotations

from dataclasses import MISSING, fields
from pathlib import Path

import jsonschema
import pytest
import tomli

from assay.matrix.row import FlashAttn, Row
from assay.matrix.schema import FlashAttnTable, RowTable, json_schema, keys, schema_text

ROOT = Path(__file__).parents[2]
MATRICES = [*sorted(ROOT.glob("matrix*.toml")), *sorted((ROOT / "examples").rglob("matrix*.toml"))]


def test_the_file_is_current():
    current = (ROOT / "schema" / "matrix.schema.json").read_text(encoding="utf-8")
    assert current == schema_text(), "run: python -m assay.matrix > schema/matrix.schema.json"


def test_it_is_a_valid_schema():
    jsonschema.Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("file", MATRICES, ids=lambda file: file.name)
def test_shipped_files_fit(file):
    jsonschema.validate(tomli.loads(file.read_text(encoding="utf-8")), json_schema())


@pytest.mark.parametrize("file", MATRICES, ids=lambda file: file.name)
def test_shipped_files_name_the_schema(file):
    first = file.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("#:schema ")
    assert (file.parent / first.removeprefix("#:schema ")).resolve() == ROOT / "schema" / "matrix.schema.json"


@pytest.mark.parametrize(
    "wrong",
    [
        {"rows": []},
        {"row": [{"id": "a", "tolkit": "base"}]},
        {"row": [{"expect": "certify"}]},
        {"row": [{"id": "A"}]},
        {"row": [{"id": "a", "because": {"check": "x"}}]},
        {"row": [{"id": "a", "expect": None}]},
        {"axes": {"python": "3.11"}},
        {"axes": {"python": []}},
        {"defaults": {"flash-attn": {"head-dims": [65]}}},
        {"publish": {"level": "none"}},
    ],
)
def test_it_refuses(wrong):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, json_schema())


def test_every_key_is_described():
    definitions = json_schema()["$defs"].values()
    bare = [key for table in definitions for key, value in table["properties"].items() if not value.get("description")]
    assert bare == []


@pytest.mark.parametrize(("table", "made"), [(RowTable, Row), (FlashAttnTable, FlashAttn)])
def test_file_and_row_have_the_same_keys_and_defaults(table, made):
    found_out = {"content"}  # what a row is told by the files that its keys name
    assert set(keys(table)) == {field.name.replace("_", "-") for field in fields(made)} - found_out
    own = {
        "expect",
        "tags",
        "because",
        "required_level",
        "id",
        "flash_attn",
    }  # the file may leave these to other tables
    for field in fields(made):
        if field.name not in own | found_out and field.default is not MISSING:
            stated = table.model_fields[field.name].default
            if isinstance(stated, list):
                stated = tuple(stated)
            assert (tuple(stated.items()) if isinstance(stated, dict) else stated) == field.default, field.name
