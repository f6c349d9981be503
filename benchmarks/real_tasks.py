"""Three mixed tasks of short questions for real models: lists of facts, and questions made by seeded code.

Every task has three groups that models of different training know differently well. Prompts are few-shot,
answers one line, and the completion of a question is its answer.
"""

from collections.abc import Callable, Iterator, Sequence
from random import Random

from cosd_core.evaluation import ExactScoring, Item, Task

Pair = tuple[str, str]
"""A question and its answer."""

CAPITALS = (
    "France Paris, Japan Tokyo, Italy Rome, Spain Madrid, Germany Berlin, Egypt Cairo, Russia Moscow, "
    "China Beijing, Greece Athens, Portugal Lisbon, Poland Warsaw, Austria Vienna, Hungary Budapest, "
    "Sweden Stockholm, Norway Oslo, Denmark Copenhagen, Finland Helsinki, Ireland Dublin, Belgium "
    "Brussels, Netherlands Amsterdam, Turkey Ankara, Iran Tehran, Iraq Baghdad, Thailand Bangkok, Vietnam "
    "Hanoi, Cuba Havana, Peru Lima, Chile Santiago, Kenya Nairobi, Canada Ottawa, Australia Canberra, "
    "Ukraine Kyiv, Romania Bucharest, Bulgaria Sofia, Serbia Belgrade, Croatia Zagreb, Syria Damascus, "
    "Lebanon Beirut, Jordan Amman, Morocco Rabat, Algeria Algiers, Tunisia Tunis, Libya Tripoli, Ethiopia "
    "Addis_Ababa, Colombia Bogota, Venezuela Caracas, Argentina Buenos_Aires, Brazil Brasilia, Indonesia "
    "Jakarta, Malaysia Kuala_Lumpur, Philippines Manila, Pakistan Islamabad, Afghanistan Kabul, Nepal "
    "Kathmandu, India New_Delhi, Iceland Reykjavik, Latvia Riga, Estonia Tallinn, Lithuania Vilnius, "
    "Slovakia Bratislava"
)
ELEMENTS = (
    "hydrogen H, helium He, lithium Li, carbon C, nitrogen N, oxygen O, fluorine F, neon Ne, sodium Na, "
    "magnesium Mg, aluminium Al, silicon Si, phosphorus P, sulfur S, chlorine Cl, argon Ar, potassium K, "
    "calcium Ca, titanium Ti, iron Fe, copper Cu, zinc Zn, silver Ag, gold Au, mercury Hg, lead Pb, tin "
    "Sn, nickel Ni, iodine I, uranium U, barium Ba, cobalt Co, chromium Cr, manganese Mn, platinum Pt, "
    "radium Ra, tungsten W, xenon Xe, krypton Kr, boron B"
)
OPPOSITES = (
    "hot cold, big small, fast slow, high low, good bad, happy sad, light dark, rich poor, young old, "
    "early late, hard soft, open closed, full empty, strong weak, wet dry, clean dirty, loud quiet, near "
    "far, thick thin, wide narrow, true false, alive dead, first last, up down, left right, inside "
    "outside, always never, buy sell, push pull, win lose, day night, love hate, war peace, begin end, "
    "sharp blunt, deep shallow, brave cowardly, ancient modern, guilty innocent, cheap expensive, heavy "
    "light, easy difficult, noisy quiet, asleep awake, absent present, smooth rough"
)
PASTS = (
    "go went, see saw, eat ate, take took, give gave, write wrote, run ran, come came, know knew, think "
    "thought, buy bought, bring brought, teach taught, catch caught, find found, speak spoke, break "
    "broke, choose chose, drive drove, fly flew, forget forgot, grow grew, hear heard, hold held, keep "
    "kept, leave left, lose lost, make made, meet met, pay paid, ride rode, ring rang, say said, sell "
    "sold, send sent, sing sang, sit sat, sleep slept, stand stood, swim swam, tell told, throw threw, "
    "understand understood, wear wore, win won, feel felt"
)
FRENCH = (
    "dog chien, cat chat, house maison, water eau, bread pain, milk lait, book livre, tree arbre, sun "
    "soleil, moon lune, red rouge, white blanc, black noir, green vert, blue bleu, friend ami, school "
    "école, night nuit, day jour, year an, head tête, hand main, heart cœur, king roi, queen reine, fish "
    "poisson, horse cheval, bird oiseau, flower fleur, cheese fromage, apple pomme, wine vin, car "
    "voiture, street rue, city ville, church église, door porte, window fenêtre, table table, chair "
    "chaise, summer été, winter hiver, brother frère, sister sœur, mother mère, father père"
)


