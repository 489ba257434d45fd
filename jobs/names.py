"""What names in a document may look like. Each check returns its argument or raises ValueError with the reason."""

from __future__ import annotations

import re

MAX_ID_NUMBER = (1 << 31) - 1  # CVE-2026-46680: a larger one must not be looked up as a name
MAX_ARGUMENT_BYTES = 131_071  # MAX_ARG_STRLEN of execve(2), less the final NUL

_SECRET = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_QUEUE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_SERVICE = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_JOB_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_./-]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"[A-Za-z0-9_.+/-]{0,63}")
_HOST = re.compile(r"[A-Za-z0-9_.-]{1,255}")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?")
_DIGITS = re.compile(r"[0-9]{1,10}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_DEVICE = re.compile(r"disk|/dev/[A-Za-z0-9_./-]{1,100}|[0-9]{1,4}:[0-9]{1,7}")
_PART = r"[A-Za-z0-9]+(?:[._-]+[A-Za-z0-9]+)*"
_IMAGE = re.compile(rf"{_PART}(?::[0-9]+)?(?:/{_PART})*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?")


def check_text(text: str) -> str:
    """Any text that can reach a C string and JSON: no NUL, no lone surrogate."""
    if "\0" in text:
        raise ValueError("must not contain a NUL byte")
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("must not contain half of a surrogate pair")
    return text


def check_line(text: str) -> str:
    """A short name for people: one line, 1 to 200 characters, nothing that a terminal would act on."""
    check_text(text)
    if not text.strip() or len(text) > 200:
        raise ValueError("must have 1 to 200 characters" if text.strip() else "must not be empty")
    if not text.isprintable():
        raise ValueError("must be one line without control characters")
    return text


def check_queue_name(text: str) -> str:
    return _matching(_QUEUE, text, "1 to 64 of A-Z a-z 0-9 _ . -")


def check_secret_name(text: str) -> str:
    """It names a file too: no slash, no dot in front."""
    return _matching(_SECRET, text, "a secret's name: 1 to 100 of A-Z a-z 0-9 _ . -, not . or - in front")


def check_service_name(text: str) -> str:
    """A service's name, which is a host name in its job: a label of DNS (RFC 1123)."""
    if text == "localhost":
        raise ValueError("must not be localhost, which is everybody's own")
    return _matching(_SERVICE, text, "1 to 63 of a-z 0-9 -, a letter or digit at both ends")


def service_name_of(image: str) -> str | None:
    """The name of a service that has none of its own: `postgres` for `example.org/db/postgres:16`. None: there is none.

    A digest alone names nothing.
    """
    if image.startswith("sha256:"):
        return None
    last = image.partition("@")[0].rstrip("/").rpartition("/")[2].partition(":")[0]
    name = re.sub("[._]+", "-", last.lower())
    return name if _SERVICE.fullmatch(name) and name != "localhost" else None


def check_job_id(text: str) -> str:
    """A job's id or the start of one; ids of jobs from plain RQ producers too."""
    return _matching(_JOB_ID, text, "a job id or the start of one")


def check_label_name(text: str) -> str:
    return _matching(_LABEL, text, "1 to 63 of A-Z a-z 0-9 _ . / -, a letter or digit at both ends")


def check_label_value(text: str) -> str:
    return _matching(_LABEL_VALUE, text, "at most 63 of A-Z a-z 0-9 _ . + / -")


def check_host(text: str) -> str:
    return _matching(_HOST, text, "a host's id: 1 to 255 of A-Z a-z 0-9 _ . -")


def check_digest(text: str) -> str:
    return _matching(_DIGEST, text, "sha256: and 64 lower-case hexadecimal digits")


def check_device(text: str) -> str:
    """A block device, or the job's own disk; no `..`, so that /dev is where it lies."""
    if ".." in text.split("/"):
        raise ValueError("must not contain ..")
    return _matching(_DEVICE, text, "disk, /dev/NAME or MAJOR:MINOR")


def check_permissions(text: str) -> str:
    """What may be done with a device: r, w and m, each at most once, in this order."""
    if not text or any(text.count(letter) > 1 or letter not in "rwm" for letter in text):
        raise ValueError(f"must be of r, w and m, each at most once, got {shown(text)}")
    return "".join(letter for letter in "rwm" if letter in text)


def check_env_name(text: str) -> str:
    check_text(text)
    if not text:
        raise ValueError("the name of a variable must not be empty")
    if "=" in text or "\n" in text:
        raise ValueError("the name of a variable must not contain = or a newline")
    return text


def check_argument(text: str) -> str:
    """One word of a command, or NAME=VALUE: what execve(2) takes as a single string."""
    check_text(text)
    if len(text) > MAX_ARGUMENT_BYTES or len(text.encode()) > MAX_ARGUMENT_BYTES:
        raise ValueError(f"is longer than the {MAX_ARGUMENT_BYTES} bytes that the kernel passes to a program")
    return text


def check_user(text: str) -> str:
    """`user`, `uid`, `user:group`, `uid:gid`."""
    parts = text.split(":")
    if len(parts) > 2 or not all(_USER.fullmatch(part) or _DIGITS.fullmatch(part) for part in parts):
        raise ValueError(f"must be a user or uid, perhaps with :group or :gid, got {shown(text)}")
    if any(_DIGITS.fullmatch(part) and int(part) > MAX_ID_NUMBER for part in parts):
        raise ValueError(f"must have no id above {MAX_ID_NUMBER}, got {shown(text)}")
    return text


def check_image(text: str) -> str:
    """`host`, `name[:tag][@sha256:…]`, `sha256:…`, or the absolute path of a directory."""
    check_text(text)
    if text.startswith("/"):
        return _check_image_directory(text)
    if text.startswith("."):
        raise ValueError(f"must be a name or an absolute path, got {shown(text)}")
    name, at, digest = text.partition("@")
    if at or text.startswith("sha256:"):
        check_digest(digest if at else text)
    if len(name) > 200 or not _IMAGE.fullmatch(name):
        raise ValueError(f"must be an image such as debian:12, host or sha256:…, got {shown(text)}")
    return text


def _check_image_directory(text: str) -> str:
    if ".." in text.split("/") or len(text) > 4095 or not text.strip("/"):
        raise ValueError(f"must be a directory below /, without .., got {shown(text)}")
    return text


def shown(value: object) -> str:
    """A value as a message quotes it: as JSON would write it, short, and safe on a terminal."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        return "a map"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, int) and abs(value) > 1 << 70:
        return f"a number of {value.bit_length()} bits"
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _matching(pattern: re.Pattern[str], text: str, wanted: str) -> str:
    if not pattern.fullmatch(text):
        raise ValueError(f"must be {wanted}, got {shown(text)}")
    return text
