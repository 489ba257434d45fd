"""A Result as it is written into Redis: whole for us, and in RQ's words for RQ's own readers."""

from __future__ import annotations

import json
import zlib
from base64 import b64encode
from typing import Any

from dayfly.jobs.result import Result
from dayfly.jobs.state import Outcome

_COMPRESS_BYTES = 2048


def rq_status(outcome: Outcome) -> str:
    """RQ's JobStatus for an outcome."""
    if outcome is Outcome.SUCCEEDED:
        return "finished"
    return "canceled" if outcome is Outcome.CANCELLED else "failed"


def rq_result(result: Result) -> tuple[str, str]:
    """Name and value of the field of RQ's Result that tells the end: what the job returned, or how it failed."""
    if result.outcome is Outcome.SUCCEEDED:
        return "return_value", b64encode(json.dumps(_brief(result)).encode()).decode()
    return "exc_string", b64encode(zlib.compress(result.describe().encode(errors="backslashreplace"))).decode()


def pack(result: Result) -> bytes:
    """The whole Result; a long one (samples, artifacts) compressed."""
    text = json.dumps(result.to_json(), separators=(",", ":")).encode()
    return text if len(text) <= _COMPRESS_BYTES else zlib.compress(text, 1)


def unpack(packed: bytes) -> Result:
    text = packed if packed[:1] == b"{" else zlib.decompress(packed)
    return Result.from_json(json.loads(text))


def _brief(result: Result) -> dict[str, Any]:
    """What `Job.return_value()` gives to RQ's users, and rq-dashboard shows."""
    return {
        "id": result.id,
        "outcome": result.outcome,
        "exit_code": result.exit_code,
        "run_seconds": result.timings.run_seconds,
        "artifacts": len(result.artifacts),
    }
