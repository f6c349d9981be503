"""A hash of GGUF files, for the fingerprint of a model."""

import hashlib
import os
from collections.abc import Iterable

_SAMPLES, _SAMPLE_SIZE = 1024, 1024
"""How many places of a file enter the hash, at equal distances, and how many bytes each."""


def digest_files(paths: Iterable[str], *, head: int) -> str:
    """A hash of the files' sizes, of their first ``head`` bytes, and of samples of all their bytes.

    A change of few numbers of the weights can escape it.
    """
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            digest.update(str(size).encode())
            file.seek(0)
            digest.update(file.read(head))
            for at in range(0, size, max(size // _SAMPLES, _SAMPLE_SIZE)):
                file.seek(at)
                digest.update(file.read(_SAMPLE_SIZE))
    return digest.hexdigest()
