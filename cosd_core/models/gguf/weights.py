"""A GGUF model in memory, and an adapter over it: what contexts are made of."""

import ctypes
import os
from typing import Any
from weakref import finalize

from cosd_core.errors import ModelLoadError, UnsupportedModelError, quoted
from cosd_core.models.gguf.library import llama_cpp, logged_problems, reason


class Weights:
    """The weights of a GGUF model. Any number of contexts and threads may read them at once.

    They are freed when nothing refers to the object any more.

    Attributes:
        path: The file.
        pointer: llama.cpp's model.
        vocabulary: llama.cpp's vocabulary of the model.
    """

    def __init__(self, path: str, *, n_gpu_layers: int) -> None:
        """Load a file; the weights are mapped into memory, not copied, where they stay on the CPU.

        Raises:
            MissingExtraError: llama-cpp-python is not installed.
            ModelLoadError: llama.cpp cannot load the file.
            UnsupportedModelError: The model is no causal language model.
        """
        llama = llama_cpp()
        self.path = path
        parameters = llama.llama_model_default_params()
        parameters.n_gpu_layers = n_gpu_layers
        with logged_problems() as problems:
            self.pointer: Any = llama.llama_model_load_from_file(os.fsencode(path), parameters)
        if not self.pointer:
            raise ModelLoadError(f"cannot load model {quoted(path)}: {reason(problems)}")
        finalize(self, llama.llama_model_free, self.pointer)
        self.vocabulary: Any = llama.llama_model_get_vocab(self.pointer)
        if llama.llama_model_has_encoder(self.pointer) or llama.llama_model_is_diffusion(self.pointer):
            raise UnsupportedModelError(f"model {quoted(path)} is not a decoder-only causal language model")

    @property
    def recurrent(self) -> bool:
        """Whether the model keeps a state that cannot go back to an earlier position by itself."""
        llama = llama_cpp()
        return bool(llama.llama_model_is_recurrent(self.pointer) or llama.llama_model_is_hybrid(self.pointer))

    @property
    def vocabulary_size(self) -> int:
        """The number of ids that the model scores."""
        return int(llama_cpp().llama_vocab_n_tokens(self.vocabulary))

    def ids_with(self, test: Any) -> list[int]:
        """The ids for which a function of llama.cpp's vocabulary returns true."""
        return [at for at in range(self.vocabulary_size) if test(self.vocabulary, at)]

    def tokenize(self, text: str) -> list[int]:
        """The ids of a text by llama.cpp's own tokenizer: special tokens are parsed, and none is added."""
        data = text.encode("utf-8", errors="replace")
        room = len(data) + 8
        ids = (ctypes.c_int32 * room)()
        count = llama_cpp().llama_tokenize(self.vocabulary, data, len(data), ids, room, False, True)
        return list(ids[: max(count, 0)])


class LoraAdapter:
    """A LoRA adapter in a GGUF file, over a model. llama.cpp frees it together with the model.

    Attributes:
        path: The file.
        pointer: llama.cpp's adapter.
    """

    def __init__(self, path: str, weights: Weights) -> None:
        """Load an adapter.

        Raises:
            ModelLoadError: llama.cpp cannot load it, or it does not fit the model.
        """
        llama = llama_cpp()
        self.path = path
        with logged_problems() as problems:
            self.pointer: Any = llama.llama_adapter_lora_init(weights.pointer, os.fsencode(path))
        if not self.pointer:
            raise ModelLoadError(
                f"cannot load adapter {quoted(path)} over model {quoted(weights.path)}: {reason(problems)}"
            )
