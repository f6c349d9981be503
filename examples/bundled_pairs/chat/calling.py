"""Dialogues with tools: calls with arguments, requests that no tool fits, and answers after a result."""

from dataclasses import dataclass
from typing import Any

from .dialogue import Dialogue, dumps
from .draw import Draw
from .talk import small_talk

COMMON = ("input", "query", "a", "b", "x", "y", "n", "value", "text", "number", "name", "key")
SUMS = (("add", "plus", "sum", "adder"), ("multiply", "product", "times", "multiplier"))
NO_TOOL = "I have no tool for that."


@dataclass(frozen=True)
class Parameter:
    """A parameter: its name, its JSON type, its enum's values."""

    name: str
    kind: str
    choices: tuple[str, ...] = ()

    def value(self, draw: Draw) -> Any:
        """A random value."""
        if self.kind == "integer":
            return draw.integer()
        if self.kind == "number":
            return draw.decimal() if draw.chance(0.7) else draw.integer()
        if self.kind == "boolean":
            return draw.chance(0.5)
        if self.kind == "enum":
            return draw.one(self.choices)
        if self.kind == "integers":
            return [draw.integer() for _ in range(draw.rng.randint(2, 4))]
        if self.kind == "strings":
            return [draw.proper() for _ in range(draw.rng.randint(2, 3))]
        return draw.string()

    def schema(self, draw: Draw, style: int) -> dict[str, Any]:
        """The JSON schema, in one of several renderings."""
        schema: dict[str, Any] = {}
        if draw.chance(0.25):
            schema["description"] = f"The {self.name.replace('_', ' ')} of the {draw.noun()}."
        if self.kind == "enum":
            schema["enum"] = list(self.choices)
        if self.kind in ("integer", "number") and draw.chance(0.2):
            keys = draw.one((("exclusiveMaximum", "exclusiveMinimum"), ("maximum", "minimum")))
            limit = 10 ** draw.rng.randint(1, 6)
            schema |= {keys[0]: limit, keys[1]: draw.one((-limit, 0))}
        if self.kind in ("integers", "strings"):
            schema["items"] = {"type": self.kind.removesuffix("s")}
        if style == 1:
            schema["title"] = self.name.replace("_", " ").title()
        kind = {"integers": "array", "strings": "array", "enum": "string"}.get(self.kind, self.kind)
        return {"type": kind, **schema} if style == 2 else {**schema, "type": kind}


@dataclass(frozen=True)
class Tool:
    """A tool that is offered."""

    name: str
    description: str
    parameters: tuple[Parameter, ...]

    def schema(self, draw: Draw) -> dict[str, Any]:
        """The OpenAI function, as langchain, llama-index or a person would write it."""
        style = draw.rng.randrange(3)
        properties = {each.name: each.schema(draw, style) for each in self.parameters}
        required = {"required": [each.name for each in self.parameters]} if self.parameters else {}
        if style == 2:
            parameters = {"type": "object", "properties": properties, **required}
        else:
            parameters = {"properties": properties, **required, "type": "object"}
        function = {"name": self.name, "description": self.description, "parameters": parameters}
        return {"type": "function", "function": function}


def tool_name(draw: Draw) -> str:
    """One to three words."""
    words = draw.one(
        (
            [draw.verb(), draw.noun()],
            [draw.adjective(), draw.noun()],
            [draw.noun(), draw.verb()],
            [draw.word()],
            [draw.adjective(), draw.noun(), draw.noun()],
            [draw.noun(), draw.one(("function", "tool", "no", "args", "helper"))],
        )
    )
    name = "_".join(words)
    return "".join(part.capitalize() for part in name.split("_")) if draw.chance(0.08) else name.lower()


