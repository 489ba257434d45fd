"""Which image layers this home's keepers use: what the image store asks before it takes any away."""

import os
from pathlib import Path

from dayfly.worker import jobfiles
from dayfly.worker.places import Places
from dayfly.worker.warm import layers_held


def layers_in_use(home: Path) -> set[str]:
    """Absolute paths. Read afresh at every call, keepers before jobs: a record only ever moves that way."""
    places = Places(home)
    used = set(layers_held(places))
    for above in (places.keepers, places.jobs):
        for name in _names(above):
            record = jobfiles.read_record(f"{above}/{name}")
            if record is not None:
                used.update(record.container.shape.image_layers)
    return used


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []
