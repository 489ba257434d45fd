"""What this home's keepers use: image layers and frozen directories, which must not be taken away under them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dayfly.worker import jobfiles
from dayfly.worker.places import Places, names_in
from dayfly.worker.record import Record
from dayfly.worker.warm import layers_held


def layers_in_use(home: Path) -> set[str]:
    """Absolute paths. Read afresh at every call, keepers before jobs: a record only ever moves that way."""
    used = set(layers_held(Places(home)))
    for record in _records(home):
        used.update(record.container.shape.image_layers)
        for service in record.services:
            used.update(service.container.shape.image_layers)
    return used


def documents_here(home: Path) -> Iterator[Mapping[str, Any]]:
    """The documents of the jobs that have a keeper here."""
    return (record.document for record in _records(home))


def _records(home: Path) -> Iterator[Record]:
    places = Places(home)
    for above in (places.keepers, places.jobs):
        for name in names_in(above):
            record = jobfiles.read_record(f"{above}/{name}")
            if record is not None:
                yield record
