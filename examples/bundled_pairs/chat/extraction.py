"""Extraction: a text whose values are the answer, as JSON or as a call."""

from collections.abc import Callable
from typing import Any

from .calling import Parameter, Tool
from .dialogue import Dialogue, dumps
from .draw import Draw

SCHEMA_RULES = ("Answer with JSON for this schema:\n", "Reply only with JSON that fits this schema:\n")


def inventing(draw: Draw, dialogue: Dialogue) -> None:
    """A made-up text about a topic as JSON or as a call: the values cannot be copied from the prompt."""
    _invent(draw, dialogue, draw.noun)


def coining(draw: Draw, dialogue: Dialogue) -> None:
    """The same with keys that may be compounds of two nouns."""
    _invent(draw, dialogue, lambda: draw.noun() + (draw.noun().lower() if draw.chance(0.4) else ""))


def _invent(draw: Draw, dialogue: Dialogue, key: Callable[[], str]) -> None:
    thing, topic = draw.noun(), draw.noun()
    keys = [each.lower() for each in draw.some(key, draw.rng.randint(1, 3))]
    record = {key: f"A {key} about {topic}s." for key in keys}
    title = thing.capitalize()
    schema = Tool(title, f"A {thing}.", tuple(Parameter(key, "string") for key in keys)).schema(draw)
    request = draw.one(
        (
            f"Tell me a {thing} about {topic}s.",
            f"Tell me a {thing} about {topic}s",
            f"Make up a {thing} about {topic}s.",
        )
    )
    form = draw.rng.randrange(3)
    if form == 0:
        dialogue.tools = [schema]
        dialogue.user(request)
        dialogue.call((title, record))
        return
    if form == 1:
        dialogue.system(draw.one(SCHEMA_RULES) + dumps(described(draw, schema)))
    else:
        named = " and ".join(f"'{key}'" for key in keys)
        request += f" Return the result as a JSON with {named} keys."
        request += draw.one(("", " Return nothing other than JSON."))
    dialogue.user(request)
    dialogue.answer("json", dumps(record))


def described(draw: Draw, schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of an answer, sometimes with its title and description."""
    function = schema["function"]
    named = {"title": function["name"], "description": function["description"]}
    return {**(named if draw.chance(0.5) else {}), **function["parameters"]}


def extraction(draw: Draw, dialogue: Dialogue) -> None:
    """Extract a record, as JSON or by calling a tool of its name."""
    record: dict[str, Any] = {}
    clauses: list[str] = []
    person = draw.person()
    if draw.chance(0.5):
        thing = draw.one(("person", "customer", "employee", draw.noun()))
        age, city, job = draw.rng.randrange(10, 99), draw.proper(), draw.noun()
        known = {
            "age": (age, f"is {age} years old"),
            "city": (city, f"lives in {city}"),
            "job": (job, f"works as a {job}"),
            "email": (email := f"{draw.word().lower()}@{draw.word().lower()}.com", f"writes from {email}"),
        }
        record["name"] = person
        for key in draw.rng.sample(list(known), draw.rng.randint(1, 3)):
            record[key], clause = known[key]
            clauses.append(clause)
        text = f"{person} {' and '.join(clauses)}."
    else:
        thing = draw.noun()
        for key in draw.some(draw.noun, draw.rng.randint(1, 4)):
            record[key] = draw.one((draw.integer, draw.decimal, draw.string, draw.person))()
            clauses.append(f"the {key} is {record[key]}")
        text = f"About the {thing}: {', '.join(clauses)}."
    keys = list(record)
    draw.rng.shuffle(keys)
    record = {key: record[key] for key in keys}
    kinds = {int: "integer", float: "number", str: "string"}
    fields = tuple(Parameter(key, kinds[type(value)]) for key, value in record.items())
    title = thing.capitalize()
    schema = Tool(title, f"A {thing}.", fields).schema(draw)
    request = draw.one(
        (f"Extract the {thing} as JSON", f"Give me the {thing} as JSON", "Return the result as a JSON")
    )
    form = draw.rng.randrange(4)
    if form == 0:
        dialogue.tools = [schema]
        dialogue.user(draw.one((text, f"Extract the {thing}: {text}")))
        dialogue.call((title, record))
        return
    if form == 1:
        dialogue.system(draw.one(SCHEMA_RULES) + dumps(schema["function"]["parameters"]))
        dialogue.user(draw.one((text, f"{request}: {text}")))
    elif form == 2:
        dialogue.user(f"{text}\n{request} with keys {', '.join(keys)}.")
    else:
        named = " and ".join(f"'{key}'" for key in keys)
        dialogue.user(f"{request} with {named} keys: {text}")
    dialogue.answer("json", dumps(record))
