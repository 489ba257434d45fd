"""Collection from directories that a hostile job has written: the right files, nothing else, in bounded time."""

import hashlib
import os
import shutil
import socket
import subprocess
import tracemalloc
from pathlib import Path

import pytest

from dayfly.jobs.spec import Artifacts
from dayfly.worker import artifacts
from dayfly.worker.artifacts import Tree, collect
from dayfly.worker.blob import blob_path
from dayfly.worker.record import ArtifactRules
from dayfly.worker.selection import artifact_rules

_needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="whiteouts and trusted xattrs need root")


@pytest.fixture
def workspace(tmp_path):
    """A workspace as overlay has it: `upper` is what the job wrote, `lower` what it was given."""
    for name in ("upper", "lower", "store"):
        (tmp_path / name).mkdir()
    fds = [os.open(tmp_path / name, os.O_RDONLY | os.O_DIRECTORY) for name in ("upper", "lower")]
    yield tmp_path, Tree("/workspace", *fds)
    for fd in fds:
        os.close(fd)


def _collect(workspace, *patterns, exclude=(), within=("",), changed=False, why_not=None):
    root, tree = workspace
    rules = ArtifactRules(tuple(patterns), tuple(exclude), tuple(within), tuple(patterns), changed)
    collected = collect(rules, [tree], str(root / "store"), lambda: why_not)
    return {artifact.path: artifact for artifact in collected.artifacts}, collected.warnings


