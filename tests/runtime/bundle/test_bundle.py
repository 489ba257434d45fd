"""A frozen directory: the same tree, named by its content, cheap when little has changed."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dayfly.jobs.errors import HostError, StoreError
from dayfly.runtime.bundle import freeze, path_of, remove, unused

_LONG_AGO_NS = 1234567890123456789


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory whose files are old enough to be trusted the next time, but for their change times."""
    root = tmp_path / "source"
    (root / "src/deep").mkdir(parents=True)
    (root / ".git").mkdir()
    (root / ".git/HEAD").write_text("ref")
    (root / "src/a.c").write_text("int a;")
    (root / "src/deep/b.c").write_text("int b;")
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    (root / "link").symlink_to("/etc/passwd")
    (root / "dangling").symlink_to("nowhere")
    (root / os.fsdecode(b"caf\xe9\n")).touch()
    os.chown(root / "src/a.c", 1000, 100)
    for path in [*root.rglob("*"), root]:
        os.utime(path, ns=(0, _LONG_AGO_NS), follow_symlinks=False)
    return root


@pytest.fixture
def root(home: Path) -> Path:
    return home / "bundles"


@pytest.fixture
def as_if_old(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Sets the clock of freezes a minute ahead, so that files written just now count as long unchanged."""

    def apply() -> None:
        now = time.time_ns
        monkeypatch.setattr("dayfly.runtime.freezing.time.time_ns", lambda: now() + 60 * 10**9)

    return apply


def _tree(top: Path | str) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for path in [Path(top), *Path(top).rglob("*")]:
        status = os.lstat(path)
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(top))] = (
            status.st_mode,
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns,
            content,
        )
    return found


def test_a_frozen_directory_is_the_same_tree(source: Path, root: Path) -> None:
    """Modes, owners, times, links and odd names, `.git` included; private to its owner."""
    digest = freeze(source, root)
    assert _tree(path_of(digest, root)) == _tree(source)
    assert os.stat(root).st_mode & 0o777 == 0o700


def test_a_later_edit_does_not_reach_it(source: Path, root: Path) -> None:
    """In place, by replacement, by removal."""
    digest = freeze(source, root)
    before = _tree(path_of(digest, root))
    with open(source / "src/a.c", "a") as file:
        file.write("more")
    (source / "run.sh").unlink()
    assert _tree(path_of(digest, root)) == before
    assert freeze(source, root) != digest


def test_the_digest_names_the_content(source: Path, root: Path, tmp_path: Path) -> None:
    """The same elsewhere; another for each change of content, mode, time, owner, name or link."""
    digest = freeze(source, root)
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", str(source), str(copy)], check=True)
    os.utime(copy / "src")
    assert freeze(copy, root) == digest
    changes: list[Callable[[], Any]] = [
        lambda: (copy / "src/a.c").write_text("int b;"),
        lambda: (copy / "run.sh").chmod(0o700),
        lambda: os.utime(copy / "run.sh", ns=(0, _LONG_AGO_NS + 1)),
        lambda: os.chown(copy / "run.sh", 7, 0),
        lambda: os.rename(copy / "run.sh", copy / "walk.sh"),
        lambda: ((copy / "link").unlink(), (copy / "link").symlink_to("elsewhere")),
        lambda: (copy / "empty").mkdir(),
    ]
    seen = {digest}
    for change in changes:
        change()
        seen.add(freeze(copy, root))
    assert len(seen) == len(changes) + 1


def test_what_dayflyignore_names_is_left_out(source: Path, root: Path) -> None:
    """The file itself is in."""
    (source / ".dayflyignore").write_text("*.c\n!a.c\n/.git\n")
    frozen = _tree(path_of(freeze(source, root), root))
    assert {".dayflyignore", "src/a.c", "src/deep"} <= set(frozen)
    assert not {"src/deep/b.c", ".git", ".git/HEAD"} & set(frozen)


def test_nothing_is_followed_and_special_files_are_left_out(source: Path, root: Path) -> None:
    """A FIFO does not hold the freeze up, a socket and a device are not made."""
    os.mkfifo(source / "fifo")
    os.mknod(source / "null", 0o020666, os.makedev(1, 3))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(source / "socket"))
        frozen = _tree(path_of(freeze(source, root), root))
    assert not {"fifo", "null", "socket"} & set(frozen)
    assert frozen["link"][4] == "/etc/passwd"


def test_an_unchanged_file_is_not_read_again(source: Path, root: Path, as_if_old: Callable[[], None]) -> None:
    """It is a link into the bundle before; only the changed one is copied."""
    as_if_old()
    first = Path(path_of(freeze(source, root), root))
    (source / "src/a.c").write_text("changed")
    second = Path(path_of(freeze(source, root), root))
    assert os.stat(second / "src/deep/b.c").st_ino == os.stat(first / "src/deep/b.c").st_ino
    assert os.stat(second / "src/a.c").st_ino != os.stat(first / "src/a.c").st_ino
    assert os.stat(second / "src/deep/b.c").st_ino != os.stat(source / "src/deep/b.c").st_ino
    assert _tree(second) == _tree(source)


def test_an_unchanged_directory_is_found_without_reading(
    source: Path, root: Path, as_if_old: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one file is opened, nothing is made."""
    as_if_old()
    digest = freeze(source, root)
    monkeypatch.setattr("dayfly.runtime.freezing._copy_content", None)
    assert freeze(source, root) == digest


def test_a_file_just_written_is_read_again(source: Path, root: Path) -> None:
    """Two writes within a tick of the clock leave the same times: the young are not trusted."""
    freeze(source, root)
    (source / "src/a.c").write_text("one")
    status = os.stat(source / "src/a.c")
    first = freeze(source, root)
    (source / "src/a.c").write_text("two")
    os.utime(source / "src/a.c", ns=(0, status.st_mtime_ns))
    second = freeze(source, root)
    assert (Path(path_of(second, root)) / "src/a.c").read_text() == "two"
    assert first != second


def test_two_names_of_the_same_content_stay_two_files(source: Path, root: Path, as_if_old: Callable[[], None]) -> None:
    """Were they one inode, `tar` in the job would write something else than outside."""
    for name in ("LICENSE", "src/LICENSE"):
        (source / name).write_text("same")
        os.utime(source / name, ns=(0, _LONG_AGO_NS))
    as_if_old()
    freeze(source, root)
    (source / "run.sh").write_text("changed")
    frozen = Path(path_of(freeze(source, root), root))
    assert os.stat(frozen / "LICENSE").st_ino != os.stat(frozen / "src/LICENSE").st_ino


def test_holes_stay_holes(source: Path, root: Path) -> None:
    """A sparse file of 100 MiB costs no disk."""
    with open(source / "sparse", "wb") as file:
        file.truncate(100 << 20)
    frozen = Path(path_of(freeze(source, root), root)) / "sparse"
    assert os.stat(frozen).st_size == 100 << 20
    assert os.stat(frozen).st_blocks == 0


def test_a_file_that_never_rests_is_reported(source: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is copied again when it changed meanwhile, three times, then named with a remedy; nothing is left."""
    from dayfly.runtime import freezing

    copied = freezing._copied
    copies: list[int] = []

    def copy_and_change(reader: int, writer: int) -> str:
        digest = copied(reader, writer)
        copies.append(reader)
        if len(copies) < 2 or restless:
            with open(source / "run.sh", "a") as file:
                file.write("x")
        return digest

    monkeypatch.setattr(freezing, "_copied", copy_and_change)
    only = source / "only"
    only.mkdir()
    os.link(source / "run.sh", only / "run.sh")
    restless = False
    assert (Path(path_of(freeze(only, root), root)) / "run.sh").read_text() == "#!/bin/sh\nx"
    restless = True
    with pytest.raises(HostError, match=r"freeze the file run.sh: it changed each of the 3 times.*\.dayflyignore"):
        freeze(only, root)
    assert os.listdir(root / "staging") == []


def test_a_directory_that_turns_into_a_symlink_leads_nowhere(
    source: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the walk and the copy."""
    from dayfly.runtime import bundle

    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/b.c").write_text("secret")
    copy = bundle._copy

    def swap_first(*arguments: Any) -> str:
        shutil.rmtree(source / "src/deep")
        (source / "src/deep").symlink_to(tmp_path / "secret")
        return copy(*arguments)

    monkeypatch.setattr(bundle, "_copy", swap_first)
    with pytest.raises(HostError, match=r"freeze the directory .*src/deep/b.c"):
        freeze(source, root)


def test_files_that_vanish_meanwhile_are_left_out(source: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the freeze had begun a moment later."""
    from dayfly.runtime import bundle

    copy = bundle._copy

    def unlink_first(*arguments: Any) -> str:
        (source / "run.sh").unlink()
        shutil.rmtree(source / "src/deep")
        return copy(*arguments)

    monkeypatch.setattr(bundle, "_copy", unlink_first)
    frozen = Path(path_of(freeze(source, root), root))
    assert not (frozen / "run.sh").exists()
    assert not (frozen / "src/deep/b.c").exists()


def test_the_home_within_the_directory_is_left_out(tmp_path: Path) -> None:
    """`--dir` around DAYFLY_HOME does not freeze the frozen."""
    (tmp_path / "mine").touch()
    root = tmp_path / "state/dayfly/bundles"
    root.mkdir(parents=True)
    frozen = Path(path_of(freeze(tmp_path, root), root))
    assert (frozen / "mine").exists()
    assert os.listdir(frozen / "state") == []


def test_what_cannot_be_frozen_says_so(root: Path, tmp_path: Path) -> None:
    """Nothing there, a file, a bundle that is not here, a digest that is a path."""
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match=r"freeze the directory .*missing: No such file"):
        freeze(tmp_path / "missing", root)
    with pytest.raises(HostError, match="Not a directory"):
        freeze(tmp_path / "file", root)
    with pytest.raises(StoreError, match="is not on this host; submit the job again"):
        path_of("sha256:" + "0" * 64, root)
    with pytest.raises(StoreError, match="is not the digest"):
        path_of("sha256:../../etc", root)


def test_unused_bundles_go(source: Path, root: Path) -> None:
    """Neither those that are kept, nor those given out a short while ago."""
    digest = freeze(source, root)
    assert unused(root, {digest}, 0) == ()
    assert unused(root, set(), 3600) == ()
    assert unused(root, set(), -1) == (digest,)
    assert remove(digest, root, older_than_seconds=3600) is False
    assert remove(digest, root, older_than_seconds=-1) is True
    assert remove(digest, root) is True
    with pytest.raises(StoreError):
        path_of(digest, root)
    assert os.listdir(root / "staging") == []
    assert freeze(source, root) == digest
    assert unused(root.parent / "nothing", set(), 0) == ()


def test_freezing_again_gives_a_bundle_a_new_lease(source: Path, root: Path, as_if_old: Callable[[], None]) -> None:
    """A collector that comes between a freeze and its job's enqueueing spares it."""
    as_if_old()
    digest = freeze(source, root)
    os.utime(Path(path_of(digest, root)).parent, (0, 0))
    assert unused(root, set(), 3600) == (digest,)
    freeze(source, root)
    assert unused(root, set(), 3600) == ()


def test_many_freezes_at_once_agree(source: Path, root: Path) -> None:
    """Ten processes, with a collector among them: each gets the digest, and the tree is whole."""
    script = "import sys; from dayfly.runtime.bundle import freeze; print(freeze(sys.argv[1], sys.argv[2]))"
    command = [sys.executable, "-c", script, str(source), str(root)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(10)]
    done = threading.Event()

    def collect() -> None:
        while not done.is_set():
            for digest in unused(root, set(), -1):
                remove(digest, root, older_than_seconds=-1)

    collector = threading.Thread(target=collect)
    collector.start()
    try:
        digests = {process.communicate(timeout=60)[0].strip() for process in processes}
    finally:
        done.set()
        collector.join()
    assert len(digests) == 1
    assert freeze(source, root) in digests
    assert _tree(path_of(digests.pop(), root)) == _tree(source)


def test_contents_are_what_they_are_said_to_be(source: Path, root: Path) -> None:
    """Larger than one read, hashed and copied whole."""
    content = os.urandom((3 << 20) + 7)
    (source / "big").write_bytes(content)
    frozen = Path(path_of(freeze(source, root), root)) / "big"
    assert hashlib.sha256(frozen.read_bytes()).digest() == hashlib.sha256(content).digest()