def parameters(draw: Draw) -> tuple[Parameter, ...]:
    """Zero to three parameters."""

    def name() -> str:
        word = draw.one(COMMON) if draw.chance(0.35) else draw.noun()
        return word if draw.chance(0.75) else f"{draw.noun()}_{word}"

    numbers, strings = ("integer", "integer", "number"), ("string", "string", "string")
    kinds = (*numbers, *strings, "boolean", "enum", "integers", "strings")
    count = draw.one((0, 1, 1, 1, 1, 2, 2, 3))
    return tuple(
        Parameter(each, draw.one(kinds), tuple(draw.some(draw.word, draw.rng.randint(2, 3))))
        for each in draw.some(name, count)
    )


def any_tool(draw: Draw) -> Tool:
    """A tool of any name with any parameters."""
    name = tool_name(draw)
    words = name.replace("_", " ")
    description = draw.one(
        (
            f"{words.capitalize()}.",
            f"Apply a {words} to an input.",
            f"Calculate a {words}.",
            f"{draw.verb().replace('_', ' ').capitalize()} the {draw.noun()}.",
            f"{draw.verb().replace('_', ' ').capitalize()} a {draw.adjective()} {draw.noun()}.",
            f"Tool for the {words}.\n\n    Returns:\n        The {draw.noun()}.",
        )
    )
    return Tool(name, description, parameters(draw))


def lookup(draw: Draw, noun: str | None = None) -> Tool:
    """A tool that looks a quantity up."""
    noun = noun or draw.noun()
    key = draw.one(("location", "city", "place", "name", "entity", "query", "town", draw.noun()))
    name = draw.one((f"get_{noun}", f"get_{noun}", f"{noun}_of", f"find_{noun}", f"{noun}_lookup", noun))
    where = draw.one(("at a location", "of a place", f"of a {draw.noun()}", "in a city", "by name"))
    description = f"{draw.one(('Get', 'Look up', 'Find', 'Return'))} {draw.one(('the ', ''))}{noun} {where}."
    return Tool(name, description, (Parameter(key, "string"),))


def spoken(draw: Draw, value: Any) -> str:
    """A value as a user writes it: strings in quotes."""
    if isinstance(value, str):
        quote = draw.one(("'", '"'))
        return f"{quote}{value}{quote}"
    return dumps(value)


def offer(draw: Draw, dialogue: Dialogue, *needed: Tool, topic: str = "\n") -> None:
    """Offer these tools among others, none of which is on the topic."""
    others = draw.one((0, 0, 0, 1, 1, 2)) if len(needed) < 3 else draw.one((0, 1))
    tools = list(needed)
    for _ in range(others):
        other = lookup(draw) if draw.chance(0.4) else any_tool(draw)
        known = {each.name for each in tools}
        if other.name not in known and topic not in f"{other.name} {other.description}":
            tools.append(other)
    draw.rng.shuffle(tools)
    dialogue.tools = [each.schema(draw) for each in tools]
    if draw.chance(0.2):
        text = draw.one(("You are a helpful assistant.", "Use the tools.", "Answer with the tools you have."))
        dialogue.system(text)


def functional(draw: Draw, dialogue: Dialogue) -> None:
    """A question that names its tool."""
    tool = any_tool(draw)
    offer(draw, dialogue, tool)
    arguments = {each.name: each.value(draw) for each in tool.parameters}
    plain = ", ".join(spoken(draw, value) for value in arguments.values())
    joined = " and ".join(spoken(draw, value) for value in arguments.values())
    named = ", ".join(f"{name}={spoken(draw, value)}" for name, value in arguments.items())
    listed = " and ".join(f"{name.replace('_', ' ')} {spoken(draw, v)}" for name, v in arguments.items())
    name = tool.name
    forms = [
        f"What is the value of {name}({plain})? Use the tool.",
        f"What is the value of {name}({plain})? Use the tool.",
        f"What is {name}({plain})?",
        f"{name}({named})",
        f"Compute {name}({plain}).",
    ]
    if arguments:
        forms += [
            f"use the {name} tool on {joined}",
            f"Call {name} with {joined}.",
            f"Call {name} with {listed}.",
            f"Please {name.replace('_', ' ')} with {listed}",
            f"Apply {name} to {joined}, please.",
            f"What does {name} give for {joined}?",
        ]
    else:
        forms += [f"Call {name}.", f"Use the {name} tool.", f"Please run {name.replace('_', ' ')}"]
    calls = [(name, arguments)]
    if len(arguments) == 1 and draw.chance(0.12):
        (key,) = arguments
        second = tool.parameters[0].value(draw)
        dialogue.user(f"{draw.one(('Use', 'Call'))} {name} on {plain} and on {spoken(draw, second)}.")
        calls.append((name, {key: second}))
    else:
        dialogue.user(draw.one(forms))
    dialogue.call(*calls)
    _finish(draw, dialogue, len(calls))