def _listed(text: str, question: str) -> list[Pair]:
    return [
        (question.format(key), answer.replace("_", " "))
        for key, answer in (entry.split() for entry in text.split(", "))
    ]


def _made(make: Callable[[Random], Pair]) -> Callable[[Random], list[Pair]]:
    """Different questions of one kind."""

    def questions(random: Random) -> list[Pair]:
        found: dict[str, str] = {}
        for _ in range(2000):
            question, answer = make(random)
            found.setdefault(question, answer)
        return list(found.items())

    return questions


def _sum(random: Random) -> Pair:
    a, b = random.randint(10, 99), random.randint(10, 99)
    return f"{a} + {b} = ?", str(a + b)


def _product(random: Random) -> Pair:
    a, b = random.randint(3, 19), random.randint(3, 12)
    return f"{a} * {b} = ?", str(a * b)


def _expression(random: Random) -> Pair:
    word = "".join(random.sample("abcdefgh", random.randint(3, 5)))
    a, b, c = random.randint(2, 9), random.randint(2, 9), random.randint(2, 5)
    code = random.choice(
        [
            f"len('{word}') * {a}",
            f"'{word}'.upper()",
            f"'{word}'[{random.randint(0, 2)}]",
            f"list(range({c}))",
            f"max({a}, {b}, {c})",
            f"sorted([{a}, {b}, {c}])",
            f"{a * 7} // {c}",
            f"{a * 7} % {c}",
            f"{a} > {b}",
        ]
    )
    return f"Python: {code}", str(eval(code))


def _list_code(random: Random) -> Pair:
    values = random.sample(range(1, 30), random.randint(3, 4))
    code = random.choice(["sum({})", "max({})", "min({})", "len({})", "{}[0]", "{}[-1]", "{}[::-1]"]).format(
        values
    )
    return f"Python: {code}", str(eval(code))


def _fixed(*parts: tuple[str, str]) -> Callable[[Random], list[Pair]]:
    def questions(random: Random) -> list[Pair]:
        found = [pair for text, question in parts for pair in _listed(text, question)]
        random.shuffle(found)
        return found

    return questions


TASKS = {
    "facts, sums, code": {
        "facts": _fixed((CAPITALS, "Capital of {}?"), (ELEMENTS, "Chemical symbol of {}?")),
        "sums": _made(_sum),
        "code": _made(_expression),
    },
    "words, products, lists": {
        "words": _fixed((OPPOSITES, "Opposite of {}?"), (PASTS, "Past tense of {}?")),
        "products": _made(_product),
        "lists": _made(_list_code),
    },
    "French, capitals, expressions": {
        "French": _fixed((FRENCH, "French for {}?")),
        "capitals": _fixed((CAPITALS, "{}: capital?")),
        "expressions": _made(_expression),
    },
}


def make_tasks(questions: int, seed: int = 0) -> Iterator[tuple[Task, Task]]:
    """Every task to tune on and held out, with so many questions per group, or half of those there are."""
    for name, groups in TASKS.items():
        random = Random(f"{seed}/{name}")
        shots: list[Pair] = []
        parts = {group: make(random) for group, make in groups.items()}
        for pairs in parts.values():
            shots += [pairs.pop(), pairs.pop()]
        random.shuffle(shots)
        head = "".join(f"Q: {question}\nA: {answer}\n\n" for question, answer in shots)
        halves: list[list[Item]] = [[], []]
        for group, pairs in parts.items():
            count = min(questions, len(pairs) // 2)
            for half, start in zip(halves, (0, count), strict=True):
                half += _items(head, group, pairs[start : start + count])
        yield tuple(  # type: ignore[misc]
            Task(title, tuple(items), {"max_new_tokens": 16, "stop": ("\n",)})
            for title, items in zip((name, f"{name}, held out"), halves, strict=True)
        )


def _items(head: str, group: str, pairs: Sequence[Pair]) -> Iterator[Item]:
    for question, answer in pairs:
        prompt, scoring = f"{head}Q: {question}\nA:", ExactScoring()
        yield Item(prompt, (answer,), scoring, group, f" {answer}\n")
