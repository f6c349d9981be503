"""Collaborative Speculative Decoding: two or more language models write one text together.

::

    from cosd_core import CoSDDecoder

    decoder = CoSDDecoder.from_pretrained(draft="org/model-a", assistant="org/model-b")
    print(decoder.generate("The capital of France", max_new_tokens=32).text)
"""

import lazy_loader

# Torch and transformers take seconds to import, so a name of __init__.pyi is imported on its first use.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