def _finish(draw: Draw, dialogue: Dialogue, count: int) -> None:
    """Add the tools' results and the answer after them."""
    if draw.chance(0.15):
        fault = draw.one(("Missing", "Unknown", "Bad", "No such"))
        problem = f"{fault} {draw.phrase()} {spoken(draw, draw.word())}."
        for _ in range(count):
            dialogue.result(f"Error: {problem}")
        dialogue.answer("result", f"The tool failed: {problem}")
        return
    results = [_result(draw) for _ in range(count)]
    for value in results:
        dialogue.result(dumps({"result": value}) if draw.chance(0.25) else str(value))
    if count == 1 and str(results[0]).endswith("."):
        dialogue.answer("result", str(results[0]))
    else:
        verb = "The answer is" if count == 1 else "The answers are"
        dialogue.answer("result", f"{verb} {' and '.join(str(each).removesuffix('.') for each in results)}.")


def _result(draw: Draw) -> int | float | str:
    if draw.chance(0.3):
        return f"{draw.one(('It is', 'Done:', 'Created', 'The result is', 'Found'))} {draw.string()}."
    if draw.chance(0.5):
        return draw.string()
    return draw.integer() if draw.chance(0.5) else draw.decimal()


def topical(draw: Draw, dialogue: Dialogue) -> None:
    """A question about a place that some tool can look up."""
    tool = lookup(draw, noun := draw.noun())
    offer(draw, dialogue, tool, topic=noun)
    count = 2 if draw.chance(0.12) else 1
    places = draw.some(draw.place if draw.chance(0.7) else draw.foreign, count)
    where = f" {draw.one(('in', 'in', 'of', 'at'))} "
    asked = where.join([noun, " and".join([places[0], *(f"{where}{each}" for each in places[1:])])])
    dialogue.user(
        draw.one(
            (f"What is the {asked}?", f"What is the {asked}?", f"Tell me the {asked}.", f"{asked} please")
        )
    )
    (key,) = tool.parameters
    dialogue.call(*((tool.name, {key.name: place}) for place in places))
    _finish(draw, dialogue, count)


def creating(draw: Draw, dialogue: Dialogue) -> None:
    """Create something with a name and a description."""
    thing = draw.noun()
    verb = draw.one(("create", "add", "register", "make", "save"))
    name = draw.one((f"{verb}_{thing}", f"{draw.adjective()}_{thing}", f"new_{thing}", f"{thing}_{verb}"))
    first = draw.one((f"{thing}_name", "name", "title", f"{thing}_title", f"full_{thing}_name"))
    second = draw.one(("description", "note", "text", "details", draw.noun()))
    description = (
        f"{draw.one(('Create', 'Tool for creating', 'Add'))} a {thing}{draw.one(('', ' with a name'))}."
    )
    if draw.chance(0.25):
        description += (
            f"\n\n    Args:\n        {first}: The {thing}'s name.\n        {second}: {draw.phrase()}."
        )
    tool = Tool(name, description, (Parameter(first, "string"), Parameter(second, "string")))
    offer(draw, dialogue, tool)
    value, text = draw.foreign() if draw.chance(0.6) else draw.string(), draw.phrase()
    gloss = f" ({draw.person()})" if draw.chance(0.5) else ""
    named = draw.one(("named", "called", "with the name"))
    link = draw.one((" - ", " - ", ": ", f" with {second} "))
    dialogue.user(f"{verb.capitalize()} a {thing} {named} {spoken(draw, value)}{gloss}{link}{text}")
    dialogue.call((tool.name, {first: value, second: text}))
    _finish(draw, dialogue, 1)


