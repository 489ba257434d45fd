"""Builds as documents: each field, what does not go together, and what they ask of a worker."""

import json

import jsonschema
import pytest

from dayfly.jobs.build import Build
from dayfly.jobs.demand import Demand, class_name, stated_need
from dayfly.jobs.door import read_job
from dayfly.jobs.errors import SpecError
from dayfly.jobs.schema import json_schema
from dayfly.jobs.spec import Directory, JobSpec

_BUNDLE = {"bundle": "sha256:" + 64 * "a"}


def test_every_field_of_a_build_is_read_and_written():
    """And the schema knows it."""
    build = {
        "name": "ghcr.io/us/app:1",
        "file": "ci/Containerfile",
        "target": "tested",
        "args": {"VERSION": "2.1"},
        "labels": {"org.example.commit": "a b=c"},
        "use_cache": False,
        "push": True,
        "epoch": 1_700_000_000,
    }
    document = {"build": build, "dir": _BUNDLE, "network": "auto", "limits": {"cpus": 2}}
    spec = read_job(document)
    assert spec.build == Build(**build)
    again = spec.to_document()
    assert again["build"] == build
    assert read_job(json.loads(json.dumps(again))) == spec
    jsonschema.validate(document, json_schema())


def test_the_short_form_names_the_image():
    """`build: app` with the Containerfile of the directory."""
    short = read_job({"build": "app", "dir": _BUNDLE})
    assert short == JobSpec(build=Build(name="app"), dir=Directory(bundle=_BUNDLE["bundle"]))
    jsonschema.validate({"build": "app", "dir": "."}, json_schema())


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"build": {}}, "build must have a dir, or its containerfile"),
        ({"build": "app", "dir": ".", "command": "true"}, "build must not be together with command"),
        ({"build": "app", "dir": ".", "script": "true"}, "build must not be together with script"),
        ({"build": "app", "dir": ".", "image": "x"}, "build must not be together with image"),
        ({"build": "app", "dir": ".", "mounts": ["/x"]}, "build must not be together with mounts"),
        ({"build": "app", "dir": ".", "secrets": ["X"]}, "build must not be together with secrets"),
        ({"build": {"file": "a", "containerfile": "b"}, "dir": "."}, "build: must not have both"),
        ({"build": {"file": "/etc/passwd"}, "dir": "."}, "build.file: must be a path below"),
        ({"build": {"file": "../x"}, "dir": "."}, "build.file: must be a path below"),
        ({"build": {"push": True}, "dir": "."}, "build: must have a name to push"),
        ({"build": {"name": "A B"}, "dir": "."}, "build.name: must be an image"),
        ({"build": {"epoch": -1}, "dir": "."}, "build.epoch: "),
        ({"build": {"dockerfile": "x"}, "dir": "."}, "build.dockerfile: unknown field; did you mean file?"),
        ({"build": ["x"], "dir": "."}, "build.name: must be text, got a list"),
    ],
)
def test_what_cannot_be_built_is_refused(document, reason):
    """With the field."""
    with pytest.raises(SpecError) as refused:
        read_job(document)
    assert reason in str(refused.value)


def test_a_build_asks_for_a_worker_that_builds_and_for_nothing_else():
    """Its limits are those of its steps."""
    spec = read_job({"build": "app", "dir": _BUNDLE, "limits": {"cpus": 64}, "labels": {"disk": "nvme"}, "priority": 3})
    assert class_name("ci", Demand.of(spec)) == "ci@0:0:0:p3:ldayfly.builds,disk=nvme"
    assert stated_need(spec) == "0:0:0"
