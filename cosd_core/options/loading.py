"""The options of loading a model."""

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import torch
from pydantic import BaseModel, BeforeValidator, Field, SecretStr, field_validator
from transformers.utils.quantization_config import QuantizationConfigMixin

from cosd_core.errors import InvalidOptionError, quoted
from cosd_core.options.base import Options, unknown_option

CODE_OPTIONS = {"trust_remote_code": True, "use_safetensors": False}
"""Loading options, and the values with which loading a model can run code that comes with it."""

SECRET_OPTIONS = ("token",)
"""Options that no dump, pickle or file holds."""


def _check_quantization(described: Mapping[str, Any]) -> None:
    """Reject an unknown method or unknown names: transformers ignores unknown names silently."""
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING as KINDS

    method = described.get("quant_method")
    if method in (None, "bitsandbytes"):
        bits = [f"{bits}bit" for bits in (4, 8) if described.get(f"load_in_{bits}bit")]
        if method is None and not bits:
            raise ValueError("should say a quant_method: bitsandbytes, torchao, or another of transformers'")
        method = f"bitsandbytes_{bits[0] if bits else '8bit'}"
    if method not in KINDS:
        raise ValueError(f"{unknown_option(str(method), KINDS)} (quant_method)")
    known = tuple(inspect.signature(KINDS[method]).parameters)
    for name in described:
        if name not in ("quant_method", *known) and not name.startswith("_"):
            raise ValueError(f"{unknown_option(str(name), known)} (quantization_config)")


def _as_token(value: object) -> object:
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if isinstance(text, str) and not all("!" <= letter <= "~" for letter in text):
        # An HTTP library would quote it in its error.
        raise ValueError("should be visible ASCII characters alone, without spaces and line breaks")
    return value


if TYPE_CHECKING:  # the constructor takes a string, too
    Token = SecretStr | str | bool | None
else:
    Token = Annotated[SecretStr | bool | None, BeforeValidator(_as_token)]


class LoadingKwargs(TypedDict, total=False):
    """The fields of :class:`LoadingOptions` as keyword arguments, for type checkers and editors."""

    dtype: str | torch.dtype | None
    device: str | torch.device | None
    device_map: str | dict[str, Any] | None
    attn_implementation: str | None
    quantization_config: QuantizationConfigMixin | dict[str, Any] | None
    revision: str | None
    subfolder: str | None
    token: SecretStr | str | bool | None
    cache_dir: str | None
    local_files_only: bool | None
    trust_remote_code: bool | None
    use_safetensors: bool | None
    tokenizer: str | None
    cache_tolerance: float | None
    prefix_cache_mb: int | None
    n_ctx: int | None
    n_gpu_layers: int | None
    n_threads: int | None


class LoadingOptions(Options):
    """Options of loading a model. The names and meanings are those of transformers' ``from_pretrained``.

    ``n_ctx``, ``n_gpu_layers`` and ``n_threads`` are llama.cpp's, for GGUF files.

    Raises:
        InvalidOptionError: A name is unknown, a value of a wrong type, or two contradict each other.
    """

    dtype: str | torch.dtype = Field(default="auto", description='"auto", "float32", ... or a torch.dtype.')
    device: str | torch.device = Field(default="auto", description='"auto": the first of cuda, mps, cpu.')
    device_map: str | dict[str, Any] | None = Field(default=None, description="Spread a model (accelerate).")
    attn_implementation: str | None = Field(default=None, description='"sdpa", "flash_attention_2", ...')
    quantization_config: Any = Field(
        default=None, description='A transformers quantization config, or one as JSON: {"quant_method": ...}.'
    )
    revision: str | None = Field(default=None, description="Branch, tag or commit on the hub.")
    subfolder: str = Field(default="", description="Folder inside the repository.")
    token: Token = Field(default=None, repr=False, exclude=True, description="Hub access token.")
    cache_dir: str | None = Field(default=None, description="The folder of downloaded files.")
    local_files_only: bool = Field(default=False, description="Make no request to the hub.")
    trust_remote_code: bool = Field(default=False, description="Run code that comes with the model.")
    use_safetensors: bool = Field(default=True, description="False admits pickle files, which can run code.")
    tokenizer: str | None = Field(default=None, description="Hub id or path of another tokenizer.")
    cache_tolerance: float | None = Field(
        default=None,
        ge=0,
        description="How far a cache may change the logits, in standard deviations of them; None: measured.",
    )
    prefix_cache_mb: int = Field(
        default=512,
        ge=0,
        description="Memory for what a model has computed for earlier texts; a text that begins like one of "
        "them is read from there on. 0: none.",
    )
    n_ctx: int | None = Field(
        default=None, ge=0, description="GGUF: most tokens of prompt and answer; default: as it was trained."
    )
    n_gpu_layers: int | None = Field(
        default=None, ge=-1, description="GGUF: how many layers a GPU runs; -1, the default: all."
    )
    n_threads: int | None = Field(
        default=None, ge=1, description="GGUF: threads of a pass; default: half of the processors."
    )

    @field_validator("quantization_config")
    @classmethod
    def _is_quantization_config(cls, value: Any) -> Any:
        if value is not None and not isinstance(value, QuantizationConfigMixin | dict):
            raise ValueError("should be a transformers quantization config, or one as a dictionary")
        if isinstance(value, dict):
            _check_quantization(value)
        return value

    @field_validator("dtype")
    @classmethod
    def _name_to_dtype(cls, value: str | torch.dtype) -> str | torch.dtype:
        dtype = getattr(torch, value, None) if isinstance(value, str) else value
        if value == "auto":
            return value
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise ValueError('should be "auto" or a torch float type, such as "float16"')
        return dtype

    def __getstate__(self) -> dict[Any, Any]:
        """Pickle everything but secrets."""
        state = BaseModel.__getstate__(self)  # not super(): subclasses of frameworks' classes override it
        return {**state, "__dict__": {**state["__dict__"], **dict.fromkeys(SECRET_OPTIONS)}}

    def model_post_init(self, context: Any) -> None:
        """Reject options that contradict each other."""
        super().model_post_init(context)
        if self.device_map is not None and self.device != "auto":
            raise InvalidOptionError(
                f"device={quoted(self.device)} and device_map={quoted(self.device_map)} contradict "
                "each other: give one"
            )
