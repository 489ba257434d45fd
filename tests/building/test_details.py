"""Details in which an image would differ from Docker's, and what builds keep and leave on a host."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dayfly.worker.build_leftovers import cache_bytes, prune_caches, sweep
from dayfly.worker.places import Places

pytestmark = [pytest.mark.kernel, pytest.mark.slow]


def _settings(builder: Any, name: str = "built") -> dict[str, Any]:
    found: dict[str, Any] = builder.store.named(name).config["config"]
    return found


def test_an_entrypoint_takes_the_command_of_the_base_only(builder: Any, base: str) -> None:
    """A CMD that the stage has had itself stays, wherever it stands."""
    builder.build('FROM base\nCMD ["mine"]\nENTRYPOINT ["/e"]\n', tag="first")
    assert (_settings(builder, "first")["Cmd"], _settings(builder, "first")["Entrypoint"]) == (["mine"], ["/e"])
    builder.build('FROM first\nENTRYPOINT ["/other"]\n')
    assert _settings(builder).get("Cmd") is None


def test_a_tmpfs_is_memory_of_the_step(builder: Any, base: str) -> None:
    """Of the size that is asked for; it counts as its memory, and nothing of it is in the layer."""
    flags = "--mount=type=tmpfs,target=/t,size=1m"
    builder.build(f"FROM base\nRUN {flags} cp /bin/busybox /t/x && cat /proc/mounts > /mounts\n", fails=True)
    assert "No space left" in builder.said
    builder.build(f"FROM base\nRUN {flags} echo x > /t/x && cat /proc/mounts > /mounts\n")
    kept = Path(builder.store.resolve("built").layers[0])
    assert "/t tmpfs" in (kept / "mounts").read_text()
    assert not (kept / "t").exists()


def test_an_add_unpacks_sparse_files(builder: Any, base: str, merged: Any) -> None:
    """Of either form that GNU tar writes."""
    sparse = builder.directory / "sparse"
    with open(sparse, "wb") as file:
        file.seek(1 << 20)
        file.write(b"end")
        file.truncate(3 << 20)
    for form in ("gnu", "posix"):
        command = ["tar", "--sparse", f"--format={form}", "-cf", f"{form}.tar", "sparse"]
        subprocess.run(command, check=True, cwd=builder.directory)
    builder.build("FROM base\nADD gnu.tar /gnu/\nADD posix.tar /posix/\n")
    root = merged(builder.store.resolve("built"))
    for form in ("gnu", "posix"):
        assert (root / form / "sparse").read_bytes() == sparse.read_bytes()


def test_paths_are_relative_to_the_directory_of_the_stage(builder: Any, base: str, merged: Any) -> None:
    """`.` is a directory, also for several sources and in an image of nothing; `..` leads up; mounts may be so too."""
    for name in ("one", "two"):
        builder.write(name, name)
    builder.build(
        "FROM scratch AS files\nCOPY one .\nFROM base\nWORKDIR /a/b\nCOPY one two .\nWORKDIR ..\n"
        "COPY o*e ./\nCOPY --from=files /one /from\nRUN pwd > where\n"
    )
    root = merged(builder.store.resolve("built"))
    assert sorted(path.name for path in (root / "a/b").iterdir()) == ["one", "two"]
    assert ((root / "a/one").read_text(), (root / "from").read_text()) == ("one", "one")
    assert (root / "a/where").read_text() == "/a\n"
    assert _settings(builder)["WorkingDir"] == "/a"


def test_mounts_take_variables_and_one_cache_may_be_seen_twice(builder: Any, base: str, merged: Any) -> None:
    """Whatever its sharing: no step waits for itself."""
    flags = "--mount=type=cache,id=c,target=$PLACE,sharing=locked --mount=type=cache,id=c,target=below"
    builder.build(f"FROM base\nENV PLACE=/cache\nWORKDIR /w\nRUN {flags} echo x > /cache/x; cat /w/below/x > /seen\n")
    assert (merged(builder.store.resolve("built")) / "seen").read_text() == "x\n"


def test_caches_are_counted_and_pruned(builder: Any, base: str) -> None:
    """Not one that a step has at this moment."""
    builder.build("FROM base\nRUN --mount=type=cache,target=/c,sharing=locked cp /bin/busybox /c/x\n")
    places = Places(builder.home)
    size = (builder.home / "build-cache").glob("*/x").__next__().stat().st_size
    assert cache_bytes(places) >= size
    assert prune_caches(places, unused_seconds=3600.0) == 0
    done = subprocess.run(
        [sys.executable, "-m", "dayfly", "image", "prune", "--build-cache"],
        env=builder.environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert "freed" in done.stderr
    assert not list((builder.home / "build-cache").iterdir())


def test_what_a_dead_builder_left_is_swept(builder: Any, base: str) -> None:
    """Its scratch directory, once nobody holds its lock."""
    builder.build("FROM base\nRUN true\n")
    left = builder.home / "build/staging/0123456789abcdef"
    (left / "deep").mkdir(parents=True)
    (left / "lock").touch()
    assert sweep(Places(builder.home)) == 1
    assert not left.exists()


def test_a_file_of_hostile_size_and_shape_is_refused(builder: Any, base: str) -> None:
    """With a sentence, and without the host's memory."""
    doubled = "\n".join(f"ENV A{number}=$A{number - 1}$A{number - 1}" for number in range(1, 40))
    builder.build(f"FROM base\nENV A0={'x' * 1000}\n{doubled}\n", fails=True)
    assert "the environment would have more than" in builder.said or "is longer than" in builder.said
    stages = "\n".join(
        f"FROM base AS s{number}\n" + "".join(f"COPY --from=s{number - back} /x /x\n" for back in (1, 2))
        for number in range(2, 60)
    )
    builder.build(f"FROM base AS s0\nFROM base AS s1\n{stages}\n", fails=True)
    assert "there is no '/x'" in builder.said
    builder.write(".dockerignore", "x\n" * 40_000)
    builder.build("FROM base\nCOPY Containerfile /x\n", fails=True)
    assert ".dockerignore is larger than 64 KiB" in builder.said


def test_an_image_has_no_more_layers_than_a_container_can(builder: Any, base: str) -> None:
    """The step that would be the 128th says so."""
    lines = "\n".join(f"COPY Containerfile /{number}" for number in range(130))
    builder.build(f"FROM base\n{lines}\n", fails=True)
    assert "has 127 layers, as many as an image may have" in builder.said


def test_names_that_end_like_temporary_files_are_kept(builder: Any, base: str) -> None:
    """Whatever a tag is called, a sweep leaves it."""
    builder.build("FROM base\nRUN echo x > /x\n", "-t", "app:v1.tmp", "-t", "other:1.part")
    assert {"built", "app:v1.tmp", "other:1.part"} <= {each.name for each in builder.store.ls()}
    builder.store.sweep(tuple)
    for name in ("app:v1.tmp", "other:1.part"):
        assert all(map(os.path.isdir, builder.store.resolve(name).layers))
