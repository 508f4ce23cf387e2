from __future__ import annotations

import collections
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from bulkformer_tl._dictionaries import read_dictionary, write_dictionary


class Touches:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_pickles_become_json(tmp_path, protocol):
    content = {"ENSG1": 3, "ENSG2": 0.25, "TP53": "ENSG3"}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    found = read_dictionary(tmp_path / "a.pkl")
    assert found == content
    write_dictionary(tmp_path / "a.json", found)
    assert read_dictionary(tmp_path / "a.json") == content
    assert [type(value) for value in read_dictionary(tmp_path / "a.json").values()] == [int, float, str]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("place", ["itself", "value", "beside"])
def test_code_is_not_run(tmp_path, protocol, place):
    victim = tmp_path / "victim"
    hostile = Touches(victim)
    content = {"itself": hostile, "value": {"ENSG1": hostile}, "beside": [hostile, {"ENSG1": 1}]}[place]
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    with pytest.raises(ValueError, match="possibly code; it was not run"):
        read_dictionary(tmp_path / "a.pkl")
    assert not victim.exists()


@pytest.mark.parametrize(
    "raw",
    [
        b"cos\nsystem\n(S'exit 1'\ntR.",
        b"(S'exit 1'\nios\nsystem\n.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"\x80\x02\x82\x01.",
        b"}(S'a'\nI1\nS'b'\nb.",
        b"Pname\n.",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f}.",
        b"\x80\x02}q\x00X",
        b"",
        b"not a pickle",
    ],
)
def test_hostile_and_damaged_bytes(tmp_path, raw):
    (tmp_path / "a.pkl").write_bytes(raw)
    with pytest.raises(ValueError, match=r"damaged or holds more than a dictionary|not a dictionary"):
        read_dictionary(tmp_path / "a.pkl")


@pytest.mark.parametrize(
    "content",
    [
        collections.OrderedDict(a=1),
        collections.defaultdict(int, a=1),
        {"a": np.float64(1.0)},
        {"a": {"b": 1}},
        {"a": [1]},
        {"a": True},
        {"a": None},
        {"a": b"1"},
        {"a": 1j},
        {1: "a"},
        [("a", 1)],
        "a",
    ],
    ids=repr,
)
def test_nothing_but_a_dictionary_of_text_and_numbers(tmp_path, content):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=r"a\.pkl (holds|is damaged or holds)"):
        read_dictionary(tmp_path / "a.pkl")


@pytest.mark.parametrize(("text", "match"), [("{", "not JSON"), ("[1]", "not a dictionary"), ('{"a": null}', "'a'")])
def test_bad_json(tmp_path, text, match):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=match):
        read_dictionary(tmp_path / "a.json")


def test_deep_json(tmp_path):
    (tmp_path / "a.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="not JSON"):
        read_dictionary(tmp_path / "a.json")


def test_other_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="no dictionary"):
        read_dictionary(tmp_path / "a.json")
    (tmp_path / "a.txt").write_text(json.dumps({"a": 1}))
    with pytest.raises(ValueError, match=r"neither \.json nor \.pkl"):
        read_dictionary(tmp_path / "a.txt")
