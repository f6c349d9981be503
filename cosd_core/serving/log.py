"""The log of the server: one JSON object per line, without prompts and texts."""

import json
import logging
import traceback
from datetime import UTC, datetime
from typing import Any

from cosd_core.errors import quoted

logger = logging.getLogger("cosd.serving")

_UVICORN = "uvicorn"


class JsonLines(logging.Formatter):
    """Formats records as JSON; of exceptions the place and the kind, since a message may quote a prompt."""

    def __init__(self, *, messages: bool) -> None:
        """With ``messages`` also those of exceptions."""
        super().__init__()
        self._messages = messages

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and (error := record.exc_info[1]) is not None:
            entry["error"] = type(error).__name__ + (f": {quoted(error, 1000)}" if self._messages else "")
            entry["traceback"] = "".join(traceback.format_tb(error.__traceback__))
        return json.dumps(entry)


def start_log(*, messages: bool) -> None:
    """Write the log of the server, and uvicorn's warnings, to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines(messages=messages))
    for name, level in ((logger.name, logging.INFO), (_UVICORN, logging.WARNING)):
        each = logging.getLogger(name)
        each.handlers, each.propagate = [handler], False
        each.setLevel(level)
