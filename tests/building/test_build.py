"""What each instruction does: to the files, to the configuration, to the history."""

from __future__ import annotations

import http.server
import os
import stat
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dayfly.runtime.images.history import history

pytestmark = [pytest.mark.kernel, pytest.mark.slow]


def _seen(builder: Any, merged: Callable[[Any], Path], name: str = "built") -> Path:
    return merged(builder.store.resolve(name))


def test_run_copy_and_the_configuration(builder: Any, base: str, merged: Any) -> None:
    """A step runs in what those before it made, with their environment, directory and user."""
    builder.write("file.txt", "data", 0o640)
    builder.write("sub/inner", "inner")
    builder.write("ignored/secret")
    builder.write(".dockerignore", "ignored\n**/*.tmp\n")
    builder.write("sub/x.tmp")
    builder.build(
        """
FROM base
ENV A=1 B="two words"
ARG C=three
WORKDIR /app/place
COPY . .
RUN echo "$A $B $C" > out && id -u > uid && chmod 4755 uid && rm sub/inner
USER alice
WORKDIR sub
RUN id -u > /tmp/user; pwd > /tmp/where || true
ENTRYPOINT ["/bin/echo"]
CMD ["hello"]
LABEL x=y
EXPOSE 80 53/udp
VOLUME /data
STOPSIGNAL SIGINT
SHELL ["/bin/sh", "-ec"]
"""
    )
    root = _seen(builder, merged)
    work = root / "app/place"
    assert (work / "out").read_text() == "1 two words three\n"
    assert (stat.S_IMODE((work / "file.txt").stat().st_mode), (work / "file.txt").stat().st_uid) == (0o640, 0)
    assert sorted(path.name for path in work.iterdir()) == [
        ".dockerignore",
        "Containerfile",
        "file.txt",
        "out",
        "sub",
        "uid",
    ]
    assert list((work / "sub").iterdir()) == []
    assert stat.S_IMODE((work / "uid").stat().st_mode) == 0o4755
    assert ((root / "tmp/user").read_text(), (root / "tmp/user").stat().st_uid) == ("1000\n", 1000)
    image = builder.store.resolve("built")
    assert (image.config.entrypoint, image.config.cmd) == (("/bin/echo",), ("hello",))
    assert (image.config.user, image.config.workdir) == ("alice", "/app/place/sub")
    assert (image.config.env["A"], image.config.env["B"], image.config.labels) == ("1", "two words", {"x": "y"})
    assert "C" not in image.config.env
    settings = builder.store.named("built").config["config"]
    assert settings["ExposedPorts"] == {"80/tcp": {}, "53/udp": {}}
    assert (settings["Volumes"], settings["StopSignal"]) == ({"/data": {}}, "SIGINT")
    steps = [step.created_by.split()[0] for step in history(builder.store, "built") if step.created_by]
    assert steps[:7] == ["SHELL", "STOPSIGNAL", "VOLUME", "EXPOSE", "LABEL", "CMD", "ENTRYPOINT"]
    assert sum(bool(step.layer) for step in history(builder.store, "built")) == 5
    for name in ("proc", "sys", "dev", "workspace", "etc/resolv.conf", "etc/hosts"):
        assert not (root / name).exists(), name


def test_a_step_that_was_taken_is_not_taken_again(builder: Any, base: str) -> None:
    """Until a file, a variable that it sees, or a step before it is another; nothing of its jobs is left."""
    text = "FROM base\nARG V=1\nCOPY a /a\nRUN echo $V > /v\nCMD x\n"
    builder.write("a", "one")
    builder.build(text)
    builder.build(text)
    assert builder.said.count("as before") == 2
    builder.build(text, "--build-arg", "V=2")
    assert builder.said.count("as before") == 1
    builder.write("a", "two")
    builder.build(text)
    assert builder.said.count("as before") == 0
    os.utime(builder.directory / "a", (1, 1))
    builder.build(text)
    assert builder.said.count("as before") == 2
    builder.build(text, "--no-cache")
    assert builder.said.count("as before") == 0
    assert list(builder.home.glob("kept/*")) == []
    assert list(builder.home.glob("build/staging/*")) == []


