"""The file store and the way out of it: content whole and intact, nothing outside the directory that was named."""

import hashlib
import os
import time

import pytest

from dayfly.jobs.errors import StoreError
from dayfly.worker.blob import blob_path, copy_into
from dayfly.worker.delivery import deliver
from dayfly.worker.exit import Artifact
from dayfly.worker.logfile import STDERR, STDOUT, Frame
from dayfly.worker.store import FileStore


@pytest.fixture
def store(tmp_path):
    return FileStore(tmp_path / "store")


def _artifact(store, path, content=b"content", mode=0o640):
    source = store.path.parent / "source"
    source.write_bytes(content)
    fd = os.open(source, os.O_RDONLY)
    digest = copy_into(str(store.path), fd, len(content), lambda: None)
    os.close(fd)
    return Artifact(path, len(content), digest, mode, 1_700_000_000.0)


def test_a_log_comes_back_frame_by_frame(store):
    """Streams, times and bytes of the whole log survive the store."""
    frames = [Frame(number, STDOUT if number % 2 else STDERR, b"line %d\n" % number) for number in range(5000)]
    location = store.put_log("J1", frames)
    assert location == store.log_path("J1").as_uri()
    assert list(store.read_log("J1")) == frames
    assert store.log_path("J1").stat().st_mode & 0o777 == 0o600


def test_each_attempt_has_its_log_once_and_in_order(store):
    """What is stored twice is there once, and an attempt that wrote nothing takes nothing away."""
    attempts = [[Frame(100 * number + line, STDOUT, b"same\n") for line in range(3)] for number in range(3)]
    for frames in (attempts[0], attempts[1], attempts[1], attempts[0], [], attempts[2]):
        assert store.put_log("J1", frames) == store.log_path("J1").as_uri()
    assert list(store.read_log("J1")) == [frame for frames in attempts for frame in frames]
    assert [path.name for path in store.log_path("J1").parent.iterdir()] == ["J1.zst"]


@pytest.mark.parametrize("size", [0, 10, 200])
def test_a_broken_log_of_an_earlier_attempt_gives_way(store, size):
    """What a power cut left of one attempt does not make the next one's unreadable."""
    store.put_log("J1", [Frame(1, STDOUT, os.urandom(5000))])
    os.truncate(store.log_path("J1"), size)
    store.put_log("J1", [Frame(2, STDOUT, b"later")])
    assert list(store.read_log("J1")) == [Frame(2, STDOUT, b"later")]


def test_a_job_without_output_has_no_log_object(store):
    """Nothing written, nothing stored, and reading it yields nothing."""
    assert store.put_log("J1", []) is None
    assert list(store.read_log("J1")) == []


def test_a_broken_log_is_a_store_error(store):
    """A truncated object is said to be broken, not read as a shorter log."""
    store.put_log("J1", [Frame(1, STDOUT, os.urandom(5000))])
    os.truncate(store.log_path("J1"), 200)
    with pytest.raises(StoreError, match="J1"):
        list(store.read_log("J1"))


def test_artifacts_arrive_at_their_path_with_mode_and_time(store, tmp_path):
    """Directories are made, files carry mode and time, those from elsewhere in the root go below _root."""
    entries = [_artifact(store, "dist/sub/a", b"a", 0o755), _artifact(store, "/root/x", b"x")]
    written = deliver(store, entries, tmp_path / "out")
    assert written == [tmp_path / "out/dist/sub/a", tmp_path / "out/_root/root/x"]
    assert written[0].read_bytes() == b"a"
    status = written[0].stat()
    assert (status.st_mode & 0o777, status.st_mtime) == (0o755, 1_700_000_000.0)


