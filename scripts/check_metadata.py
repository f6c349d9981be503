"""Checks the metadata of built distributions: ``python scripts/check_metadata.py dist/*``.

Every field is valid by the packaging specifications, the long description is present, and all files have one
version and pin each other to it.
"""

import sys
import tarfile
import zipfile
from pathlib import Path

from packaging.metadata import Metadata


def metadata(path: Path) -> Metadata:
    """The validated metadata of a wheel or an sdist."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
            return Metadata.from_email(wheel.read(name), validate=True)
    with tarfile.open(path) as sdist:
        file = sdist.extractfile(f"{path.name.removesuffix('.tar.gz')}/PKG-INFO")
        assert file is not None
        return Metadata.from_email(file.read(), validate=True)


def main(paths: list[str]) -> None:
    """Check all files; the first fault ends the program."""
    found = {path: metadata(Path(path)) for path in paths}
    (version,) = {each.version for each in found.values()}
    for path, each in found.items():
        assert each.description, f"{each.name} has no long description"
        assert each.description_content_type == "text/markdown", each.description_content_type
        pins = [need for need in each.requires_dist or [] if need.name == "cosd"]
        assert all(str(pin.specifier) == f"=={version}" for pin in pins), pins
        print(f"{path}: valid metadata")


if __name__ == "__main__":
    main(sys.argv[1:])
