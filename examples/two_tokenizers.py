"""Two models with different tokenizers write one text: one reads pieces of words, the other bytes."""

from itertools import groupby

from bundled_pairs import load_words_pair
from cosd_core import CoSDDecoder, LanguageModel

QUESTION = "Q: letters in the capital of France plus 4? A:"


def pieces(model: LanguageModel, text: str) -> list[str]:
    """The text as the model's tokenizer divides it."""
    ids = model.tokenizer(text, add_special_tokens=False).input_ids
    return model.tokenizer.batch_decode([[each] for each in ids])


facts, arithmetic = load_words_pair()
decoder = CoSDDecoder(draft=arithmetic, assistant=facts)
print("one vocabulary:", decoder.shares_vocabulary)

for name, verifier in (("arithmetic alone:", "draft"), ("facts alone:     ", "assistant")):
    alone = CoSDDecoder(arithmetic, facts, verifier=verifier)
    print(name, alone.generate(QUESTION, max_new_tokens=48).text)
result = decoder.generate(QUESTION, max_new_tokens=48)
print("together:        ", result.text)

# What the assistant said in tokens of its own is text, and stands here in the draft's tokens.
for source, group in groupby(result.tokens, key=lambda token: token.source):
    tokens = [token for token in group if token.text]  # the end has no text
    text = "".join(token.text for token in tokens)
    print(f"the {source} wrote {text!r}, in the draft's tokens {'|'.join(token.text for token in tokens)!r}")
    first = tokens[0]  # those that follow in one replacement have the same p and q
    if source == "assistant" and first.q is not None:
        reason = decoder.verifier.reason(first.p, first.q, replaced=True)
        print(f"  the draft went on with {first.other_text!r}: {reason}")

for name, model in (("arithmetic", arithmetic), ("facts", facts)):
    divided = pieces(model, result.text)
    print(f"the {name} model reads {len(divided)} tokens: {'|'.join(divided)!r}")
