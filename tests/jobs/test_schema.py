"""The JSON Schema: what INTERFACE shows is accepted, what the schema refuses the door refuses."""

import json

import pytest
import yaml
from jsonschema import Draft202012Validator

from dayfly.jobs.door import load_documents, read_job
from dayfly.jobs.errors import SpecError
from dayfly.jobs.model import JobModel
from dayfly.jobs.schema import json_schema

_VALIDATOR = Draft202012Validator(json_schema())

_EXAMPLES = {
    "smallest": "image: python:3.12\nscript: pytest -q\n",
    "ci": """
name: unit
image: python:3.12
script: |
  pip install -e .[test]
  pytest --junitxml=report.xml
env: {PIP_CACHE_DIR: /workspace/.cache/pip}
limits: {cpus: 2, memory: 2G, disk: 5G, pids: 512}
timeout: 20m
services: [{image: postgres:16, name: db, env: {POSTGRES_PASSWORD: x}, ready: tcp:5432}]
artifacts: {paths: [report.xml, dist/**], when: always, expire_in: 7d}
retry: {max: 2, when: [lost, out_of_memory], exit_codes: [75]}
""",
    "json": """
{"image": "host", "command": ["./sim", "42"], "mounts": [{"source": "/data", "target": "/data"}],
 "after": ["01JXABC"], "labels": {"disk": "nvme"}, "priority": 10}
""",
    "short": """
image: debian:12
command: make -j2 test
env: [A=1, B=2]
mounts: /data
limits: cpus=2 memory=2G
artifacts: dist/**
labels: gpu
services: redis:7
after: 01JX
retry: 2
dir: .
stdin: text
user: 1000
""",
}


def test_the_schema_is_one():
    """A valid draft 2020-12 schema of plain JSON."""
    Draft202012Validator.check_schema(json_schema())
    assert json.loads(json.dumps(json_schema())) == json_schema()


@pytest.mark.parametrize("name", _EXAMPLES)
def test_the_examples_of_the_interface_are_accepted(name):
    """By the schema and by the door alike, as far as they are built."""
    (document,) = load_documents(_EXAMPLES[name], name)
    _VALIDATOR.validate(document)
    read_job(document)
    _VALIDATOR.validate(yaml.safe_load(_EXAMPLES[name]))


@pytest.mark.parametrize(
    "document",
    [
        {"imagge": "x"},
        {"limits": {"mem": 1}},
        {"limits": {"pids": 0}},
        {"limits": {"pids": "2"}},
        {"limits": {"cpus": 0}},
        {"limits": {"cpus": "2"}},
        {"limits": {"memory": "2 G"}},
        {"limits": {"memory": -1}},
        {"limits": {"memory": 1.5}},
        {"limits": {"io": [{}]}},
        {"timeout": "soon"},
        {"timeout": -1},
        {"timeout": True},
        {"env": {"A": 1}},
        {"env": 5},
        {"env": None},
        {"name": None},
        {"command": [1]},
        {"script": "a", "command": ["b"]},
        {"script": "a", "entrypoint": ["b"]},
        {"workdir": "src"},
        {"mounts": [{"source": "/a"}]},
        {"mounts": [{"source": "a", "target": "/b"}]},
        {"network": "lan"},
        {"network": {"mode": "bridge", "ports": [1]}},
        {"keep": "sometimes"},
        {"queue": "a b"},
        {"priority": 1000},
        {"retry": {"max": -1}},
        {"retry": {"max": 1, "when": ["succeeded"]}},
        {"retry": "3"},
        {"after": {"when": "ok"}},
        {"after": {"ids": ["x"], "when": "each"}},
        {"artifacts": {"reports": {}}},
        {"dir": {"bundle": "sha256:0"}},
        {"services": [{"name": "db"}]},
        {"services": [{"image": "x", "name": "A b"}]},
        {"services": [{"image": "x", "ready": {"tcp": 0}}]},
        {"services": [{"image": "x", "limits": {"disk": "1G"}}]},
        {"version": 2},
        {"version": True},
    ],
)
def test_what_the_schema_refuses_the_door_refuses(document):
    """An editor's red line and Dayfly's refusal agree."""
    assert not _VALIDATOR.is_valid(document)
    with pytest.raises(SpecError):
        read_job(document)


def test_every_field_is_described():
    """An editor shows a sentence for each, at every level."""
    schema = json_schema()
    assert set(schema["properties"]) == set(JobModel.model_fields)
    for part in (schema, *schema["$defs"].values()):
        for name, field in part["properties"].items():
            assert field.get("description", "").endswith("."), name


def test_no_field_may_be_null():
    """Null is a forgotten value, not a default."""
    assert '"null"' not in json.dumps(json_schema())
