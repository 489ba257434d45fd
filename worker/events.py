"""How an agent logs: one event a fact, key and value; JSON unless a person watches."""

import sys
from collections.abc import Sequence

import structlog
from structlog.typing import Processor


def configure() -> None:
    """To stderr. The jobs' own output is not logging and never comes here."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *_renderers(sys.stderr.isatty()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger("info"),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def _renderers(is_watched: bool) -> Sequence[Processor]:
    if is_watched:
        # It writes tracebacks by itself; with rich beside it, the values of variables too, and those may be secret.
        return [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
