"""How a job is given a secret: as a variable, or as a file in memory. The value is nowhere in a document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

DEFAULT_MODE = 0o400
DIRECTORY = "/run/secrets"
MAX_SECRETS = 64
MIN_VALUE_BYTES = 4  # a shorter one could not be masked without masking everything
MAX_VALUE_BYTES = 32 << 10
MAX_TOGETHER_BYTES = 40 << 10  # of one job: what a pipe holds, base64 and names with it (pipe(7): 64 KiB)


@dataclass(frozen=True, slots=True)
class SecretUse:
    """`env` is a variable's name; without it the value is the file /run/secrets/NAME, also seen at `file`."""

    name: str
    env: str | None = None
    file: str | None = None
    mode: int = DEFAULT_MODE

    def to_document(self) -> dict[str, Any]:
        if self.env is not None:
            return {"env": self.env}
        mode = {} if self.mode == DEFAULT_MODE else {"mode": f"{self.mode:04o}"}
        return {"file": self.file or f"{DIRECTORY}/{self.name}", **mode}


def secrets_document(uses: Sequence[SecretUse]) -> dict[str, Any]:
    return {use.name: use.to_document() for use in uses}