@pytest.mark.attack("A12")
def test_an_existing_file_or_link_is_replaced_not_written_through(store, tmp_path):
    """A link that lies where an artifact goes is replaced; what it pointed to stays as it was."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a").symlink_to(victim)
    deliver(store, [_artifact(store, "a")], tmp_path / "out")
    assert victim.read_bytes() == b"mine"
    assert (tmp_path / "out/a").read_bytes() == b"content"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a"]


@pytest.mark.control("A12")
def test_a_copy_to_a_path_as_it_stands_writes_elsewhere(store, tmp_path):
    """The attack is real: `..` in a result's path, and a link that lies in the way (the negative control)."""
    (tmp_path / "victim").write_bytes(b"mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a").symlink_to(tmp_path / "victim")
    for path in ("a", "../b"):
        with store.open_blob(_artifact(store, path).sha256) as content:
            (tmp_path / "out" / path).write_bytes(content.read())
    assert [(tmp_path / name).read_bytes() for name in ("victim", "b")] == [b"content", b"content"]


@pytest.mark.attack("A12")
def test_a_directory_link_that_leads_out_is_refused(store, tmp_path):
    """A link inside the output directory is followed as long as it stays inside."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out/real").mkdir(parents=True)
    (tmp_path / "out/outward").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "out/inward").symlink_to("real")
    deliver(store, [_artifact(store, "inward/a")], tmp_path / "out")
    assert (tmp_path / "out/real/a").exists()
    with pytest.raises(StoreError, match="outward/a: a link on the way leads outside the output directory"):
        deliver(store, [_artifact(store, "outward/a")], tmp_path / "out")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_an_artifact_that_fails_does_not_keep_the_others(store, tmp_path):
    """All that can be delivered is; each that cannot is named with the reason."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out/file").write_text("in the way")
    entries = [_artifact(store, path) for path in ("file/a", "../b", "c")]
    with pytest.raises(StoreError) as caught:
        deliver(store, entries, tmp_path / "out")
    assert (tmp_path / "out/c").read_bytes() == b"content"
    lines = str(caught.value).splitlines()
    assert lines[0] == "2 of 3 artifacts were not delivered:"
    assert "out/file/a: Not a directory" in lines[1]
    assert "'../b': it is not a plain path" in lines[2]


@pytest.mark.attack("A12")
@pytest.mark.parametrize("path", ["../a", "a/../../b", "a//b", "", "/", ".", "a/.", "/../x", "a\0b"])
def test_a_path_that_no_collector_made_is_refused(store, tmp_path, path):
    """Whatever stands in a result, nothing is written outside the output directory."""
    with pytest.raises(StoreError, match="not a plain path"):
        deliver(store, [_artifact(store, path)], tmp_path / "out")


def test_damaged_and_missing_content_is_said_to_be_so(store, tmp_path):
    """Content that does not bear its digest is never delivered."""
    entry = _artifact(store, "a")
    blob = blob_path(str(store.path), entry.sha256)
    with open(blob, "r+b") as file:
        file.write(b"X")
    with pytest.raises(StoreError, match="damaged"):
        deliver(store, [entry], tmp_path / "out")
    os.unlink(blob)
    with pytest.raises(StoreError, match="cannot read artifact"):
        deliver(store, [entry], tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_an_output_directory_that_cannot_be_written_names_the_remedy(store, tmp_path):
    """A file in the way of the directory is an error with the way out of it."""
    (tmp_path / "out").write_bytes(b"")
    with pytest.raises(StoreError, match="--out"):
        deliver(store, [_artifact(store, "a")], tmp_path / "out")


def test_expiry_deletes_what_no_living_job_holds(store):
    """A blob goes when the last job that holds it has expired; a young one stays whatever happens."""
    shared, alone = _artifact(store, "a", b"shared"), _artifact(store, "b", b"alone")
    store.keep("J1", [shared.sha256, alone.sha256], expires_at=100.0)
    store.keep("J2", [shared.sha256], expires_at=None)
    now = time.time()
    assert store.expire(now) == 0
    assert store.expire(now + 2 * 24 * 3600) == 1
    with store.open_blob(shared.sha256) as content:
        assert content.read() == b"shared"
    assert not os.path.exists(blob_path(str(store.path), hashlib.sha256(b"alone").hexdigest()))
