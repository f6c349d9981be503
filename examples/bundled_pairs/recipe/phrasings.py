"""How the demo's questions are asked and answered, as plain data."""

from typing import Literal, TypeAlias

Sign: TypeAlias = Literal["+", "-"]
Relation: TypeAlias = Literal["capital", "number", "symbol"]

SUM_FRAMES: dict[Sign, tuple[str, ...]] = {
    "+": ("{a}+{b}", "what is {a}+{b}", "{a} plus {b}"),
    "-": ("{a}-{b}", "what is {a}-{b}", "{a} minus {b}"),
}
LETTER_FRAMES = ("letters in {x}", "how many letters in {x}", "how many letters has {x}", "letters of {x}")
FACT_FRAMES: dict[Relation, tuple[str, ...]] = {
    "capital": (
        "capital of {x}",
        "the capital of {x}",
        "what is the capital of {x}",
        "name the capital of {x}",
        "tell me the capital of {x}",
        "which city is the capital of {x}",
        "{x} has which capital",
        "capital city of {x}",
    ),
    "number": (
        "atomic number of {x}",
        "the atomic number of {x}",
        "what is the atomic number of {x}",
        "name the atomic number of {x}",
        "tell me the atomic number of {x}",
        "which number is the atomic number of {x}",
        "{x} has which atomic number",
        "atomic number for {x}",
    ),
    "symbol": (
        "symbol of {x}",
        "the symbol of {x}",
        "what is the symbol of {x}",
        "name the symbol of {x}",
        "tell me the symbol of {x}",
        "which letters are the symbol of {x}",
        "{x} has which symbol",
        "chemical symbol of {x}",
    ),
}
FACT_ANSWERS: dict[Relation, str] = {
    "capital": "capital of {x} is {value}",
    "number": "{x} is {value}",
    "symbol": "symbol of {x} is {value}",
}
BOTH_FRAMES: dict[Sign, tuple[str, ...]] = {
    "+": ("{s} plus {n}", "{ask} {s} plus {n}", "add {n} to the {s}", "{n} more than the {s}"),
    "-": ("{s} minus {n}", "{ask} {s} minus {n}", "take {n} from the {s}", "{n} less than the {s}"),
}
