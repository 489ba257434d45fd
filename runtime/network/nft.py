"""nft(8), the one program that this host's policy goes through: one transaction a call."""

import os
import shutil
import subprocess

from dayfly.jobs.errors import HostError

_SBIN = "/usr/sbin:/sbin:/usr/local/sbin"
_SECONDS = 30.0
REMEDY = "install nftables (`apt-get install nftables`), on a kernel with CONFIG_NF_TABLES, and run as root"


def find_nft() -> str | None:
    return shutil.which("nft", path=f"{os.environ.get('PATH', '')}:{_SBIN}")


def apply(script: str, *, is_check: bool = False) -> None:
    """Apply all of `script`, or, with `is_check`, only see whether this kernel takes it. Raises HostError."""
    _run(["--check"] if is_check else [], script)


def _run(options: list[str], script: str) -> None:
    program = find_nft()
    if program is None:
        raise HostError("set the network's policy", "nft", None, REMEDY, reason="the program nft is not installed")
    command = [program, *options, "--file", "-"]
    try:
        done = subprocess.run(command, input=script, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError("set the network's policy", program, None, REMEDY, reason=str(error)) from error
    if done.returncode:
        raise HostError("set the network's policy", program, None, REMEDY, reason=_first_lines(done.stderr))


def _first_lines(text: str) -> str:
    """nft quotes the faulty command below each complaint; that may be a thousand elements long."""
    lines = [line[:200] for line in text.strip().splitlines() if line and not line.lstrip().startswith("^")]
    return " / ".join(lines[:2]) or "nft failed and said nothing"
