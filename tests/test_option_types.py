"""The keyword arguments that type checkers see are the fields of the option classes."""

from typing import Any, get_type_hints

import pytest
from pydantic import BaseModel, BeforeValidator, SecretStr
from transformers import LogitsProcessorList, MinLengthLogitsProcessor

from cosd_core import Grammar
from cosd_core.options import GenerationKwargs, GenerationOptions, LoadingKwargs, LoadingOptions

PROCESSOR = MinLengthLogitsProcessor(1, eos_token_id=0)
ACCEPTED: dict[str, tuple[Any, ...]] = {
    "stop": ("\n", ["\n"], ("\n",), None),
    "eos_token_id": (2, [2], {2}, (2,), None),
    "logits_processor": (PROCESSOR, [PROCESSOR], LogitsProcessorList([PROCESSOR]), None),
    "grammar": (Grammar.regex("a"), {"type": "object"}, BaseModel, None),
    "token": ("hf_x", SecretStr("hf_x"), True, None),
    "quantization_config": ({"quant_method": "bitsandbytes", "load_in_4bit": True}, None),
}
"""Values of every type that an argument is annotated with, where the field's own type is narrower."""


@pytest.mark.parametrize(
    ("arguments", "options"), [(GenerationKwargs, GenerationOptions), (LoadingKwargs, LoadingOptions)]
)
def test_arguments_and_fields_have_the_same_names_and_types(
    arguments: type, options: type[BaseModel]
) -> None:
    hints = get_type_hints(arguments)
    assert list(hints) == list(options.model_fields)
    for name, field in options.model_fields.items():
        if name in ACCEPTED:
            assert field.annotation is Any or any(isinstance(m, BeforeValidator) for m in field.metadata)
            for value in ACCEPTED[name]:
                options(**{name: value})
        else:
            assert hints[name] == field.annotation | None, "None means the default"
