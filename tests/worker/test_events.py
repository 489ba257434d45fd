"""How an agent logs on a terminal."""

import io

import structlog

from dayfly.worker import events


def test_a_traceback_on_a_terminal_shows_no_values():
    """Of variables: they may be secret."""
    (renderer,) = events._renderers(is_watched=True)
    secrets = {"TOKEN": "s3cr3t-value-0001"}
    try:
        raise ValueError("odd" if secrets else "")
    except ValueError as error:
        raised = error
    shown = renderer(None, "error", {"event": "fault", "level": "error", "exc_info": raised})
    assert "ValueError: odd" in shown
    assert "s3cr3t" not in shown
    with_values = io.StringIO()
    structlog.dev.RichTracebackFormatter(show_locals=True)(with_values, (ValueError, raised, raised.__traceback__))
    assert "s3cr3t" in with_values.getvalue()  # the negative control
