"""JSON Schemas: what is accepted, enforced by the grammar, and checked afterwards.

``python -m benchmarks.json_schema``: 1,000 random schemas with every keyword; random models write an answer
to each at temperature 1. ``--suite FOLDER``: the official JSON Schema Test Suite, ``json/tests/draft2020-12``
in the source archive of the package jsonschema, which
``pip download jsonschema --no-deps --no-binary jsonschema`` loads.
"""

import argparse
import json
import random
from collections import Counter
from functools import cache
from itertools import islice, permutations
from pathlib import Path
from typing import Any

import torch
from jsonschema import Draft202012Validator
from tokenizers import pre_tokenizers

from benchmarks.common import byte_level, random_model
from benchmarks.random_schemas import random_schema
from cosd_core import CoSDDecoder, Grammar, InvalidOptionError
from cosd_core.errors import GenerationError
from cosd_core.grammar.json_formats import format_checker
from cosd_core.sampling.grammar_matcher import GrammarMatcher

MOST_ORDERS = 120
"""Of an object's properties: a grammar has one order, the instances of the suite have any."""


@cache
def byte_tokenizer() -> Any:
    """256 bytes and an end token."""
    return byte_level(
        {symbol: at for at, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []
    )


def measure_random(count: int) -> None:
    """Print how many schemas are accepted, and what becomes of the answers."""
    sizes = {"hidden": 16, "layers": 2, "heads": 2, "intermediate_size": 32, "initializer_range": 0.3}
    tokenizer = byte_tokenizer()
    decoder = CoSDDecoder(*(random_model(tokenizer, seed, **sizes) for seed in (0, 1)))
    found: Counter[str] = Counter()
    keywords: Counter[str] = Counter()
    for seed in range(count):
        schema = random_schema(random.Random(seed))
        outcome, keyword = _outcome(decoder, schema, seed)
        found[outcome] += 1
        keywords.update([keyword] if keyword else [])
    print(f"random schemas: {count}")
    for outcome, number in found.most_common():
        print(f"  {outcome:52} {number}")
    print("  keywords that the reported answers break:", dict(keywords.most_common()))


def _outcome(decoder: CoSDDecoder, schema: dict[str, Any], seed: int) -> tuple[str, str]:
    """What becomes of one schema, and the keyword that its answer breaks."""
    try:
        grammar = Grammar.json_schema(schema)
    except InvalidOptionError as error:
        return (
            "refused: contradicts itself" if "contradicts itself" in str(error) else f"refused: {error}"
        ), ""
    try:
        answer = decoder.generate("Answer: ", grammar=grammar, temperature=1.0, seed=seed, max_new_tokens=300)
    except GenerationError:
        return "error while decoding: nothing valid can follow", ""
    if answer.finish_reason == "length":
        return "answer cut by max_new_tokens", ""
    if answer.schema_error is not None:
        return "answer reported as not valid", answer.schema_error.partition(" ")[0]
    valid = Draft202012Validator(schema, format_checker=format_checker())
    is_valid = valid.is_valid(json.loads(answer.text))
    return f"answer reported as valid, {'valid' if is_valid else 'NOT VALID'} by jsonschema", ""


def measure_suite(folder: Path) -> None:
    """Print the shares of the suite's groups and instances."""
    counts: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    refused: list[str] = []
    for path in sorted(folder.glob("*.json")):
        for group in json.loads(path.read_text(encoding="utf-8")):
            counts["groups"] += 1
            try:
                grammar = Grammar.json_schema(group["schema"])
            except InvalidOptionError as error:
                refused.append(f"{path.stem}: {group['description']}: {error}")
                continue
            counts["accepted"] += 1
            for test in group["tests"]:
                _count(counts, missed, path.stem, grammar, test)
    print(f"groups of the suite: {counts['groups']}, accepted: {counts['accepted']}")
    for kind in ("valid", "invalid"):
        total = counts[kind]
        names = ("allowed by the grammar", "accepted by the check") if kind == "valid" else (
            "excluded by the grammar", "excluded or caught afterwards")  # fmt: skip
        for name, key in zip(names, ("grammar", "check"), strict=True):
            number = counts[kind, key]  # type: ignore[index]
            print(f"{kind} instances: {total}, {name}: {number} ({100 * number / total:.1f}%)")
    print("wrong by the check:", dict(missed))
    print("refused:", *refused, sep="\n  ")


def _count(
    counts: Counter[Any], missed: Counter[str], name: str, grammar: Grammar, test: dict[str, Any]
) -> None:
    kind = "valid" if test["valid"] else "invalid"
    counts[kind] += 1
    is_admitted = any(_admits(grammar, text) for text in _texts(test["data"]))
    is_checked = grammar.error(json.dumps(test["data"])) is None
    counts[kind, "grammar"] += is_admitted == test["valid"]
    is_right = is_checked if test["valid"] else not (is_admitted and is_checked)
    counts[kind, "check"] += is_right
    missed[name] += not is_right
    if not missed[name]:
        del missed[name]


def _texts(value: Any) -> list[str]:
    """A value as JSON, with the properties of the outermost object in several orders."""
    if not isinstance(value, dict):
        return [json.dumps(value, ensure_ascii=False)]
    orders = islice(permutations(value.items()), MOST_ORDERS)
    return [json.dumps(dict(order), ensure_ascii=False) for order in orders]


def _admits(grammar: Grammar, text: str) -> bool:
    tokenizer = byte_tokenizer()
    tokens = tokenizer.encode(text, add_special_tokens=False)
    end = tokenizer.eos_token_id
    matcher = GrammarMatcher(grammar, tokenizer, end + 1, frozenset({end}))
    try:
        return bool(matcher.is_complete(tokens) or matcher.allowed(tokens)[end])
    except GenerationError:
        return False


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", type=Path, help="folder of the official test suite's draft")
    parser.add_argument("--count", type=int, default=1000, help="number of random schemas")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.suite:
        measure_suite(arguments.suite)
    else:
        measure_random(arguments.count)
