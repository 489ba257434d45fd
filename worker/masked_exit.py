"""What a job's end tells, without its secrets: a job can call files and processes by any name."""

from dataclasses import replace
from typing import Any

from dayfly.worker.masking import Masker


def without_secrets(facts: dict[str, Any], masker: Masker) -> dict[str, Any]:
    """The fields of an Exit (exit.py), masked where they hold words that the job has chosen."""
    oom, disk = facts["oom"], facts["disk"]
    return {
        **facts,
        "message": facts["message"] and masker.text(facts["message"]),
        "warnings": tuple(masker.text(each) for each in facts["warnings"]),
        "oom": oom and replace(oom, victims=tuple(replace(each, name=masker.text(each.name)) for each in oom.victims)),
        "disk": replace(disk, biggest=tuple((masker.text(path), size) for path, size in disk.biggest)),
        "artifacts": tuple(replace(each, path=masker.text(each.path)) for each in facts["artifacts"]),
    }
