"""The commands beside a job's life: images, the stack, configuration, the doctor."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import jsonschema
import pytest

if TYPE_CHECKING:
    from tests.face.conftest import Command

pytestmark = pytest.mark.kernel


def test_image_is_imported_listed_run_and_removed(dayfly: Command, tmp_path: Path) -> None:
    """A tarball becomes an image under a name, a job runs in it, and it goes again."""
    tarball = tmp_path / "root.tar"
    with tarfile.open(tarball, "w") as tar:
        tar.add("/bin/busybox" if os.path.exists("/bin/busybox") else "/bin/true", "bin/true")
        content = tarfile.TarInfo("etc/name")
        content.size = 6
        tar.addfile(content, io.BytesIO(b"image\n"))
    imported = dayfly("image", "import", str(tarball), "tiny:1")
    assert imported.returncode == 0, imported.stderr
    assert imported.stdout.startswith(b"sha256:")
    [listed] = json.loads(dayfly("image", "ls", "--json").stdout)
    assert listed["name"].endswith("tiny:1")
    assert listed["digest"] == imported.stdout.decode().strip()
    # The shell of the image is missing: that is the job's own 127, not a fault of ours.
    assert dayfly("run", "--image", "tiny:1", "--", "sh").returncode == 127
    assert dayfly("image", "rm", "tiny:1").returncode == 0
    assert json.loads(dayfly("image", "ls", "--json").stdout) == []
    gone = dayfly("image", "rm", "tiny:1")
    assert (gone.returncode, b"no image" in gone.stderr) == (125, True)


def test_up_keeps_the_stack_and_down_ends_it(dayfly_in: Callable[[Path], Command], tmp_path: Path) -> None:
    """`up` outlives DAYFLY_IDLE; `down` says what it stopped, and nothing the second time."""
    command = dayfly_in(tmp_path / "kept")
    command.environment["DAYFLY_IDLE"] = "1s"
    try:
        assert command("up").returncode == 0
        assert b"is up already" in command("up").stderr
        assert command("run", "-q", "--", "sleep", "2").returncode == 0
        assert b"is up already" in command("up").stderr
    finally:
        down = command("down")
    assert (down.returncode, b"stopped: worker, valkey" in down.stderr) == (0, True)
    assert b"nothing was running" in command("down").stderr
    assert not (command.home / "run/valkey.sock").exists()


def test_down_waits_for_what_runs(dayfly_in: Callable[[Path], Command], tmp_path: Path) -> None:
    """A running job is finished, and its record is there afterwards."""
    command = dayfly_in(tmp_path / "drained")
    try:
        running = command.start("run", "--", "sh", "-c", "echo ready; sleep 1.5; echo done")
        assert running.stdout is not None
        assert running.stdout.readline() == b"ready\n"
        assert command("down").returncode == 0
        assert (running.communicate(timeout=30)[0], running.returncode) == (b"done\n", 0)
    finally:
        command("down", "--now")


def test_config_show_prints_values_and_origins(dayfly: Command, tmp_path: Path) -> None:
    """Every value with where it was set, for people and for programs; a password is not shown to people."""
    file = tmp_path / "config.toml"
    file.write_text('[client]\nurl = "redis://:hunter22@host"\n')
    shown = dayfly("config", "show", DAYFLY_CONFIG=str(file)).stdout.decode()
    assert f"# {file}:2" in shown
    assert "hunter22" not in shown
    values = json.loads(dayfly("config", "show", "--json").stdout)
    assert values["worker.home"] == {"value": str(dayfly.home), "origin": "environment DAYFLY_HOME"}


def test_schemas_are_json_schemas(dayfly: Command) -> None:
    """Both schemas that we print are valid ones."""
    for arguments in (("schema",), ("config", "schema")):
        jsonschema.Draft202012Validator.check_schema(json.loads(dayfly(*arguments).stdout))


def test_doctor_looks_at_everything_and_says_so_by_its_exit_code(dayfly: Command) -> None:
    """Each check has a verdict; something missing has a remedy and makes the exit code 1; nothing is left."""
    done = dayfly("doctor", "--json")
    checks = {each["name"]: each for each in json.loads(done.stdout)}
    assert {"kernel", "rights", "namespaces", "overlay", "idmapped mounts", "disk limits", "seccomp", "redis"} <= set(
        checks
    )
    assert all(each["remedy"] for each in checks.values() if each["verdict"] != "ok")
    assert done.returncode == any(each["verdict"] == "missing" for each in checks.values())
    assert not [each for each in os.listdir("/sys/fs/cgroup") if "doctor" in each]