def test_the_same_inputs_give_the_same_digest(builder: Any, base: str) -> None:
    """With SOURCE_DATE_EPOCH, though every step is taken anew; pushed and exported it is the same still."""
    text = "FROM base\nWORKDIR /w\nCOPY . .\nRUN echo x > y; mkdir z\n"
    digests = {builder.build(text, "--no-cache", SOURCE_DATE_EPOCH="1700000000") for _ in range(2)}
    assert len(digests) == 1
    assert builder.store.named("built").config["created"] == "2023-11-14T22:13:20Z"
    layers = builder.store.resolve("built").layers
    newest = max(os.lstat(path).st_mtime for layer in layers[:3] for path in Path(layer).rglob("*"))
    assert newest <= 1700000000
    with builder.store.packaged("built") as image:
        assert image.manifest.diff_ids == builder.store.named("built").diff_ids


def test_stages_are_built_as_far_as_they_are_needed(builder: Any, base: str, merged: Any) -> None:
    """COPY --from takes from a stage, by name or number, or from an image; one that nobody needs is not built."""
    builder.build(
        """
ARG IMAGE=base
FROM ${IMAGE} AS first
RUN mkdir -p /out/dir && echo one > /out/one && echo two > /out/dir/two && ln -s dir /out/link
FROM base AS never
RUN false
FROM scratch
COPY --from=first /out/ /
COPY --from=0 --chown=5:6 --chmod=600 /out/one /owned
COPY --from=base /etc/passwd /bin/busybox /files/
"""
    )
    root = _seen(builder, merged)
    assert sorted(os.listdir(root)) == ["dir", "files", "link", "one", "owned"]
    assert ((root / "link").readlink(), (root / "dir/two").read_text()) == (Path("dir"), "two\n")
    facts = (root / "owned").stat()
    assert (stat.S_IMODE(facts.st_mode), facts.st_uid, facts.st_gid) == (0o600, 5, 6)
    assert sorted(os.listdir(root / "files")) == ["busybox", "passwd"]
    builder.build("FROM base AS a\nRUN echo a > /a\nFROM a AS b\nRUN echo b > /b\n", "--target", "a")
    assert not (_seen(builder, merged) / "b").exists()


def test_chown_takes_names_of_the_image_it_copies_to(builder: Any, base: str, merged: Any) -> None:
    """And says when there is none."""
    builder.write("f")
    builder.build("FROM base\nCOPY --chown=alice f /a\nCOPY --chown=alice:staff f /b\nCOPY --chown=7 f /c\n")
    root = _seen(builder, merged)
    owners = [((root / name).stat().st_uid, (root / name).stat().st_gid) for name in "abc"]
    assert owners == [(1000, 1001), (1000, 50), (7, 7)]
    builder.build("FROM base\nCOPY --chown=nobody f /a\n", fails=True)
    assert "line 2: COPY: the image has no user 'nobody' in /etc/passwd" in builder.said


def test_here_documents_are_scripts_and_files(builder: Any, base: str, merged: Any) -> None:
    """Of RUN and of COPY; expanded unless their name is quoted."""
    builder.build(
        """
FROM base
ENV A=value
RUN <<EOF
echo one > /one
echo $A > /two
EOF
RUN cat <<X > /three
line $A
X
COPY <<EOF <<"raw" /files/
$A "quoted" 'single'
EOF
$A
raw
"""
    )
    root = _seen(builder, merged)
    assert [(root / name).read_text() for name in ("one", "two", "three")] == ["one\n", "value\n", "line value\n"]
    assert (root / "files/EOF").read_text() == "value \"quoted\" 'single'\n"
    assert (root / "files/raw").read_text() == "$A\n"


