"""A spec survives its document: to_document() and read_job() are exact inverses."""

import copy
import dataclasses
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from dayfly.jobs.door import read_job
from dayfly.jobs.network import Network, NetworkLimit, NetworkUse
from dayfly.jobs.privileges import CAPABILITIES, Device, Seccomp
from dayfly.jobs.schema import json_schema
from dayfly.jobs.secret_use import SecretUse
from dayfly.jobs.services import Ready, Service, ServiceLimits
from dayfly.jobs.spec import (
    After,
    AfterWhen,
    Artifacts,
    ArtifactsWhen,
    Directory,
    IoLimit,
    JobSpec,
    Keep,
    Limits,
    Mount,
    PullPolicy,
    Retry,
)
from dayfly.jobs.state import Outcome

_TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=20)
_LINE = st.from_regex(r"[a-zA-Z0-9äöü ._:/-]{0,20}[a-z]", fullmatch=True)
_NAME = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,10}[A-Za-z0-9])?", fullmatch=True)
_PARTS = st.lists(st.from_regex(r"[a-z]{1,5}|\.\.[a-z]", fullmatch=True), min_size=1, max_size=4)
_PATH = _PARTS.map(lambda parts: "/srv/" + "/".join(parts))
_PATTERN = st.from_regex(r"(/|\*\*/)?[a-z*?]{1,8}(/[a-z.*]{1,6}x){0,2}", fullmatch=True)
_DIGEST = st.from_regex(r"sha256:[0-9a-f]{64}", fullmatch=True)
_SECONDS = st.floats(0.001, 1e8) | st.integers(1, 10**8).map(float)
_SIZE = st.integers(6 << 20, 1 << 60)
_WORDS = st.lists(_TEXT, max_size=4).filter(lambda words: not words or words[0] != "").map(tuple)


def _optional(strategy):
    return st.none() | strategy


