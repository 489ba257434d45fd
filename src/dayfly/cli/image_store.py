"""The store of images that the commands of this host look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dayfly.runtime.images.keeping import Keeping
    from dayfly.runtime.images.store import ImageStore


def open_store() -> ImageStore:
    from dayfly.config import home_directory, load
    from dayfly.image_settings import import_limits
    from dayfly.runtime.images.store import ImageStore
    from dayfly.runtime.user_namespace import enter

    settings = load()
    enter()  # the files of layers belong to ids that only there can be given, and taken away
    return ImageStore(home_directory(settings), import_limits(settings))


def open_keeping() -> Keeping:
    from dayfly.runtime.images.keeping import Keeping
    from dayfly.worker.in_use import layers_in_use

    return Keeping(open_store(), lambda: layers_in_use(home()))


def home() -> Path:
    from dayfly.config import home_directory, load

    return home_directory(load())
