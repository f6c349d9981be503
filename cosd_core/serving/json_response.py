"""JSON as the body of a response."""

import json
from typing import Any

from starlette.responses import Response

from cosd_core.serving.errors import RequestError


def json_bytes(value: Any) -> bytes:
    """A value as JSON; half a surrogate pair, which a client may send and an error quote, is escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace")


class Json(Response):
    """A value as JSON."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The value as bytes."""
        return json_bytes(content)


def error_response(error: RequestError) -> Json:
    """The response of a request that failed."""
    return Json(error.to_dict(), status_code=error.status, headers=dict(error.headers))
