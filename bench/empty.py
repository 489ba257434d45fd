"""The function that RQ's workers run."""


def nothing() -> None:
    """Nothing."""
