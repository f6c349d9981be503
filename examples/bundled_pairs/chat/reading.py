"""Questions to answer from a few passages, with the sentence that answers them."""

from .dialogue import Dialogue
from .draw import Draw
from .talk import UNKNOWN
from .words import MAKING

LLAMA_INDEX = (
    "Context information is below.\n---------------------\n{context}\n---------------------\n"
    "Given the context information and not prior knowledge, answer the query.\nQuery: {question}\nAnswer: "
)
SHAPES = (
    LLAMA_INDEX,
    LLAMA_INDEX,
    "Context:\n{context}\n\nQuestion: {question}",
    "Context:\n{context}\n\nQuestion: {question}",
    "{context}\n\n{question}",
    "Question: {question} \nContext: {context} \nAnswer:",
    "Answer the question from the text.\n\n{context}\n\nQuestion: {question}\nAnswer:",
)
SYSTEMS = (
    "Answer from the context.",
    "Answer only from the context.",
    "Use the context to answer. If it does not say, answer that you don't know.",
    "You are an assistant for question-answering tasks.",
)
Fact = tuple[str, str]
"""A sentence and a question that it answers."""


def fact(draw: Draw, entity: str, relation: int) -> Fact:
    """One of fourteen relations of an entity."""
    noun, person, amount, year = draw.noun(), draw.person(), draw.amount(), draw.year()
    made = draw.one(MAKING)
    facts = (
        ((f"{entity} was {made} in {year}.",), f"When was {entity} {made}?"),
        ((f"{entity} was {made} by {person}.",), f"Who {made} {entity}?"),
        ((f"The {noun} of {entity} is {draw.string()}.",), f"What is the {noun} of {entity}?"),
        ((f"{entity} has a population of {amount}.", f"{amount} people live in {entity}."),
         f"How many people live in {entity}?"),
        ((f"{entity} opens at {draw.clock()}.",), f"When does {entity} open?"),
        (
            (f"{entity} costs {amount} euros.", f"The price of {entity} is {amount}."),
            f"How much does {entity} cost?",
        ),
        ((f"{entity} lies on the river {draw.proper()}.",), f"On which river does {entity} lie?"),
        ((f"{entity} is {amount} metres high.",), f"How high is {entity}?"),
        (
            (f"{entity} is in {draw.place()}.", f"{entity} is located in {draw.place()}."),
            f"Where is {entity}?",
        ),
        (
            (f"{entity} was {made} in {year} by {person}.",),
            draw.one((f"Who {made} {entity}?", f"When was {entity} {made}?")),
        ),
        ((f"{entity} closes at {draw.clock()}.",), f"When does {entity} close?"),
        (
            (f"{person} is the {noun} of {entity}.", f"The {noun} of {entity} is {person}."),
            f"Who is the {noun} of {entity}?",
        ),
        ((f"{entity} has {amount} {noun}s.",), f"How many {noun}s does {entity} have?"),
        ((f"{entity} is made of {noun}.",), f"What is {entity} made of?"),
    )  # fmt: skip
    sentences, question = facts[relation]
    return draw.one(sentences), question


RELATIONS = 14


def reading(draw: Draw, dialogue: Dialogue) -> None:
    """Passages and one to three questions."""
    article = draw.one(("The ", "", ""))
    entities = [
        article + each for each in draw.some(draw.thing if article else draw.place, draw.rng.randint(1, 4))
    ]
    entities = [each.replace(",", "") for each in entities]
    facts: list[Fact] = []
    passages: list[str] = []
    missing: list[str] = []
    shared = draw.rng.randrange(RELATIONS)
    for entity in entities:
        others = [each for each in range(RELATIONS) if each not in (shared, 9)]
        drawn = draw.rng.sample(others, 3)
        relations = [shared, *drawn[: draw.rng.randint(0, 2)]] if draw.chance(0.8) else drawn[:2]
        missing.append(fact(draw, entity, drawn[2] if drawn[2] not in relations else 6)[1])
        chosen = [fact(draw, entity, each) for each in relations]
        draw.rng.shuffle(chosen)
        facts += chosen
        passages.append(" ".join(sentence for sentence, _ in chosen))
    draw.rng.shuffle(passages)
    text = draw.one(("\n\n", "\n\n", "\n", " ")).join(passages)
    questions = [(question, sentence) for sentence, question in draw.rng.sample(facts, min(len(facts), 3))]
    asked = {question for _, question in facts}
    unknown = [(each, UNKNOWN) for each in missing if each not in asked]
    unknown.append((fact(draw, draw.place(), draw.rng.randrange(RELATIONS))[1], UNKNOWN))
    if draw.chance(0.2):
        questions.insert(0, draw.one(unknown))
    if draw.chance(0.5):
        dialogue.system(draw.one(SYSTEMS))
    shape = draw.one(SHAPES)
    for question, sentence in questions[: draw.one((1, 2, 3))]:
        dialogue.user(question if dialogue.skills else shape.format(context=text, question=question))
        answer = sentence[0].upper() + sentence[1:]
        dialogue.answer("read", answer)
