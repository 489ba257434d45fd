"""A job's secrets taken out of what it writes, before it is written down anywhere.

What is looked for, for each value: itself, each of its lines, as JSON and shells quote it, as hexadecimal digits, and
what base64 makes of it at each of the three places in a group. It is looked for in the output without its line ends, so
that a wrapped value is found, and once more with %41 read as A, whatever was escaped and whatever was not.

A stream is masked as it comes: only what could be the beginning of a value is held back, until the rest comes, the
stream ends, or nothing has come for a second. Keepers import this file when a job has secrets, and not before.
"""

import binascii
import json
import re
import time
from collections.abc import Iterable, Iterator
from functools import cached_property

MASK = b"***"
IDLE_SECONDS = 1.0

_LEAST = 4  # a shorter piece is in every other word
_LARGEST_HELD = 1 << 20
_LINE_ENDS = b"\r\n"
_ESCAPE = re.compile(rb"%[0-9A-Fa-f]{2}")
_ESCAPED_OR_ONE = re.compile(rb"%[\r\n]*[0-9A-Fa-f][\r\n]*[0-9A-Fa-f]|[^\r\n]")
_ONE = re.compile(rb"[^\r\n]")
_PARTIAL_ESCAPE = re.compile(rb"%[0-9A-Fa-f]?\Z")
_URL_SAFE = bytes.maketrans(b"+/", b"-_")


class Masker:
    """Knows the values of one job's secrets."""

    def __init__(self, values: Iterable[bytes]) -> None:
        self._patterns = tuple(sorted({piece for value in values for piece in _pieces(value)}))
        self._longest = max((len(pattern) for pattern in self._patterns), default=0)

    def mask(self, output: bytes) -> bytes:
        """The whole of something, masked."""
        return _masked(output, self._spans(_views(output)))

    def split(self, output: bytes, is_final: bool) -> tuple[bytes, bytes]:
        """What of `output` can be shown, masked, and the rest, which the next output may complete to a value."""
        views = _views(output)
        spans = self._spans(views)
        held_from = len(output) if is_final else min(self._held_from(view) for view in views)
        for start, end in reversed(spans):
            if start < held_from < end:
                held_from = start  # what comes may belong to a longer one
        if len(output) - held_from > _LARGEST_HELD:
            held_from = len(output)
        shown = [span for span in spans if span[1] <= held_from]
        return _masked(output[:held_from], shown), output[held_from:]

    def text(self, text: str) -> str:
        """The same of a text."""
        return self.mask(text.encode(errors="surrogateescape")).decode(errors="surrogateescape")

    def _spans(self, views: "list[_View]") -> list[tuple[int, int]]:
        """Where the values are in the output, in order and not overlapping."""
        found = sorted(view.span(*at) for view in views for at in self._find(view.text))
        spans: list[tuple[int, int]] = []
        for start, end in found:
            if spans and start < spans[-1][1]:
                spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
            else:
                spans.append((start, end))
        return spans

    def _find(self, text: bytes) -> Iterator[tuple[int, int]]:
        for pattern in self._patterns:
            at = text.find(pattern)
            while at >= 0:
                yield at, at + len(pattern)
                at = text.find(pattern, at + 1)

    def _held_from(self, view: "_View") -> int:
        """Where the longest end of the output begins that a value may begin with."""
        partial = _PARTIAL_ESCAPE.search(view.text, len(view.text) - 2) if view.has_escapes else None
        text = view.text[: partial.start()] if partial else view.text
        begin = min((_beginning(text, pattern) for pattern in self._patterns), default=len(text))
        return view.start(begin) if begin < len(view.text) else view.length


class MaskedOutput:
    """One stream of a job, masked as it comes."""

    def __init__(self, masker: Masker) -> None:
        self._masker = masker
        self._held = b""
        self._at = 0.0

    @property
    def due_at(self) -> float | None:
        """When what is held back is to be shown (time.monotonic()); None when nothing is."""
        return self._at + IDLE_SECONDS if self._held else None

    def feed(self, chunk: bytes) -> bytes:
        """What can be shown now."""
        self._at = time.monotonic()
        shown, self._held = self._masker.split(self._held + chunk, is_final=False)
        return shown

    def flush(self) -> bytes:
        """What was held back, since nothing more comes for now."""
        shown, self._held = self._masker.split(self._held, is_final=True)
        return shown


class _View:
    """The output in a form in which values are looked for: without line ends, and perhaps with %41 read as A."""

    def __init__(self, output: bytes, *, is_decoded: bool) -> None:
        self.length = len(output)
        self.has_escapes = is_decoded
        self._output = output
        flat = output.translate(None, _LINE_ENDS)
        self.text = _ESCAPE.sub(lambda found: bytes((int(found[0][1:], 16),)), flat) if is_decoded else flat

    def start(self, at: int) -> int:
        """Where in the output the byte `at` comes from."""
        return at if len(self.text) == self.length else self._places[at][0]

    def span(self, start: int, end: int) -> tuple[int, int]:
        """A span in the output."""
        if len(self.text) == self.length:
            return start, end
        return self._places[start][0], self._places[end - 1][1]

    @cached_property
    def _places(self) -> list[tuple[int, int]]:
        """For each byte, what it stands for. Made when something was found, which is seldom: it is slow."""
        pattern = _ESCAPED_OR_ONE if self.has_escapes else _ONE
        return [found.span() for found in pattern.finditer(self._output)]


def _views(output: bytes) -> list[_View]:
    plain = _View(output, is_decoded=False)
    return [plain, _View(output, is_decoded=True)] if b"%" in output else [plain]


def _masked(output: bytes, spans: list[tuple[int, int]]) -> bytes:
    if not spans:
        return output
    parts, shown_to = [], 0
    for start, end in spans:
        parts += [output[shown_to:start], MASK]
        shown_to = end
    return b"".join((*parts, output[shown_to:]))


def _beginning(text: bytes, pattern: bytes) -> int:
    """Where the longest end of `text` begins with which `pattern` begins; its length when there is none."""
    first = pattern[:1]
    at = text.find(first, max(0, len(text) - len(pattern) + 1))
    while at >= 0:
        if pattern.startswith(text[at:]):
            return at
        at = text.find(first, at + 1)
    return len(text)


def _pieces(value: bytes) -> Iterator[bytes]:
    """The forms of one value that are looked for, without line ends."""
    text = value.strip(_LINE_ENDS)
    forms = [text, *text.splitlines(), *_quoted(text), text.hex().encode(), text.hex().upper().encode()]
    forms += [piece for place in range(3) for piece in _base64(text, place)]
    forms.append(text.replace(b" ", b"+"))  # as forms send it; what else they escape is read as it was
    for form in forms:
        piece = form.strip().translate(None, _LINE_ENDS)
        if len(piece) >= _LEAST:
            yield piece


def _quoted(value: bytes) -> Iterator[bytes]:
    text = value.decode(errors="surrogateescape")
    for is_ascii in (True, False):
        yield json.dumps(text, ensure_ascii=is_ascii)[1:-1].encode(errors="surrogateescape")
    for quote in (b"'\\''", b"'\"'\"'"):
        yield value.replace(b"'", quote)


def _base64(value: bytes, place: int) -> Iterator[bytes]:
    """The digits that are the value's alone when it begins `place` bytes into a group of three.

    A digit has six bits: one that has bits of a neighbour, too, is left out.
    """
    digits = binascii.b2a_base64(bytes(place) + value, newline=False)
    own = digits[-(-8 * place // 6) : 8 * (place + len(value)) // 6]
    yield own
    yield own.translate(_URL_SAFE)
