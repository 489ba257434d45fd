"""An image's configuration and the names of images: the words that come from outside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dayfly.jobs.errors import ImageError
from dayfly.runtime.images.image import ImageConfig, read_config
from dayfly.runtime.images.reference import Kind, canonical, file_name, name_of, parse
from dayfly.runtime.images.store import ImageStore


@pytest.mark.parametrize("user", ["", "root", "1000", "1000:1000", "web:www-data", "svc$", "4294967294"])
def test_a_user_that_can_be_is_kept(user: str) -> None:
    """Names and numbers, with or without a group."""
    assert read_config({"config": {"User": user}}, "image").user == user


@pytest.mark.attack("R12")
@pytest.mark.parametrize(
    "user", ["4294967295", "4294967296", "9" * 5000, "-1", "0 ", " 0", "root\n", "a:b:c", ":", "1000:", "../x", "a/b"]
)
def test_a_user_that_cannot_be_is_refused(user: str) -> None:
    """A number too big is not looked up as a name, a newline does not make another line (CVE-2026-46680)."""
    with pytest.raises(ImageError, match=r"image: config\.User"):
        read_config({"config": {"User": user}}, "image")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"Cmd": "sh"}, "config.Cmd must be a list of strings, got str"),
        ({"Cmd": [1]}, "config.Cmd must be a string, got int"),
        ({"Entrypoint": {"a": 1}}, "config.Entrypoint must be a list of strings, got dict"),
        ({"Env": ["A=\0"]}, "config.Env holds a NUL"),
        ({"Env": ["A=\ud800"]}, "config.Env holds a NUL or half of a surrogate pair"),
        ({"WorkingDir": 7}, "config.WorkingDir must be a string"),
        ({"Labels": ["x"]}, "config.Labels must be an object"),
        ({"Labels": {"x": 1}}, "config.Labels must be a string"),
        (["x"], "config must be an object"),
    ],
)
def test_a_config_of_wrong_types_is_refused(config: Any, message: str) -> None:
    """With the field's name."""
    with pytest.raises(ImageError, match=message):
        read_config({"config": config}, "image")


@pytest.mark.attack("R13")
def test_a_hostile_config_is_only_words(store: ImageStore, layout: Any, tar: Any, tmp_path: Path) -> None:
    """Labels, volumes and a work directory that want to be commands or paths of the host touch nothing."""
    config = {
        "Labels": {"dayfly.mounts": "/etc:/etc:rw", "run": f"touch {tmp_path}/pwned"},
        "Volumes": {"../../etc": {}, "/proc": {}},
        "WorkingDir": "../../..",
        "Entrypoint": ["$(touch /tmp/pwned)"],
        "Env": ["LD_PRELOAD=/evil.so", "=x", "noequals", "A=1\nB=2"],
    }
    image = store.import_(layout.index(layout.image([tar().file("f").bytes()], config)), "image").image
    assert image.config == ImageConfig(
        entrypoint=("$(touch /tmp/pwned)",),
        env={"LD_PRELOAD": "/evil.so", "A": "1\nB=2"},
        workdir="../../..",
        labels=config["Labels"],
    )
    assert image.host_trees == ()
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    "name", ["debian", "debian:12", "library/debian", "localhost:5000/a/b-c_d.e:v1.0", "UPPER", "a--b", "x" * 200]
)
def test_a_name_makes_a_file_name_and_comes_back(name: str) -> None:
    """Without a slash, never `.` or `..`."""
    assert "/" not in file_name(name)
    assert name_of(file_name(name)) == name == canonical(name)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/../b", "a//b", "/a", "-flag", "a b", "a\n", "a@b", "ä", "a:", "x" * 201, "sha256:abc"],
)
def test_what_is_no_name_is_refused(name: str) -> None:
    """As a name to import under, whatever file it would become."""
    with pytest.raises(ImageError, match="cannot be the name of an image"):
        canonical(name)


def test_the_hosts_name_is_taken() -> None:
    """`host` cannot be imported over."""
    for name in ("host", "host:latest", "host:1"):
        with pytest.raises(ImageError, match="is taken"):
            canonical(name)


def test_references_are_taken_apart() -> None:
    """Each kind by how it is written; the tag `latest` is no tag."""
    digest = "sha256:" + "0f" * 32
    assert parse("host").kind is Kind.HOST
    assert [parse(path).kind for path in (".", "..", "./x", "../x", "/x")] == [Kind.DIRECTORY] * 5
    assert (parse("a:latest").name, parse("a:1").name) == ("a", "a:1")
    assert (parse(digest).name, parse(digest).digest) == ("", digest)
    assert (parse(f"a:1@{digest}").name, parse(f"a:1@{digest}").digest) == ("a:1", digest)


@pytest.mark.parametrize("text", ["a@", "a@sha256:12", "a@sha256:" + "F" * 64, "sha256:", "@", "a@md5:" + "0" * 32])
def test_a_digest_that_is_none_is_refused(text: str) -> None:
    """Short, upper case, of another algorithm."""
    with pytest.raises(ImageError, match=r"a digest is sha256: and 64|cannot be the name"):
        parse(text)