def _write(path, content=b"x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _stored(root):
    return sorted(path for path in (root / "store").rglob("*") if path.is_file())


def test_a_file_that_the_job_wrote_is_stored_under_its_digest(workspace):
    """Content, size, mode and digest of a selected file are those of the file."""
    root, _ = workspace
    _write(root / "upper/dist/a.bin", b"content")
    (root / "upper/dist/a.bin").chmod(0o755)
    found, warnings = _collect(workspace, r"dist/.*\Z")
    artifact = found["dist/a.bin"]
    assert (artifact.size_bytes, artifact.mode) == (7, 0o755)
    assert artifact.sha256 == hashlib.sha256(b"content").hexdigest()
    assert Path(blob_path(str(root / "store"), artifact.sha256)).read_bytes() == b"content"
    assert warnings == ()


def test_equal_files_are_stored_once(workspace):
    """Two files of one content are two artifacts and one blob, and no temporary file stays."""
    root, _ = workspace
    _write(root / "upper/a", b"same")
    _write(root / "upper/b", b"same")
    found, _ = _collect(workspace, r"[ab]\Z")
    assert len(found) == 2
    assert len(_stored(root)) == 1


def test_a_file_that_the_job_was_given_is_found_and_the_written_one_wins(workspace):
    """A pattern sees the directory below through the overlay: unchanged files too, changed ones as changed."""
    root, _ = workspace
    _write(root / "lower/src/kept", b"old")
    _write(root / "lower/src/changed", b"old")
    _write(root / "upper/src/changed", b"new")
    found, _ = _collect(workspace, r"src/.*\Z")
    assert {path: artifact.sha256 for path, artifact in found.items()} == {
        "src/kept": hashlib.sha256(b"old").hexdigest(),
        "src/changed": hashlib.sha256(b"new").hexdigest(),
    }


@_needs_root
def test_what_the_job_deleted_is_not_found_below(workspace):
    """A whiteout hides a file and a whole directory; an opaque directory hides all that lay in it before."""
    root, _ = workspace
    for name in ("gone", "away/x", "opaque/old", "kept"):
        _write(root / "lower" / name)
    for name in ("gone", "away"):
        os.mknod(root / "upper" / name, 0o20000, os.makedev(0, 0))
    _write(root / "upper/opaque/new")
    os.setxattr(root / "upper/opaque", "trusted.overlay.opaque", b"y")
    found, warnings = _collect(workspace, r".*\Z")
    assert sorted(found) == ["kept", "opaque/new"]
    assert warnings == ()


def test_changed_takes_what_was_written_and_nothing_that_was_given(workspace):
    """`changed` alone means the upper's files, less the excluded ones."""
    root, _ = workspace
    _write(root / "lower/given")
    _write(root / "upper/made")
    _write(root / "upper/tmp/left")
    found, _ = _collect(workspace, changed=True, exclude=[r"tmp/.*\Z"])
    assert sorted(found) == ["made"]


def test_files_elsewhere_in_the_root_keep_their_absolute_path(workspace):
    """A tree mounted elsewhere yields absolute paths, matched as such."""
    root, tree = workspace
    _write(root / "upper/lib/x")
    rules = ArtifactRules((r"/usr/lib/.*\Z",), (), ("/usr/lib",), ("/usr/lib/**",))
    collected = collect(rules, [Tree("/usr", tree.upper_fd)], str(root / "store"), lambda: None)
    assert [artifact.path for artifact in collected.artifacts] == ["/usr/lib/x"]


def test_a_pattern_that_matches_nothing_is_a_warning(workspace):
    """The warning names the pattern as the job wrote it."""
    _, warnings = _collect(workspace, r"nope\Z")
    assert warnings == ("artifact pattern 'nope\\\\Z' matches no file",)


def test_a_pattern_outside_the_workspace_that_matches_nothing_says_what_is_collected_there(workspace):
    """What the image has is not collected, and the warning says so; below /workspace it is no question."""
    rules = artifact_rules(Artifacts(paths=("/etc/passwd", "/workspace/nope")))
    collected = collect(rules, [workspace[1]], str(workspace[0] / "store"), lambda: None)
    assert collected.warnings == (
        "artifact pattern '/etc/passwd' matches no file; outside /workspace only what the job wrote is collected",
        "artifact pattern '/workspace/nope' matches no file",
    )


@pytest.mark.attack("A11")
def test_everything_but_regular_files_is_left_out_with_a_reason(workspace, tmp_path):
    """Links, FIFOs and sockets are neither followed nor opened nor waited for, and each is named."""
    root, _ = workspace
    secret = tmp_path / "secret"
    secret.write_bytes(b"host")
    os.symlink(secret, root / "upper/link")
    os.symlink(tmp_path, root / "upper/linked-directory")
    os.mkfifo(root / "upper/fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "upper/socket"))
    found, warnings = _collect(workspace, r".*\Z")
    assert found == {}
    assert sorted(warning.partition(" left out: ")[2] for warning in warnings[:4]) == [
        "it is a FIFO",
        "it is a socket",
        "it is a symbolic link",
        "it is a symbolic link",
    ]
    assert _stored(root) == []


@pytest.mark.control("A11")
def test_a_copy_by_names_brings_the_hosts_file(workspace, tmp_path):
    """The attack is real: what follows a job's link takes what it leads to (the negative control)."""
    root, _ = workspace
    (tmp_path / "secret").write_bytes(b"host")
    os.symlink(tmp_path / "secret", root / "upper/link")
    shutil.copytree(root / "upper", tmp_path / "copied")
    assert (tmp_path / "copied/link").read_bytes() == b"host"


@pytest.mark.attack("A11")
def test_names_that_would_hurt_a_terminal_or_a_json_reader_are_left_out(workspace):
    """Names with control characters or bytes that are no UTF-8 are skipped, shown escaped; odd but sound ones stay."""
    root, _ = workspace
    sound = ["con.", "..x", "a" * 255, "\u202eright to left", "Case", "case"]
    for name in [*sound, "line\nbreak", "esc\x1b[2J"]:
        _write(root / "upper" / name)
    with open(os.fsencode(root / "upper") + b"/\xff\xfe", "wb"):
        pass
    found, warnings = _collect(workspace, r".*\Z")
    assert sorted(found) == sorted(sound)
    assert len(warnings) == 3
    assert all(warning.isprintable() and warning.isascii() for warning in warnings)


@pytest.mark.attack("A11")
def test_a_hole_of_eight_exbibytes_is_refused_at_once_and_a_small_one_stays_a_hole(workspace):
    """A file larger than all artifacts may be is skipped unread; a sparse file keeps digest and sparseness."""
    root, _ = workspace
    with open(root / "upper/vast", "wb") as file:
        for exponent in (62, 50, 43):  # as large as the file system under the test allows
            try:
                file.truncate(1 << exponent)
                break
            except OSError:
                continue
    with open(root / "upper/sparse", "wb") as file:
        file.seek(8 << 20)
        file.write(b"end")
    found, warnings = _collect(workspace, r".*\Z")
    assert list(found) == ["sparse"]
    assert found["sparse"].sha256 == hashlib.sha256(bytes(8 << 20) + b"end").hexdigest()
    blob = os.stat(blob_path(str(root / "store"), found["sparse"].sha256))
    assert blob.st_size == (8 << 20) + 3
    assert blob.st_blocks * 512 < 1 << 20
    assert "more than" in warnings[0]


@pytest.mark.attack("A11")
def test_the_number_of_files_and_of_warnings_is_bounded(workspace, monkeypatch):
    """Beyond the limit collection stops and says so; beyond fifty warnings only their number is told."""
    root, _ = workspace
    monkeypatch.setattr(artifacts, "MAX_FILES", 10)
    for number in range(20):
        _write(root / "upper" / f"f{number:03}")
    found, warnings = _collect(workspace, r".*\Z")
    assert len(found) == 10
    assert "the limit is 10 files" in warnings[0]
    for number in range(80):
        os.symlink("x", root / "lower" / f"a{number:03}")
    monkeypatch.setattr(artifacts, "MAX_FILES", 20)
    found, warnings = _collect(workspace, r".*\Z")
    assert len(found) == 20
    assert len(warnings) == artifacts.MAX_WARNINGS + 1
    assert warnings[-1].endswith("more warnings left out")


@pytest.mark.attack("A15")
def test_a_directory_of_many_names_is_not_held(workspace):
    """Hard links cost a job no inodes: of 20,000 names of 250 bytes none but the last one is in memory."""
    root, _ = workspace
    _write(root / "upper/first")
    for number in range(20_000):
        os.link(root / "upper/first", root / "upper" / f"{number:0250}")
    tracemalloc.start()
    try:
        found, _ = _collect(workspace, r"nothing\Z")
        held = tracemalloc.get_traced_memory()[1]
        list(os.listdir(root / "upper"))
        control = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == {}
    assert held < 1 << 20
    assert control > 4 << 20


@pytest.mark.attack("A15")
@pytest.mark.parametrize("tree", ["upper", "lower"])
def test_the_number_of_names_looked_at_is_bounded(workspace, monkeypatch, tree):
    """Beyond the limit collection stops and says so, whichever of the two directories they lie in."""
    root, _ = workspace
    monkeypatch.setattr(artifacts, "MAX_ENTRIES", 10)
    for number in range(20):
        _write(root / tree / f"f{number:03}")
    found, warnings = _collect(workspace, r".*\Z")
    assert len(found) == 10
    assert "stopped after 10 files: the limit is 10 names looked at" in warnings[0]


@pytest.mark.attack("A15")
def test_the_bytes_of_paths_and_warnings_are_bounded(workspace, monkeypatch):
    """Long paths end the collection, and long names in warnings are cut: exit.json is one that is read back."""
    root, _ = workspace
    monkeypatch.setattr(artifacts, "MAX_PATHS_BYTES", 1000)
    directory = (root / "upper").joinpath(*["d" * 250] * 14)
    directory.mkdir(parents=True)
    for number in range(60):
        os.symlink("x", directory / (f"{number}" + "\u00e9" * 100))
    for number in range(20):
        _write(root / "upper/a" / (f"{number:03}" + "n" * 200))
    found, warnings = _collect(workspace, r".*\Z")
    assert len(found) <= 4
    assert "MiB of paths" in warnings[0]
    assert all(len(warning) <= artifacts.MAX_WARNING + 3 for warning in warnings)


@pytest.mark.attack("A11")
def test_a_chain_of_directories_ends_in_a_warning_not_in_a_crash(workspace):
    """A thousand nested directories neither exhaust the stack nor the descriptors."""
    root, _ = workspace
    fd = os.open(root / "upper", os.O_RDONLY)
    for _ in range(1000):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    _write(root / "upper/z")
    found, warnings = _collect(workspace, r".*\Z")
    # Python 3.11's rmtree, with which pytest clears up, recurses once a level and dies of this tree.
    subprocess.run(["rm", "-rf", root / "upper/d"], check=True)
    assert list(found) == ["z"]
    assert "deeper than" in warnings[0]


def test_collection_ends_at_its_deadline_with_what_it_has(workspace):
    """A deadline that has passed takes nothing more and says so."""
    root, _ = workspace
    _write(root / "upper/a")
    found, warnings = _collect(workspace, r".*\Z", why_not="the time for collecting is over")
    assert found == {}
    assert "stopped after 0 files" in warnings[0]


def test_directories_outside_the_patterns_are_not_walked(workspace):
    """A directory that no pattern can reach is not even opened: a vast one beside the artifacts costs nothing."""
    root, _ = workspace
    _write(root / "upper/dist/sub/a")
    _write(root / "upper/vast/b")
    (root / "upper/vast").chmod(0)
    before = os.stat(root / "upper/vast").st_atime_ns
    found, _ = _collect(workspace, r"dist/sub/.*\Z", within=("dist/sub",))
    assert list(found) == ["dist/sub/a"]
    assert os.stat(root / "upper/vast").st_atime_ns == before


_ALL = (["."], ["./"], ["/workspace"], ["/workspace/."])


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["report.xml"], ["report.xml"]),
        (["dist"], ["dist/a", "dist/sub/.hidden"]),
        (["dist/"], ["dist/a", "dist/sub/.hidden"]),
        (["dist/**"], ["dist/a", "dist/sub/.hidden"]),
        (["dist/*"], ["dist/a", "dist/sub/.hidden"]),
        (["**/*.log"], ["logs/x.log", "y.log"]),
        (["/workspace/dist/a"], ["dist/a"]),
        (["{y.log,report.xml}"], ["report.xml", "y.log"]),
        (["/var/**"], ["/var/z.log"]),
        (["/**/*.log"], ["/var/z.log"]),
        (["*.log", "/var/z.log"], ["/var/z.log", "y.log"]),
        (["./report.xml"], ["report.xml"]),
        (["dist/./sub//"], ["dist/sub/.hidden"]),
        (["/./var/z.log"], ["/var/z.log"]),
        *((each, ["dist/a", "dist/sub/.hidden", "logs/x.log", "report.xml", "y.log"]) for each in _ALL),
        (["/"], ["/var/z.log"]),
    ],
)
def test_globs_of_a_job_select_what_their_author_means(workspace, tmp_path, patterns, expected):
    """Relative globs are about /workspace and nothing else, absolute ones about the rest of the root."""
    root, tree = workspace
    for path in ("report.xml", "dist/a", "dist/sub/.hidden", "logs/x.log", "y.log"):
        _write(root / "upper" / path)
    _write(tmp_path / "root/var/z.log")
    root_fd = os.open(tmp_path / "root", os.O_RDONLY | os.O_DIRECTORY)
    rules = artifact_rules(Artifacts(paths=tuple(patterns)))
    collected = collect(rules, [tree, Tree("/", root_fd)], str(root / "store"), lambda: None)
    os.close(root_fd)
    assert sorted(artifact.path for artifact in collected.artifacts) == expected
    assert collected.warnings == ()
