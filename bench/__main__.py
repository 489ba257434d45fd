"""One command, one run, ratios: see README.md beside this file."""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from pathlib import Path

from bench import containers, first_byte, images, inside, memory, network, queue_rate
from bench.stack import Stack

PARTS = {
    "a": "a container around /bin/true: floor, bubblewrap, runc, podman, systemd-nspawn, Dayfly",
    "b": "empty jobs a second through Redis: RQ's workers, Dayfly with one slot and two",
    "c": "submit to first log byte on an idle worker",
    "d": "a CPU-bound and a file-heavy job, inside against outside",
    "e": "memory per running job, and what the container consists of",
    "i": "images: pull beside podman, unpack beside tar, containers and builds upon what came",
    "n": "what the bridge adds to a container",
}


def main() -> None:
    arguments = _arguments()
    if os.geteuid() != 0:
        raise SystemExit("the bench needs root: its peers and its floor do")
    print(f"{platform.node()}: {os.cpu_count()} cpus, Linux {platform.release()}, Python {platform.python_version()}")
    # Not on a tmpfs: the layers and disks of jobs lie on a disk where people use it.
    with tempfile.TemporaryDirectory(prefix="dayfly-bench-", dir=arguments.directory) as directory:
        _run(arguments.parts, Path(directory), arguments.rounds)


def _run(parts: str, directory: Path, rounds: int) -> None:
    with Stack(directory) as stack:
        if "a" in parts:
            containers.report(directory, rounds)
        if "b" in parts:
            queue_rate.report(stack, max(3, rounds // 15))
        if "c" in parts:
            first_byte.report(stack, rounds * 5)
        if "d" in parts:
            inside.report(stack, max(5, rounds // 6))
        if "e" in parts:
            memory.report(stack)
        if "i" in parts:
            images.report(stack, rounds)
    if "n" in parts:
        network.report(directory, rounds)


def _arguments() -> argparse.Namespace:
    text = "\n".join(f"  {part}  {about}" for part, about in PARTS.items())
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("bench/run", description=__doc__, epilog=f"parts:\n{text}", formatter_class=form)
    parser.add_argument("parts", nargs="?", default="abcdein", help="which parts (default: all)")
    parser.add_argument("--rounds", type=int, default=40, help="rounds of part a; the others follow (default: 40)")
    parser.add_argument("--directory", default="/var/tmp", help="where to work (default: /var/tmp)")
    return parser.parse_args()


main()
