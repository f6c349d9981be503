"""Two small models answer together: a stream, then every replaced token with the reason."""

from cosd_core import CoSDDecoder
from cosd_core.demo import load_pair

facts, arithmetic = load_pair()
decoder = CoSDDecoder(draft=facts, assistant=arithmetic)

print("together:   ", end="")
for chunk in decoder.stream("Q: atomic number of iron plus 7? A:", max_new_tokens=48):
    print(chunk.text, end="", flush=True)
print()

for name in ("draft", "assistant"):
    alone = CoSDDecoder(facts, arithmetic, verifier=name)
    print(f"{name} alone:", alone.generate("Q: atomic number of iron plus 7? A:", max_new_tokens=48).text)

result = decoder.generate("Q: atomic number of iron plus 7? A:", max_new_tokens=48)
for token in result.tokens:
    if token.source == "assistant" and token.q is not None:
        reason = decoder.verifier.reason(token.p, token.q, replaced=True)
        print(f"{token.other_text!r} became {token.text!r}: {reason}")

answers = decoder.generate(["Q: 37+8? A:", "Q: capital of France? A:"], max_new_tokens=48)
print([answer.text for answer in answers])