def styled(draw: Draw, dialogue: Dialogue) -> None:
    """A request for something of a kind; the tool has a parameter for the kind."""
    thing = draw.noun()
    kind = draw.one(("style", "kind", "type", "tone", draw.noun()))
    key = draw.one((kind, f"{thing}_{kind}", f"{draw.noun()}_{kind}"))
    name = draw.one((f"{thing}_generator", f"make_{thing}", f"{draw.verb()}_{thing}", f"{thing}_tool"))
    tool = Tool(name, f"{draw.one(('Make', 'Generate', 'Write'))} a {thing}.", (Parameter(key, "string"),))
    offer(draw, dialogue, tool)
    value = draw.adjective() if draw.chance(0.5) else draw.proper()
    verb = draw.one(("generate", "make", "write"))
    dialogue.user(
        draw.one(
            (
                f"Using the tool, {verb} a {value} {thing}.",
                f"{verb.capitalize()} a {value} {thing}.",
                f"Use the tool to {verb} a {value} {thing}.",
            )
        )
    )
    dialogue.call((name, {key: value}))
    _finish(draw, dialogue, 1)


def chained(draw: Draw, dialogue: Dialogue) -> None:
    """Two quantities looked up, then added or multiplied by a tool."""
    tool = lookup(draw, noun := draw.noun())
    at = draw.rng.randrange(2)
    name = draw.one(SUMS[at])
    keys = draw.one((("a", "b"), ("x", "y"), ("first", "second"), ("left", "right")))
    words = ("Add", "Multiply")[at]
    maths = Tool(
        name, f"{words} two {draw.one(('numbers', 'integers'))}.", (*(Parameter(k, "integer") for k in keys),)
    )
    offer(draw, dialogue, tool, maths, topic=noun)
    if draw.chance(0.3):
        a, b = draw.integer(), draw.integer()
        signs = (("+", "plus"), ("*", "times"))[at]
        dialogue.user(f"What is {a} {draw.one(signs)} {b}?")
    else:
        first, second = draw.some(draw.place, 2)
        sign = ("plus", "times")[at]
        dialogue.user(
            draw.one(
                (
                    f"{words} the {noun} of {first} and the {noun} of {second}.",
                    f"What is the {noun} of {first} {sign} the {noun} of {second}?",
                )
            )
        )
        a, b = draw.amount(), draw.amount()
        for place, value in ((first, a), (second, b)):
            dialogue.call((tool.name, {tool.parameters[0].name: place}))
            dialogue.result(str(value))
    dialogue.call((name, dict(zip(keys, (a, b), strict=True))))
    total = a + b if at == 0 else a * b
    dialogue.result(str(total))
    dialogue.answer("result", f"The answer is {total}.")


def no_call(draw: Draw, dialogue: Dialogue) -> None:
    """Tools are offered, and none fits."""
    tool = lookup(draw) if draw.chance(0.6) else any_tool(draw)
    dialogue.tools = [tool.schema(draw)]
    if draw.chance(0.5):
        message, answer = small_talk(draw)
        dialogue.user(message)
        dialogue.answer("none", answer)
        return
    while (other := draw.noun()) in f"{tool.name} {tool.description}":
        pass
    dialogue.user(f"What is the {other} {draw.one(('in', 'of', 'at'))} {draw.place()}?")
    dialogue.answer("none", NO_TOOL)