def test_mounts_are_seen_and_not_kept(builder: Any, base: str, merged: Any, tmp_path: Path) -> None:
    """A cache stays from build to build; a secret is in no layer; of a bind only what is copied out stays."""
    builder.write("data/file", "from the context")
    (tmp_path / "token").write_text("t0ken")
    text = """
FROM base AS other
RUN mkdir /made && echo other > /made/file
FROM base
RUN --mount=type=cache,target=/cache test -e /cache/seen && echo again > /cached; echo x > /cache/seen
RUN --mount=type=secret,id=token cat /run/secrets/token > /length && chmod 600 /length
RUN --mount=type=bind,source=data,target=/mnt cp /mnt/file /copied && ! echo x > /mnt/new
RUN --mount=type=bind,from=other,source=/made,target=/mnt cp /mnt/file /other
RUN --mount=type=tmpfs,target=/scratch echo x > /scratch/file
"""
    builder.build(text, "--secret", f"id=token,src={tmp_path}/token")
    assert not (_seen(builder, merged) / "cached").exists()
    builder.build(text, "--no-cache", "--secret", f"id=token,src={tmp_path}/token")
    root = _seen(builder, merged)
    assert (root / "cached").read_text() == "again\n"
    assert (root / "length").read_text() == "t0ken"
    assert ((root / "copied").read_text(), (root / "other").read_text()) == ("from the context", "other\n")
    for name in ("cache", "run/secrets", "mnt", "scratch"):
        assert not (root / name).exists(), name
    builder.build("FROM base\nRUN --mount=type=secret,id=nope,required true\n", fails=True)
    assert "there is no secret 'nope': --secret id=nope,src=FILE" in builder.said


def test_a_directory_that_workdir_makes_is_the_users(builder: Any, base: str, merged: Any) -> None:
    """As with Docker; --chown takes a group alone."""
    builder.write("file")
    builder.build("FROM base\nCOPY --chown=:alice file /file\nUSER alice\nWORKDIR /made/inner\nRUN echo x > mine\n")
    root = _seen(builder, merged)
    facts = (root / "made/inner").stat()
    assert (facts.st_uid, facts.st_gid, (root / "made/inner/mine").stat().st_uid) == (1000, 1001, 1000)
    assert ((root / "file").stat().st_uid, (root / "file").stat().st_gid) == (0, 1001)


def test_an_exception_below_a_directory_that_is_ignored(builder: Any, base: str, merged: Any) -> None:
    """It comes, with the directories above it, and nothing beside it; directories without exceptions do not."""
    builder.write(".dockerignore", "docs\nempty\nother\n!docs/deep/README\n!**/kept\n!Containerfile\n")
    for name in ("docs/a", "docs/deep/b", "docs/deep/README", "other/kept", "other/x", "empty/x"):
        builder.write(name)
    builder.build("FROM base\nCOPY . /all\nCOPY docs/deep /deep\n")
    root = _seen(builder, merged)
    found = sorted(str(path.relative_to(root / "all")) for path in (root / "all").rglob("*"))
    assert found == [
        ".dockerignore",
        "Containerfile",
        *("docs", "docs/deep", "docs/deep/README"),
        *("other", "other/kept"),
    ]
    assert [path.name for path in (root / "deep").iterdir()] == ["README"]
    builder.build("FROM base\nCOPY empty /x\n", fails=True)
    assert "there is no 'empty'" in builder.said


def test_a_link_that_is_copied_by_its_name_is_the_file_of_that_name(builder: Any, base: str, merged: Any) -> None:
    """Links within a directory stay links."""
    builder.write("data", "text")
    (builder.directory / "link").symlink_to("data")
    builder.build("FROM base\nCOPY link /into/\nCOPY . /all/\n")
    root = _seen(builder, merged)
    assert (root / "into/link").read_text() == "text"
    assert not (root / "into/link").is_symlink()
    assert (root / "all/link").readlink() == Path("data")


def test_an_add_of_several_sources(builder: Any, base: str, merged: Any) -> None:
    """Archives are unpacked, other files come as they are, in one layer."""
    for name in ("one", "two"):
        with tarfile.open(builder.directory / f"{name}.tar", "w") as tar:
            tar.addfile(tarfile.TarInfo(name))
    builder.write("plain", "text")
    builder.build("FROM base\nADD one.tar plain two.tar /into/\n")
    assert sorted(path.name for path in (_seen(builder, merged) / "into").iterdir()) == ["one", "plain", "two"]
    assert [each.created_by for each in history(builder.store, "built")] == [
        "ADD one.tar plain two.tar /into/",
        "dayfly image import",
    ]
    builder.build("FROM base\nADD one.tar two.tar /into\n", fails=True)
    assert "line 2: ADD: with several sources the destination must end with a slash" in builder.said