_DIRECTORIES = (
    st.builds(Directory, path=_PATH | st.sampled_from([".", "..", "a/b"]))
    | st.builds(Directory, path=_PATH, host=_NAME, device=st.integers(0, 2**64 - 1), inode=st.integers(1, 2**64 - 1))
    | st.builds(Directory, bundle=_DIGEST)
)
_IO = st.builds(
    IoLimit,
    device=st.sampled_from(["8:0", "/dev/sda", "/dev/mapper/x"]),
    read_bps=st.integers(1, 1 << 60),
    write_iops=_optional(st.integers(1, 2**31 - 1)),
)
_LIMITS = st.builds(
    Limits,
    cpus=_optional(st.floats(0.01, 8192)),
    cpu_burst_seconds=_optional(st.floats(0.001, 1)),
    cpu_weight=_optional(st.integers(1, 10_000)),
    memory_bytes=_optional(_SIZE),
    swap_bytes=_optional(st.integers(0, 1 << 60)),
    disk_bytes=_optional(_SIZE),
    pids=_optional(st.integers(1, 4_194_304)),
    shm_bytes=_optional(_SIZE),
    io=st.lists(_IO, max_size=2).map(tuple),
    network=st.builds(NetworkLimit, _optional(st.integers(1024, 1 << 60)), _optional(st.integers(1024, 1 << 60))),
)
_NETWORKS = st.builds(NetworkUse, st.sampled_from(Network)) | st.builds(
    NetworkUse,
    st.sampled_from([Network.BRIDGE, Network.AUTO]),
    st.lists(st.sampled_from(["internet", "10.1.0.0/16", "192.0.2.1/32", "fd00:1::/64"]), max_size=3).map(tuple),
)
_ARTIFACTS = st.just(Artifacts()) | st.builds(
    Artifacts,
    paths=st.lists(_PATTERN, min_size=1, max_size=3).map(tuple),
    exclude=st.lists(_PATTERN, max_size=2).map(tuple),
    changed=st.booleans(),
    when=st.sampled_from(ArtifactsWhen),
    expire_in_seconds=_optional(_SECONDS),
)
_DEVICES = st.builds(
    Device,
    st.sampled_from(["/dev/kvm", "/dev/dri/card0"]),
    st.from_regex(r"/dev/x[a-z]{1,5}", fullmatch=True),
    st.sampled_from(["r", "rw", "wm", "rwm"]),
)
_SECRETS = st.lists(
    st.builds(SecretUse, _NAME, env=_NAME)
    | st.builds(SecretUse, _NAME, file=_optional(_PATH), mode=st.integers(0, 0o777)),
    max_size=3,
    unique_by=(lambda each: each.name, lambda each: each.env or each.file or each.name),
).map(tuple)
_SERVICE = st.builds(
    Service,
    name=st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True).filter(lambda name: name != "localhost"),
    image=st.sampled_from(["debian:12", "a.b:5000/c", "/srv/root"]) | _DIGEST,
    entrypoint=_optional(_WORDS),
    command=_optional(_WORDS),
    env=st.dictionaries(_NAME, _TEXT, max_size=2),
    workdir=_optional(_PATH),
    user=_optional(st.sampled_from(["0", "postgres"])),
    ready=_optional(
        st.builds(Ready, st.integers(1, 65535)) | st.builds(Ready, command=_WORDS.filter(lambda words: len(words) > 0))
    ),
    ready_timeout_seconds=_optional(_SECONDS),
    limits=st.builds(ServiceLimits, _optional(st.floats(0.01, 8192)), _optional(_SIZE), _optional(st.integers(1, 99))),
    stop_signal=_optional(st.integers(1, 64)),
    stop_grace_seconds=_optional(_SECONDS),
)
_RETRIED = [each for each in Outcome if each not in (Outcome.SUCCEEDED, Outcome.CANCELLED, Outcome.REJECTED)]
_COMMON = {
    "name": _optional(_LINE),
    "image": _optional(st.sampled_from(["debian:12", "a.b:5000/c", "/srv/root"]) | _DIGEST),
    "env": st.dictionaries(_TEXT.filter(lambda name: name and not set(name) & set("=\n")), _TEXT, max_size=3),
    "workdir": _optional(_PATH),
    "user": _optional(st.sampled_from(["0", "1000:1000", "root", "www-data:adm"])),
    "stdin": _optional(st.binary(max_size=20) | _TEXT.map(str.encode)),
    "merge_streams": st.booleans(),
    "dir": _optional(_DIRECTORIES),
    "mounts": st.lists(
        st.builds(Mount, _PATH, _PATH, st.booleans()), max_size=3, unique_by=lambda each: each.target
    ).map(tuple),
    "devices": st.lists(_DEVICES, max_size=3, unique_by=lambda each: each.target).map(tuple),
    "cap_add": st.lists(st.sampled_from(["ALL", *CAPABILITIES[:20]]), max_size=3).map(tuple),
    "cap_drop": st.lists(st.sampled_from(CAPABILITIES[20:]), max_size=3).map(tuple),
    "seccomp": st.sampled_from(Seccomp),
    "privileged": st.booleans(),
    "secrets": _SECRETS,
    "limits": _LIMITS,
    "timeout_seconds": _optional(_SECONDS),
    "queue_timeout_seconds": _optional(_SECONDS),
    "stop_grace_seconds": _optional(_SECONDS | st.just(0.0)),
    "stop_signal": _optional(st.integers(1, 64)),
    "network": _NETWORKS,
    "services": st.lists(_SERVICE, max_size=2, unique_by=lambda each: each.name).map(tuple),
    "artifacts": _ARTIFACTS,
    "keep": st.sampled_from(Keep),
    "pull": _optional(st.sampled_from(PullPolicy)),
    "debug": st.booleans(),
    "queue": st.from_regex(r"[A-Za-z0-9_.-]{1,64}", fullmatch=True),
    "priority": st.integers(-100, 100),
    "labels": st.dictionaries(_NAME, st.just("") | _NAME, max_size=3),
    "after": _optional(
        st.builds(After, st.lists(_NAME, min_size=1, max_size=3).map(tuple), st.sampled_from(AfterWhen))
    ),
    "delay_seconds": _optional(_SECONDS | st.just(0.0)),
    "unique": _optional(_LINE),
    "retry": _optional(
        st.builds(
            Retry,
            st.integers(0, 100),
            st.lists(st.sampled_from(_RETRIED), max_size=3).map(tuple),
            st.lists(st.integers(1, 255), max_size=3).map(tuple),
        )
    ),
    "annotations": st.dictionaries(_LINE, _TEXT, max_size=3),
}
_SPECS = st.builds(JobSpec, entrypoint=_optional(_WORDS), command=_optional(_WORDS), **_COMMON) | st.builds(
    JobSpec, script=_TEXT.filter(str.strip), **_COMMON
)
_SPECS = _SPECS.filter(lambda spec: not {each.env for each in spec.secrets} & spec.env.keys())  # the door refuses these

_VALIDATOR = Draft202012Validator(json_schema())


@given(_SPECS)
def test_a_document_is_read_back_as_the_same_spec(spec):
    """Through real JSON text, as it travels in Redis."""
    assert read_job(json.loads(json.dumps(spec.to_document()))) == spec


@given(_SPECS)
def test_a_canonical_document_stays_as_it_is(spec):
    """Reading and writing it again changes no letter: it can be hashed and compared."""
    document = spec.to_document()
    assert json.dumps(read_job(document).to_document()) == json.dumps(document)


@given(_SPECS)
def test_the_schema_accepts_every_document_that_the_door_writes(spec):
    """An editor never marks as wrong what Dayfly itself wrote."""
    _VALIDATOR.validate(spec.to_document())


@given(_SPECS)
def test_a_spec_survives_pickling(spec):
    """Programs hand specs to their own worker processes."""
    assert pickle.loads(pickle.dumps(spec)) == spec == copy.deepcopy(spec)
    assert hash(spec) == hash(dataclasses.replace(spec))
    assert dataclasses.asdict(spec)["env"] == spec.env


def test_a_spec_cannot_be_changed():
    """Frozen, its maps too: it travels between rooms."""
    spec = JobSpec(env={"A": "1"})
    with pytest.raises(TypeError, match="frozen"):
        spec.env["A"] = "2"
    with pytest.raises(TypeError, match="frozen"):
        spec.env.clear()
    with pytest.raises(AttributeError):
        spec.name = "x"


def test_what_is_not_stated_is_not_written():
    """The worker's defaults hold on the worker that runs it."""
    assert JobSpec().to_document() == {"version": 1}
