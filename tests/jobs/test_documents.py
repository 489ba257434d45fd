"""Documents in files: YAML, JSON, JSON Lines, with the line of what is wrong."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dayfly.jobs.door import load_documents, read_job
from dayfly.jobs.errors import SpecError


def _read(text, name):
    return [read_job(document) for document in load_documents(text, name)]


def _refusal(text, name):
    with pytest.raises(SpecError) as caught:
        _read(text, name)
    return str(caught.value)


_JOB = {
    "image": "debian:12",
    "command": ["a", "b c"],
    "limits": {"cpus": 1.5, "memory": "2G"},
    "env": {"A": "ü\n\t\"'"},
}


@pytest.mark.parametrize("name", ["a.json", "a.yaml", "a.yml", "-", "standard input", "A.JSON"])
@pytest.mark.parametrize("indent", [None, 2])
def test_json_is_read_under_every_name(name, indent):
    """YAML is nearly a superset of it, and what begins with { is JSON where the name does not say."""
    assert load_documents(json.dumps(_JOB, indent=indent), name) == [_JOB]


def test_json_lines_are_one_document_a_line():
    """Empty lines do not count, a line that cannot be read is named."""
    text = '{"command": ["a"]}\n\n{"command": ["b"]}\n'
    for name in ("jobs.jsonl", "jobs.ndjson", "-", "jobs.json"):
        assert load_documents(text, name) == [{"command": ["a"]}, {"command": ["b"]}]
    assert _refusal(text + "{", "-") == (
        "document: is not JSON: Expecting property name enclosed in double quotes (-, line 4)"
    )
    assert _refusal(text + '{"nam": 1}', "j") == "nam: unknown field; did you mean name? (j, line 4)"
    assert _refusal(text + '{"name": "a", "name": "b"}', "j.jsonl") == "name: is there twice (j.jsonl, line 4)"


def test_a_hundred_thousand_json_lines_are_read():
    """The limit is on one document, not on a file of them."""
    text = "".join(
        f'{{"command": ["./sim", "{number}"], "annotations": {{"x": "{"y" * 40}"}}}}\n' for number in range(100_000)
    )
    assert len(text) > 4 << 20
    assert len(load_documents(text, "jobs.jsonl")) == 100_000


def test_a_yaml_file_may_hold_several_jobs():
    """As in Kubernetes: --- between them."""
    text = "command: [a]\n---\ncommand: [b]\n---\n"
    assert load_documents(text, "jobs.yaml") == [{"command": ["a"]}, {"command": ["b"]}]


_LINES = [
    ("image: a\nlimits:\n  cpus: 2\n  pids: 0\n", "a.yaml", "limits.pids: must be 1 or more, got 0 (a.yaml, line 4)"),
    ("image: a\nlimits: {cpus: 2,\n  pids: 0}\n", "a.yaml", "limits.pids: must be 1 or more, got 0 (a.yaml, line 3)"),
    ("mounts:\n- /a:/b\n- /c:d\n", "a.yaml", "mounts[1].target: must be an absolute path, got 'd' (a.yaml, line 3)"),
    ("\n\nimagge: a\n", "a.yaml", "imagge: unknown field; did you mean image? (a.yaml, line 3)"),
    ("a: b\n---\nname: x\n---\nnam: y\n", "a.yaml", "a: unknown field (a.yaml, line 1)"),
    ("name: x\n---\nnam: y\n", "a.yaml", "nam: unknown field; did you mean name? (a.yaml, line 3)"),
    ("env:\n  A: 1\n  B: 2\n", "a.yaml",
     'env.B: must be text, got the number or truth value 2; in quotes it is text: "2" (a.yaml, line 3)'),
    ("timeout:\nname: a\n", "a.yaml", "timeout: has no value: leave it out or give it one (a.yaml, line 1)"),
    ('{\n"limits": {\n\n"pids": 0}}', "a.json", "limits.pids: must be 1 or more, got 0 (a.json, line 4)"),
    ('{"a\\"{": [1,\n{"x": "y,}"}],\n "mounts": ["/a",\n\n "b:/c"]}', "a.json",
     "mounts[1].source: must be an absolute path, got 'b' (a.json, line 5)"),
    ('{"tty":\n true}', "a.json", "tty: is not built yet (a.json, line 1)"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "name", "message"), _LINES)
def test_a_refusal_names_file_and_line(text, name, message):
    """Of the field itself, or of the one that holds it."""
    assert message in _refusal(text, name).splitlines()


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("", "a.yaml", "document: is empty: there is no job in it (a.yaml)"),
        ("# nothing\n", "a.yaml", "document: is empty: there is no job in it (a.yaml)"),
        ("", "a.json", "document: is empty: there is no job in it (a.json)"),
        ("\n\n", "a.jsonl", "document: is empty: there is no job in it (a.jsonl)"),
        ("- a\n", "a.yaml", "document: must be a map of fields (a.yaml, line 1)"),
        ("text", "-", "document: must be a map of fields (-, line 1)"),
        ("[1]", "a.json", "document: must be a map of fields (a.json, line 1)"),
        ("{,}", "a.json", "document: is not JSON: Expecting property name enclosed in double quotes (a.json, line 1)"),
        ('{"a": 1,\n "a": 2}', "a.json", "a: is there twice (a.json, line 2)"),
        ('{"x": [{"a": 1, "b": 2,\n "a": 2}]}', "a.json", "x[0].a: is there twice (a.json, line 2)"),
        ('{"\\u0061": 1, "a": 2}', "a.json", "a: is there twice (a.json, line 1)"),
        ('{"limits": {"cpus": NaN}}', "a.json", "document: is not JSON: NaN is no JSON number (a.json)"),
        ('{"limits": {"pids": 1e999}}', "a.json", "limits.pids: must be finite, got inf (a.json, line 1)"),
        ('{"name": "\\ud800"}', "a.json", "name: must not contain half of a surrogate pair (a.json, line 1)"),
        ("a: 1\nb: 2\na: 3\n", "a.yaml", "a: is there twice (a.yaml, line 3)"),
        ("env: {A: x, A: y}", "a.yaml", "env.A: is there twice (a.yaml, line 1)"),
        ("name: !!python/object/apply:os.system [id]", "a.yaml",
         "name: must not have a tag, got tag:yaml.org,2002:python"),
        ("name: !secret x", "a.yaml", "name: must not have a tag, got !secret (a.yaml, line 1)"),
        ("command: *nothing", "a.yaml", "command: *nothing stands for nothing above it (a.yaml, line 1)"),
        ("command: &a [x, *a]", "a.yaml", "command[1]: *a stands for nothing above it (a.yaml, line 1)"),
        ("? [a]\n: b\n", "a.yaml", "document: must have names of text only (a.yaml, line 1)"),
        ("<<: {a: b}", "a.yaml", "['<<']: unknown field (a.yaml, line 1)"),
        ("a: [1", "a.yaml", "document: is not YAML: "),
        ("a: \x07", "a.yaml", "document: is not YAML: "),
        (b"name: \xff", "a.yaml", "document: is not UTF-8: invalid start byte (a.yaml)"),
        ("name: \ud800", "a.yaml", "document: is not UTF-8: surrogates not allowed (a.yaml)"),
        ("x" * (5 << 20), "a.yaml", "document: is larger than 4M (a.yaml)"),
        ('{"script": "' + "x" * (5 << 20) + '"}', "a.json", "document: is larger than 4M (a.json)"),
        ('{"script": "' + "x" * (2 << 20) + '"}', "a.jsonl", "script: must be 1M or less, got 2M (a.jsonl, line 1)"),
    ],
    ids=range(29),
)  # fmt: skip
def test_what_cannot_be_read_is_refused(text, name, message):
    """Duplicate keys, tags, bad encodings, NaN: each by its reason."""
    assert message in _refusal(text, name)


@pytest.mark.parametrize("name", ["a.yaml", "a.json", "a.jsonl"])
@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_a_hundred_thousand_levels_are_refused(name, opening):
    """By a message, whatever the parser below does with its stack."""
    assert "nest" in _refusal('{"command": ' + opening * 100_000, name)


def test_an_alias_stands_for_its_value_and_costs_as_much():
    """Sharing is welcome, a billion laughs are not."""
    shared = "x: &e {A: '1'}\nenv: *e\n"
    assert load_documents(shared, "a.yaml") == [{"x": {"A": "1"}, "env": {"A": "1"}}]
    laughs = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n" + "".join(
        f"a{number}: &a{number} [{', '.join([f'*a{number - 1}'] * 10)}]\n" for number in range(1, 10)
    )
    assert "more than 200000 values, aliases written out" in _refusal(laughs, "a.yaml")


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("on", "on"), ("no", "no"), ("NO", "NO"), ("y", "y"), ("true", True), ("False", False), ("null", None),
        ("~", None), ("", None), ("1", 1), ("-1", -1), ("+1", 1), ("0x10", 16), ("0o17", 15), ("017", 17),
        ("1_000", "1_000"), ("1.5", 1.5), ("1e3", 1000.0), (".5", 0.5), ("1:30:00", "1:30:00"), ("20:30", "20:30"),
        ("3.12", 3.12), ("python:3.12", "python:3.12"), ("2024-01-01", "2024-01-01"), ("1.2.3", "1.2.3"), ("'1'", "1"),
        ('"true"', "true"), ("'~'", "~"), ("1G", "1G"), ("--5", "--5"), ("+", "+"), (".", "."), ("e3", "e3"),
        ("0xZZ", "0xZZ"), ("=", "="), ("! x", "x"), ("1e", "1e"),
    ],
)  # fmt: skip
def test_a_word_in_yaml_means_what_it_looks_like(word, value):
    """YAML 1.2's core schema: Norway is no truth value, a clock no number, a date no object."""
    assert load_documents(f"a: {word}\n", "a.yaml") == [{"a": value}]


def test_infinity_is_a_number_that_no_field_takes():
    """.inf and .nan reach the field's own check."""
    assert "limits.cpus: must be finite, got inf" in _refusal("limits: {cpus: .inf}", "a.yaml")
    assert "timeout: must be finite, got nan" in _refusal("timeout: .NaN", "a.yaml")


_JSON = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda each: st.lists(each, max_size=4) | st.dictionaries(st.text(), each, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), _JSON, min_size=1), st.sampled_from([None, 1]))
def test_every_place_of_a_json_file_has_its_line(document, indent):
    """What json.dumps wrote is found again, each key on the line it was written to."""
    (loaded,) = load_documents(json.dumps(document, indent=indent), "a.json")
    assert loaded == document
    for key in document:
        assert (key,) in loaded.lines
        assert (loaded.line((key,)) == 1) is (indent is None)


@given(st.text() | st.binary(), st.sampled_from(["a.yaml", "a.json", "a.jsonl", "-"]))
def test_any_text_is_documents_or_a_spec_error(text, name):
    """Never a traceback of another kind."""
    try:
        documents = load_documents(text, name)
    except SpecError as error:
        message = str(error)
    else:
        message = "fine"
        assert all(isinstance(each, dict) for each in documents)
    assert message.isprintable()


@given(st.text("[]{}:,-&*!|>'\"% \n#?ax1", max_size=40))
def test_any_yaml_is_documents_or_a_spec_error(text):
    """The same of text that is all punctuation."""
    message = "fine"
    try:
        load_documents(text, "a.yaml")
    except SpecError as error:
        message = str(error)
    assert message.isprintable()