def test_add_unpacks_archives_and_fetches(builder: Any, base: str, merged: Any) -> None:
    """An archive of the context with its owners; a URL as a file that only root reads; its checksum is compared."""
    with tarfile.open(builder.directory / "a.tar.gz", "w:gz") as tar:
        for name, uid in (("d/x", 7), ("../out", 0)):
            entry = tarfile.TarInfo(name)
            entry.uid = uid
            tar.addfile(entry)
    builder.write("plain", "text")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"fetched")

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/path/name.bin"
    builder.build(f"FROM base\nADD a.tar.gz /into/\nADD plain /plain\nADD {url} /got/\nADD {url} /renamed\n")
    root = _seen(builder, merged)
    assert ((root / "into/d/x").stat().st_uid, (root / "into/out").exists(), (root / "out").exists()) == (
        7,
        True,
        False,
    )
    assert (root / "plain").read_text() == "text"
    assert ((root / "got/name.bin").read_text(), (root / "renamed").read_text()) == ("fetched", "fetched")
    assert stat.S_IMODE((root / "renamed").stat().st_mode) == 0o600
    builder.build(f"FROM base\nADD --checksum=sha256:{'0' * 64} {url} /x\n", fails=True)
    assert "its checksum is sha256:" in builder.said
    server.shutdown()
    server.server_close()
    builder.build(f"FROM base\nADD {url} /x\n", fails=True)
    assert f"line 2: ADD: cannot fetch {url}" in builder.said


def test_what_fails_says_which_line_and_leaves_nothing(builder: Any, base: str) -> None:
    """A command, a file that is not there, an image that is not; no image, no kept job, no name."""
    for text, message in (
        ("FROM base\nRUN true\nRUN exit 3\n", "line 3: RUN: exit 3 failed with exit code 3"),
        ("FROM base\nCOPY nope /x\n", "line 2: COPY: there is no 'nope'"),
        ("FROM base\nCOPY no*pe /x\n", "line 2: COPY: nothing matches 'no*pe'"),
        ("FROM base\nCOPY a\n", "line 2: COPY: it needs a source and a destination"),
        ("FROM base\nCOPY Containerfile Containerfile /x\n", "the destination must end with a slash"),
        ("FROM base\nCOPY ../x /x\n", "there is no '../x'"),
        ("FROM scratch\nRUN true\n", "line 2: RUN: there is nothing to run in yet"),
        ("FROM scratch\nENV a=b\n", "the image would have no layer"),
        ("FROM 127.0.0.1:1/nope\n", "cannot get the manifest of 127.0.0.1:1/nope:latest"),
        ("FROM base\nENV a\n", "line 2: ENV: a has no value"),
        ("FROM $NONE\n", "names no image; give the ARG a value: --build-arg"),
        ("FROM --platform=linux/s390x base\n", "this machine builds linux/"),
        ("FROM base\nCOPY --from=nope:1 x /x\n", "nope"),
    ):
        builder.build(text, fails=True)
        assert message in builder.said, (text, builder.said)
    assert {entry.name for entry in builder.store.ls()} == {"base"}
    assert list(builder.home.glob("kept/*")) == []


def test_what_is_only_recorded_is_said(builder: Any, base: str) -> None:
    """HEALTHCHECK and ONBUILD stand in the image; nothing obeys them."""
    builder.build(
        "FROM base\nHEALTHCHECK --interval=30s --retries=3 CMD curl -f x\nONBUILD RUN x\nMAINTAINER me\nRUN true\n"
    )
    config = builder.store.named("built").config
    assert config["config"]["Healthcheck"] == {"Test": ["CMD-SHELL", "curl -f x"], "Interval": 30 * 10**9, "Retries": 3}
    assert (config["config"]["OnBuild"], config["author"]) == (["RUN x"], "me")
    assert builder.said.count("warning:") == 3


def test_a_build_that_is_interrupted_leaves_nothing(builder: Any, base: str) -> None:
    """The step's job is cancelled with it."""
    builder.write("Containerfile", "FROM base\nRUN echo begun; cat /dev/zero > /dev/null\n")
    command = [sys.executable, "-m", "dayfly", "image", "build", "-t", "x", str(builder.directory)]
    building = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=builder.environment)
    assert building.stderr is not None
    while "begun" not in (line := building.stderr.readline()):
        assert line or building.poll() is None
    building.terminate()
    building.communicate(timeout=60)
    assert building.returncode not in (0, None)
    assert list(builder.home.glob("kept/*")) == []
    assert {entry.name for entry in builder.store.ls()} == {"base"}
