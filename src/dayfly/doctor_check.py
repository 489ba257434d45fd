"""One finding of `dayfly doctor`."""

from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    """MISSING: jobs cannot be isolated or limited as they ask. WARNING: it works, with something to know."""

    OK = "ok"
    WARNING = "warning"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, how it is, and what to do about it ("" when nothing)."""

    name: str
    verdict: Verdict
    finding: str
    remedy: str = ""


def ok(name: str, finding: str) -> Check:
    return Check(name, Verdict.OK, finding)


def warning(name: str, finding: str, remedy: str) -> Check:
    return Check(name, Verdict.WARNING, finding, remedy)


def missing(name: str, finding: str, remedy: str) -> Check:
    return Check(name, Verdict.MISSING, finding, remedy)
