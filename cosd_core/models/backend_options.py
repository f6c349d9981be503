"""The loading options that only one backend has."""

from collections.abc import Collection

from cosd_core.errors import InvalidOptionError
from cosd_core.options import LoadingOptions

TRANSFORMERS_OPTIONS = (
    "dtype", "device", "device_map", "attn_implementation", "quantization_config", "trust_remote_code",
    "use_safetensors", "cache_tolerance",
)  # fmt: skip
"""Those that GGUF files do not have."""

LLAMA_CPP_OPTIONS = ("n_ctx", "n_gpu_layers", "n_threads")
"""Those that only GGUF files have."""


def given_options(loading: LoadingOptions) -> set[str]:
    """The names of the options whose values are not the defaults."""
    default = LoadingOptions()
    return {name for name in LoadingOptions.model_fields if getattr(loading, name) != getattr(default, name)}


def check_options_apply(loading: LoadingOptions, what: str, *, without: Collection[str]) -> None:
    """Refuse loading options that a backend does not have.

    Raises:
        InvalidOptionError: One of the options ``without`` is given; the message names it and ``what``.
    """
    if wrong := sorted(given_options(loading).intersection(without)):
        raise InvalidOptionError(f"{', '.join(wrong)} given, which does not apply to {what}")
