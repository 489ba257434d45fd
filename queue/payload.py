"""What RQ keeps of a call in a job's `data`: zlib over JSON, [function, instance, args, kwargs].

RQ inflates it without a bound and before any check: 522 KB in Redis became 512 MiB in a worker. Here nothing is
inflated beyond what a document may have, nothing is unpickled and nothing imported.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

from dayfly.jobs.document import MAX_DOCUMENT_BYTES, compact

FUNCTION = "dayfly.execute"
MAX_PAYLOAD_BYTES = MAX_DOCUMENT_BYTES + 1024  # what the door lets in, and the call around it


class PayloadError(Exception):
    """Why a payload is no job of ours, in words for whoever enqueued it."""


def read_document(payload: bytes) -> Mapping[str, Any]:
    """The document that a payload carries. Raises PayloadError."""
    call = _parse(inflate(payload))
    if not isinstance(call, list) or len(call) != 4:
        raise PayloadError("its payload is not RQ's [function, instance, arguments, keywords]")
    function, instance, arguments, keywords = call
    if function != FUNCTION:
        raise PayloadError(f"its function is {str(function)[:80]!r}; only {FUNCTION} is run here, nothing is imported")
    if instance is not None or keywords or not isinstance(arguments, list) or len(arguments) != 1:
        raise PayloadError(f"{FUNCTION} takes one argument, the job's document")
    if not isinstance(arguments[0], dict):
        raise PayloadError("the document must be a map of fields")
    return arguments[0]


def read_or_refuse(payload: bytes) -> tuple[Mapping[str, Any], str | None]:
    """The document and None; or, of a payload that is no job of ours, an empty one and why.

    Whoever runs a job has to heed the reason: an empty document is a job, too.
    """
    try:
        return read_document(payload), None
    except PayloadError as error:
        return {}, str(error)


def inflate(payload: bytes) -> bytes:
    """The text of a payload, within bounds. Raises PayloadError."""
    if not payload:
        raise PayloadError(f"its payload is missing or larger than {MAX_PAYLOAD_BYTES >> 20} MiB")
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise PayloadError(f"its payload is larger than {MAX_PAYLOAD_BYTES >> 20} MiB")
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(payload, MAX_PAYLOAD_BYTES)
    except zlib.error:
        return payload  # RQ takes an uncompressed one too
    if inflater.unconsumed_tail or not inflater.eof:
        raise PayloadError(f"its payload is larger than {MAX_PAYLOAD_BYTES >> 20} MiB when inflated, or cut off")
    return text


class Serializer:
    """How RQ's Job writes our call: JSON that the door has measured, which RQ's own JSONSerializer reads."""

    @staticmethod
    def dumps(call: Any) -> bytes:
        return compact(call)

    @staticmethod
    def loads(text: bytes) -> Any:
        return json.loads(text)


def _parse(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        # a pickle begins with 0x80, which no JSON does
        hint = "it is a pickle: give the Queue serializer=rq.serializers.JSONSerializer"
        raise PayloadError(hint if text[:1] == b"\x80" else "its payload is not JSON") from error
