"""The suites of langchain-tests over `ChatHuggingFace` and a local pipeline, to compare with `ChatCoSD`.

Needs langchain-huggingface, which cosd does not::

    pip install langchain-huggingface
    pytest -o filterwarnings=default scripts/chathuggingface_standard.py

The model is the caller of the bundled chat pair, and the options are those of
`tests/langchain/test_standard.py`.
"""

from importlib.resources import files
from typing import Any

import torch
from langchain_huggingface import ChatHuggingFace, HuggingFacePipeline
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

torch.set_num_threads(1)
CALLER = str(files("cosd_core.demo") / "weights" / "caller")
PIPELINE = HuggingFacePipeline(
    pipeline=pipeline(
        "text-generation",
        model=AutoModelForCausalLM.from_pretrained(CALLER, dtype=torch.float32),
        tokenizer=AutoTokenizer.from_pretrained(CALLER),
        max_new_tokens=128,
    ),
    model_id=CALLER,
)


class OverAPipeline:
    """What both suites ask for."""

    chat_model_class = ChatHuggingFace

    @property
    def chat_model_params(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"llm": PIPELINE, "model_id": CALLER}


class TestUnit(OverAPipeline, ChatModelUnitTests):
    """The unit tests."""


class TestIntegration(OverAPipeline, ChatModelIntegrationTests):
    """The integration tests."""

    supports_json_mode = True
    supports_anthropic_inputs = True
