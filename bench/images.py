"""(i) Images: a pull beside podman's, an unpack beside tar's, a container and a build upon what came.

The image is 500 MB of this machine's own files in twelve gzipped layers, put into Debian's docker-registry by skopeo.
Every pull begins with an empty store; emptying it is not timed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench.big_image import BigImage
from bench.rounds import in_turn, table
from bench.stack import Stack
from bench.warm import WarmContainers
from dayfly.runtime.images.store import ImageStore

_STEPS = 40
_TAR, _IMPORT = "tar -xz, layer by layer", "dayfly: import of the layout"
_PODMAN, _DAYFLY = "podman pull", "dayfly image pull"


def report(stack: Stack, rounds: int) -> None:
    missing = [name for name in ("docker-registry", "skopeo", "tar") if shutil.which(name) is None]
    if missing:
        print(f"left out: (i) images: {', '.join(missing)} not installed")
        return
    directory = stack.directory / "images"
    directory.mkdir()
    with BigImage(directory) as image:
        _pulls(image, directory, max(3, rounds // 8))
        _unpacks(image, directory, max(3, rounds // 8))
        _starts(image, directory, rounds)
        _builds(image, directory, max(5, rounds // 4))


def _pulls(image: BigImage, directory: Path, rounds: int) -> None:
    own, theirs = directory / "pulled", directory / "podman"
    dayfly = [sys.executable, "-m", "dayfly", "image", "pull", "--quiet", image.name]
    store = ["--root", str(theirs), "--runroot", f"{theirs}-run", "--storage-driver", "overlay"]
    podman = ["podman", *store, "pull", "--quiet", "--tls-verify=false", image.name]
    contestants = {_DAYFLY: _timed(_DAYFLY, dayfly, own, {"DAYFLY_HOME": str(own)})}
    if shutil.which("podman") is None:
        print("left out: podman pull: podman is not installed")
    else:
        contestants[_PODMAN] = _timed(_PODMAN, podman, theirs)
    figures = in_turn(contestants, rounds, warm_up=1)
    title = f"(i) pull of {image.bytes >> 20} MiB in {len(image.layers)} layers, {image.packed_bytes >> 20} MiB packed"
    table(title, figures, "ms", _PODMAN if _PODMAN in figures else _DAYFLY)


def _unpacks(image: BigImage, directory: Path, rounds: int) -> None:
    into = directory / "unpacked"

    def by_tar() -> dict[str, float]:
        into.mkdir()
        begin = time.perf_counter()
        for number, layer in enumerate(image.layers):
            (into / str(number)).mkdir()
            subprocess.run(["tar", "-xzf", str(layer), "-C", str(into / str(number))], check=True)
        took = time.perf_counter() - begin
        shutil.rmtree(into)
        return {_TAR: took * 1000}

    def by_import() -> dict[str, float]:
        store = ImageStore(into)
        begin = time.perf_counter()
        store.import_(str(image.layout), "bench")
        took = time.perf_counter() - begin
        shutil.rmtree(into)
        return {_IMPORT: took * 1000}

    table("(i) unpack of the same", in_turn({_TAR: by_tar, _IMPORT: by_import}, rounds, warm_up=1), "ms", _TAR)


def _starts(image: BigImage, directory: Path, rounds: int) -> None:
    home = directory / "starts"
    images = ImageStore(home)
    big = images.import_(str(image.layout), "bench").image
    with WarmContainers(home) as warm:
        names = {"host": images.resolve("host"), "the image": big}
        figures = in_turn({name: warm.contestant(name, each) for name, each in names.items()}, rounds)
    table("(i) a container around /bin/true", figures, "ms", "host: go to exit seen")


def _builds(image: BigImage, directory: Path, rounds: int) -> None:
    """The whole command, with one step and with many, all of which were taken before: what one more step costs."""
    context = directory / "context"
    context.mkdir()
    names = {steps: f"{steps:2} of {_STEPS} steps" for steps in (1, _STEPS)}
    for steps in names:
        lines = [f"RUN echo {number} > /{number}" for number in range(steps)]
        (context / f"Containerfile{steps}").write_text("\n".join([f"FROM {image.name}", *lines, ""]))
    environment = {"DAYFLY_HOME": str(directory / "builds"), "DAYFLY_NETWORK_BRIDGE": "false"}

    def command(steps: int) -> list[str]:
        files = ["-f", str(context / f"Containerfile{steps}"), "-t", f"built{steps}", str(context)]
        return [sys.executable, "-m", "dayfly", "image", "build", "--quiet", *files]

    try:
        contestants = {name: _timed(name, command(steps), None, environment) for steps, name in names.items()}
        figures = in_turn(contestants, rounds, warm_up=1)
    finally:
        subprocess.run(
            [sys.executable, "-m", "dayfly", "down", "--now"], env={**os.environ, **environment}, check=False
        )
    table("(i) a build of steps that were taken before", figures, "ms", names[1])
    one, many = (sorted(figures[name])[rounds // 2] for name in names.values())
    print(f"one step: {(many - one) / (_STEPS - 1):.2f} ms (goal 10)")


def _timed(
    name: str, command: list[str], empty: Path | None, environment: dict[str, str] | None = None
) -> Callable[[], dict[str, float]]:
    """A command, from its start to its end; the directory `empty` is gone before the next."""

    def run() -> dict[str, float]:
        begin = time.perf_counter()
        ran = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(environment or {})})
        took = time.perf_counter() - begin
        if ran.returncode != 0:
            raise RuntimeError(f"{name} ended with status {ran.returncode}: {ran.stderr}")
        if empty is not None:
            shutil.rmtree(empty)
        return {name: took * 1000}

    return run
