"""Reads the header of a GGUF file, without llama.cpp and without the weights.

The format is described in https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The reader of the
package ``gguf`` makes an array per string, which takes seconds for a vocabulary.
"""

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cosd_core.errors import ModelLoadError, quoted

_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_NUMBERS = {
    0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "|b1", 10: "<u8", 11: "<i8",
    12: "<f8",
}  # fmt: skip
"""numpy's name of each type of number."""


@dataclass(frozen=True, slots=True)
class GGUFHeader:
    """The metadata of a GGUF file, which describes its model.

    Attributes:
        path: The file.
        values: The metadata by key. Arrays of numbers are numpy arrays, arrays of strings lists.
        size: The length of the metadata in bytes, from the start of the file.
    """

    path: str
    values: Mapping[str, Any]
    size: int

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the architecture."""
        return str(self.values["general.architecture"])

    def of_architecture(self, key: str) -> Any:
        """A value whose key begins with the architecture's name, such as ``context_length``; None: absent."""
        return self.values.get(f"{self.architecture}.{key}")

    @property
    def trained_length(self) -> int | None:
        """The most tokens that the model was trained for, or None if the file does not say."""
        length = self.of_architecture("context_length")
        return None if length is None else int(length)

    @property
    def short_length(self) -> int | None:
        """The length up to which the model uses one set of rotary frequencies, and another beyond (longrope).

        llama.cpp chooses between them by the size of the context, not by the length of a text. None: there is
        one set.
        """
        length = self.of_architecture("rope.scaling.original_context_length")
        if length is None or self.of_architecture("rope.scaling.type") == "yarn":
            return None
        return int(length) if int(length) < (self.trained_length or 0) else None

    @property
    def default_length(self) -> int | None:
        """The most tokens of a text, unless ``n_ctx`` says otherwise."""
        return self.short_length or self.trained_length

    @property
    def chat_template(self) -> str | dict[str, str]:
        """The chat template, several by name as transformers has them, or the empty text."""
        key = "tokenizer.chat_template"
        names = self.values.get(f"{key}s") or []
        others = {name: self.values[f"{key}.{name}"] for name in names if f"{key}.{name}" in self.values}
        default = self.values.get(key) or ""
        return {"default": default, **others} if others and default else default


def read_header(path: str) -> GGUFHeader:
    """Read the header of a GGUF file.

    Raises:
        ModelLoadError: The file cannot be read, is no GGUF file, of another version, or ends too early.
    """
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _Reader(path, content).header()
    except (OSError, ValueError) as error:  # mmap refuses an empty file with a ValueError
        raise ModelLoadError(f"cannot read {quoted(path)}: {quoted(error)}") from error
    except (struct.error, IndexError, KeyError, UnicodeDecodeError, MemoryError, OverflowError) as error:
        raise ModelLoadError(
            f"cannot load model {quoted(path)}: its header is damaged or ends too early"
        ) from error


class _Reader:
    """Reads values one after the other."""

    def __init__(self, path: str, content: mmap.mmap) -> None:
        self._path = path
        self._content = content
        self._at = 0

    def header(self) -> GGUFHeader:
        """Read the whole header, less the table of the tensors."""
        if self._content[:4] != b"GGUF":
            raise ModelLoadError(f"cannot load model {quoted(self._path)}: it is no GGUF file")
        self._at = 4
        version = self._number("<I")
        if version not in _VERSIONS:
            raise ModelLoadError(
                f"cannot load model {quoted(self._path)}: it is of GGUF version {version}; "
                f"versions {' and '.join(map(str, _VERSIONS))} can be read"
            )
        self._number("<Q")  # the number of tensors
        values = {}
        for _ in range(self._number("<Q")):
            key = self._string()
            values[key] = self._value(self._number("<I"))
        if not isinstance(values.get("general.architecture"), str):
            raise ModelLoadError(f"cannot load model {quoted(self._path)}: it does not name its architecture")
        return GGUFHeader(self._path, values, self._at)

    def _number(self, form: str) -> int:
        (number,) = struct.unpack_from(form, self._content, self._at)
        self._at += struct.calcsize(form)
        return int(number)

    def _bytes(self) -> bytes:
        """A string in UTF-8, as a length and its bytes."""
        (length,) = struct.unpack_from("<Q", self._content, self._at)
        start, end = self._at + 8, self._at + 8 + length
        if end > len(self._content):
            raise IndexError
        self._at = end
        return self._content[start:end]

    def _string(self) -> str:
        return self._bytes().decode("utf-8")

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            # A template or a token that is no UTF-8 must not make the file unreadable.
            return self._bytes().decode("utf-8", errors="replace")
        if kind != _ARRAY:
            return self._numbers(kind, 1)[0].item()
        element, length = self._number("<I"), self._number("<Q")
        if element == _STRING:
            return [self._value(_STRING) for _ in range(length)]
        if element == _ARRAY:
            return [self._value(_ARRAY) for _ in range(length)]
        return self._numbers(element, length)

    def _numbers(self, kind: int, length: int) -> np.ndarray[Any, Any]:
        form = np.dtype(_NUMBERS[kind])
        end = self._at + form.itemsize * length
        if end > len(self._content):
            raise IndexError
        found = np.frombuffer(self._content[self._at : end], form)
        self._at = end
        return found
