"""The one door through which documents come in: at submission and, the same, on the worker.

    document ── plain() ──> JSON values ── JobModel ──> checked ── value() ──> JobSpec
                size, depth                fields, ranges, names               frozen

Everything that is wrong with a document is said at once, each with the field's path, and with the line where the
document came from a file. Inside nothing is checked again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from dayfly.jobs.document import MAX_DOCUMENT_BYTES, Complaints, Document, compact, plain
from dayfly.jobs.errors import NotBuilt, SpecError
from dayfly.jobs.json_text import read_json, read_json_lines
from dayfly.jobs.model import JobModel
from dayfly.jobs.names import shown
from dayfly.jobs.program import no_command
from dayfly.jobs.reasons import complain
from dayfly.jobs.spec import DEFAULT_IMAGE, SPEC_VERSION, JobSpec
from dayfly.jobs.units import format_size


def read_job(document: Mapping[str, Any], *, source: str | None = None) -> JobSpec:
    """The job that `document` describes. Raises SpecError; NotBuilt when only fields of later versions are wrong.

    `source` is what messages call the document; one from load_documents() knows its file and lines itself.
    """
    complaints = Complaints(document, source)
    fields, may_grow = plain(document, complaints)
    complaints.check()
    _check_kind(fields, complaints)
    _check_program(fields, complaints)
    try:
        model = JobModel.model_validate(fields)
    except ValidationError as error:
        complain(complaints, error.errors(include_url=False))
        raise SpecError.together(complaints.errors) from error
    for name, each in model.secrets.items():
        if each.env in model.env:
            complaints.add(("secrets", name), f"the variable {each.env} is in env, too")
    complaints.check()
    spec = model.value()
    if may_grow:
        _check_size(spec, complaints)
    return spec


def load_documents(text: str | bytes, name: str) -> list[Document]:
    """The documents of a file: YAML (`---` between several), JSON, or JSON Lines (one a line).

    `name` decides by its ending; without one of .yaml .yml .json .jsonl .ndjson, what begins with `{` is JSON or JSON
    Lines, anything else YAML. Raises SpecError for what cannot be read, and for a file without a document.
    """
    text = _decode(text, name)
    documents = _load(text, name)
    if not documents:
        raise SpecError("", "is empty: there is no job in it", source=name)
    return documents


def _check_kind(fields: Mapping[str, Any], complaints: Complaints) -> None:
    """Kind and version first: of another kind every field would be complained of."""
    for kind in ("pipeline", "batch"):
        if kind in fields:
            raise complaints.add((kind,), "is not built yet", NotBuilt)
    version = fields.get("version", SPEC_VERSION)
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise complaints.add(("version",), f"must be {SPEC_VERSION}, got {shown(version)}")
    if version > SPEC_VERSION:
        reason = f"the document is of version {shown(version)}, this Dayfly knows {SPEC_VERSION}; update Dayfly here"
        raise complaints.add(("version",), reason)


def _check_program(fields: Mapping[str, Any], complaints: Complaints) -> None:
    for other in ("command", "entrypoint"):
        if "script" in fields and other in fields:
            complaints.add(("script",), f"cannot be together with {other}: it takes its place")
    has_program = "script" in fields or fields.get("command") or fields.get("entrypoint")
    # Without an image only the worker knows which one it is, and says the same there.
    if fields.get("image") == DEFAULT_IMAGE and not has_program:
        complaints.add(("command",), no_command(DEFAULT_IMAGE))


def _check_size(spec: JobSpec, complaints: Complaints) -> None:
    """What the queue keeps is the canonical document, which may be several times what was read."""
    size = len(compact(spec.to_document()))
    if size > MAX_DOCUMENT_BYTES:
        limit = format_size(MAX_DOCUMENT_BYTES)
        raise complaints.add((), f"is larger than {limit}: written out in full it has {format_size(size)}")


def _decode(text: str | bytes, name: str) -> str:
    try:
        decoded = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        decoded.encode()
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise SpecError("", f"is not UTF-8: {error.reason}", source=name) from error
    return decoded


def _load(text: str, name: str) -> list[Document]:
    ending = name.rpartition(".")[2].lower()
    if ending in ("jsonl", "ndjson"):
        return read_json_lines(text, name)
    is_json = ending == "json" or (ending not in ("yaml", "yml") and text.lstrip()[:1] == "{")
    if is_json and _is_json_lines(text):
        return read_json_lines(text, name)
    if len(text) > MAX_DOCUMENT_BYTES:
        raise SpecError("", f"is larger than {format_size(MAX_DOCUMENT_BYTES)}", source=name)
    if not is_json:
        from dayfly.jobs.yaml_text import read_yaml  # PyYAML costs every `dayfly run` 15 ms, and most have no file

        return read_yaml(text, name)
    return [read_json(text, name)] if text.strip() else []


def _is_json_lines(text: str) -> bool:
    """Whether at least two lines are there and the first one is a whole document."""
    first, _, rest = text.lstrip().partition("\n")
    return bool(rest.strip()) and first.rstrip().endswith("}") and rest.lstrip()[:1] == "{"
