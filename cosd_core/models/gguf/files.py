"""Names of GGUF files: local paths, and files of repositories on the hub."""

import os
import re
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from cosd_core.errors import ModelLoadError, quoted

_ON_HUB = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+):(?P<file>[^:]+\.gguf)", re.IGNORECASE)
_SPLIT = re.compile(r"(?P<stem>.+)-(?P<part>\d{5})-of-(?P<parts>\d{5})\.gguf", re.IGNORECASE)


def is_gguf(source: object) -> bool:
    """Whether a name is that of a GGUF file: a path, or ``org/repository:file.gguf``."""
    if not isinstance(source, str | PathLike) or not str(source).lower().endswith(".gguf"):
        return False
    try:
        return not Path(source).expanduser().is_dir()
    except (OSError, RuntimeError, ValueError):  # loading will raise
        return True


def gguf_name(source: str) -> str:
    """The name of such a file in messages and traces: without folders and repository."""
    return re.split(r"[/\\:]", source)[-1]


def gguf_source(source: str | PathLike[str]) -> str:
    """The absolute path of a local file; the name of a file on the hub unchanged."""
    name = str(source)
    if _ON_HUB.fullmatch(name) and not Path(name).exists():
        return name
    try:
        return str(Path(name).expanduser().resolve())
    except (OSError, RuntimeError, ValueError):  # too long a name, "~nobody"; loading will raise
        return name


def find_gguf(source: str, access: Mapping[str, Any]) -> str:
    """The path of a GGUF file on this machine, downloaded from the hub if necessary.

    Args:
        source: As :func:`gguf_source` returns it.
        access: Arguments for the hub: ``token``, ``cache_dir``, ``local_files_only``, ``revision`` and
            ``subfolder``.

    Raises:
        ModelLoadError: There is no such file.
    """
    on_hub = _ON_HUB.fullmatch(source)
    if on_hub is None or Path(source).exists():
        if not Path(source).is_file():
            raise ModelLoadError(f"cannot load model {quoted(source)}: there is no such file")
        return source
    from transformers.utils.hub import cached_file

    try:
        paths = [cached_file(on_hub["repository"], part, **access) for part in _parts(on_hub["file"])]
    except Exception as error:  # the hub's client raises errors of many types
        raise ModelLoadError(f"cannot load model {quoted(source)}: {quoted(error, 240)}") from error
    return str(paths[0])


def all_parts(path: str) -> list[str]:
    """The files of a model that is split into several, which llama.cpp loads by the name of the first."""
    folder, file = os.path.split(path)
    return [os.path.join(folder, part) for part in _parts(file)]


def _parts(file: str) -> list[str]:
    found = _SPLIT.fullmatch(file)
    if found is None:
        return [file]
    count = int(found["parts"])
    return [f"{found['stem']}-{part:05d}-of-{count:05d}.gguf" for part in range(1, count + 1)]
