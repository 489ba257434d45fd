"""What a job runs, where the door and the worker must say and do the same."""

from __future__ import annotations


def no_command(image: str) -> str:
    """Why a job that names no program cannot run in `image`."""
    return f"is missing: the image {image} has no command of its own; give one, or a script"
