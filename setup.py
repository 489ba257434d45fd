"""Everything is declared in pyproject.toml; this only refuses a build that would silently leave rooms out."""

from pathlib import Path

from setuptools import setup

ROOMS = ("jobs", "queue", "runtime", "worker")


def check_rooms(package: Path) -> None:
    """Each room must be a directory (a link in a clone, a real one in an sdist).

    A clone made where git could not make symbolic links (core.symlinks=false) holds small text files in their
    place, and setuptools would build a wheel without them and without a word.
    """
    missing = [room for room in ROOMS if not (package / room).is_dir()]
    if missing:
        raise SystemExit(
            f"cannot build dayfly: {', '.join(f'src/dayfly/{room}' for room in missing)} should link to the directories"
            " of the same names at the top, but this clone was made without symbolic links."
            " Run `git config core.symlinks true && git checkout -- src/dayfly` where links are possible,"
            " or build from the source distribution."
        )


check_rooms(Path(__file__).parent / "src" / "dayfly")
setup()
