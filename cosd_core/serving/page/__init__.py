"""The page at ``/``: one asks the pair, and sees who wrote what while it is written.

It loads nothing from other sites, and its policy lets the browser run only the files that it comes with.
"""

from importlib import resources
from string import Template

from fastapi import FastAPI
from starlette.responses import Response

from cosd_core.utils.escaping import html_text

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


def add_page(api: FastAPI, name: str) -> None:
    """Add the page and its files.

    Args:
        api: The app.
        name: The model's name, which the page shows and names in its requests.
    """
    page = Template(_asset(__name__, "page.html")).substitute(name=html_text(name))
    style = _asset("cosd_core.explain", "fragment.css") + _asset(__name__, "page.css")
    _add_file(api, "/", page, "text/html")
    _add_file(api, "/page.css", style, "text/css")
    _add_file(api, "/page.js", _asset(__name__, "page.js"), "text/javascript")


def _add_file(api: FastAPI, path: str, content: str, media_type: str) -> None:
    @api.get(path, include_in_schema=False)
    async def file() -> Response:
        return Response(content, media_type=media_type, headers=_HEADERS)


def _asset(package: str, name: str) -> str:
    return resources.files(package).joinpath(name).read_text("utf-8")
