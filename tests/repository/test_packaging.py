"""What is built from the repository is the whole of it, and never less without a word."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("jobs", "queue", "runtime", "worker")


@pytest.mark.slow
def test_wheel_from_sdist_installs_every_file_of_the_rooms(tmp_path: Path) -> None:
    """sdist, wheel from that sdist, fresh environment: the installed files are those that git knows."""
    clone = tmp_path / "clone"
    _copy_tracked_files(clone)
    sdist = _build(clone, tmp_path / "sdist", "--sdist")
    unpacked = tmp_path / "unpacked"
    with tarfile.open(sdist) as archive:
        archive.extractall(unpacked, filter="data") if sys.version_info >= (3, 12) else archive.extractall(unpacked)
    wheel = _build(next(unpacked.iterdir()), tmp_path / "wheel", "--wheel")
    installed = _install(wheel, tmp_path / "fresh")

    expected = {line for line in _git("ls-files", *ROOMS) if not line.endswith("README.md")}
    found = {
        str(path.relative_to(installed))
        for room in ROOMS
        for path in (installed / room).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert expected <= found, f"missing from the wheel: {sorted(expected - found)}"
    surplus = {path for path in found - expected if not path.endswith("README.md")}
    assert not surplus, f"in the wheel but unknown to git: {sorted(surplus)}"
    for name in ("py.typed", "__init__.py", "cli/main.py"):
        assert (installed / name).is_file()
    help_text = subprocess.run(
        [tmp_path / "fresh/bin/python", "-m", "dayfly", "--help"], capture_output=True, text=True, cwd=tmp_path
    )
    assert help_text.returncode == 0, help_text.stderr


def test_build_from_a_clone_without_links_is_refused(tmp_path: Path) -> None:
    """git with core.symlinks=false leaves text files where the rooms should be: the build says so and makes nothing."""
    _copy_tracked_files(tmp_path)
    for room in ROOMS:
        link = tmp_path / "src/dayfly" / room
        target = link.readlink()
        link.unlink()
        link.write_text(str(target))
    built = _run_build(tmp_path, tmp_path / "out", "--wheel")
    assert built.returncode != 0
    assert "core.symlinks" in built.stdout + built.stderr
    assert not list((tmp_path / "out").glob("*"))


def _copy_tracked_files(to: Path) -> None:
    """The files that git knows, as they lie in the work tree now; links stay links."""
    to.mkdir(exist_ok=True)
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    present = b"\0".join(path for path in listed.split(b"\0") if path and os.path.lexists(ROOT / os.fsdecode(path)))
    pack = ["tar", "-C", str(ROOT), "--null", "-T", "-", "-cf", "-"]
    packed = subprocess.run(pack, input=present, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-C", str(to), "-xf", "-"], input=packed, check=True)


def _git(*arguments: str) -> list[str]:
    listed = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return [line for line in listed.stdout.splitlines() if (ROOT / line).exists()]


def _run_build(source: Path, out: Path, *what: str) -> subprocess.CompletedProcess[str]:
    # Without isolation: the test environment has setuptools, and the build needs no network.
    command = [sys.executable, "-m", "build", "--no-isolation", *what, "--outdir", str(out), str(source)]
    return subprocess.run(command, capture_output=True, text=True)


def _build(source: Path, out: Path, *what: str) -> Path:
    built = _run_build(source, out, *what)
    assert built.returncode == 0, built.stdout + built.stderr
    (result,) = out.iterdir()
    return result


def _install(wheel: Path, environment: Path) -> Path:
    """Install the wheel alone; its dependencies are found in this environment, so nothing is downloaded."""
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    pip = [environment / "bin/python", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(pip, check=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(environment)}))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return site / "dayfly"
