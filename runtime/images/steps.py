"""The steps of builds that need not be taken again: which image each led to.

steps/<key>     JSON: {"digest": "sha256:…", "created": "…"}; its time is when a build last asked for it
"""

import contextlib
import json
import os
import secrets
from collections.abc import Mapping

from dayfly.jobs.errors import ImageError
from dayfly.runtime.images.manifest import Manifest
from dayfly.runtime.images.names import UNFINISHED, Names
from dayfly.runtime.images.reference import is_digest


class Steps:
    """Those of the store's directory `root`."""

    def __init__(self, root: str) -> None:
        self._directory = f"{root}/steps"
        os.makedirs(self._directory, 0o700, exist_ok=True)

    def read(self, key: str) -> dict[str, str] | None:
        """What is known of a step; None: nothing, or nothing that can be read."""
        path = f"{self._directory}/{key}"
        try:
            with open(path, encoding="utf-8") as file:
                found = json.load(file)
            os.utime(path)
        except (OSError, ValueError):
            return None
        is_whole = isinstance(found, dict) and is_digest(str(found.get("digest"))) and "created" in found
        return found if is_whole else None

    def write(self, key: str, entry: Mapping[str, str]) -> None:
        new = f"{self._directory}/{secrets.token_hex(8)}{UNFINISHED}"
        with open(new, "w", encoding="utf-8") as file:
            json.dump(dict(entry), file)
        os.rename(new, f"{self._directory}/{key}")

    def all(self) -> dict[str, str]:
        """Every step and the digest of its image, the least recently asked for first."""
        found = []
        for key in filter(_is_step, os.listdir(self._directory)):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                path = f"{self._directory}/{key}"
                with open(path, encoding="utf-8") as file:
                    found.append((os.stat(path).st_mtime, key, str(json.load(file)["digest"])))
        return {key: digest for _, key, digest in sorted(found)}

    def forget(self, key: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self._directory}/{key}")

    def manifests(self, names: Names) -> list[Manifest]:
        """Of the images that are there; a step whose image is gone is forgotten. Needs the store's exclusive lock."""
        found = []
        for key, digest in self.all().items():
            manifest = None
            with contextlib.suppress(ImageError):  # damaged: the step is taken again
                manifest = names.manifest(digest) if is_digest(digest) else None
            if manifest is None:
                self.forget(key)
            else:
                found.append(manifest)
        return found


def _is_step(file: str) -> bool:
    """Whether the file is one of a step, and no longer being written."""
    return not file.endswith(UNFINISHED)
