"""Small talk, counting and repeating."""

from .dialogue import Dialogue
from .draw import Draw

REPLIES = {
    "Hello! How can I help you?": ("Hello", "Hi", "hi there", "Hey", "Good morning", "hello", "Good evening"),
    "I am fine, thank you.": ("How are you", "how are you doing", "How is it going", "Are you well"),
    "You are welcome!": ("Thanks", "Thank you", "Thank you very much", "thanks a lot", "That was helpful"),
    "Goodbye!": ("Bye", "Goodbye", "See you", "bye bye", "Good night"),
    "I am a tiny demo model.": ("Who are you", "What are you", "What is your name", "Are you a robot"),
    "I can call tools, fill JSON and read texts.": ("What can you do", "Help", "how can you help me"),
    "I know no good one.": ("Tell me a joke", "Tell me a story", "Sing a song", "Write a poem"),
}
UNKNOWN = "I don't know."


def small_talk(draw: Draw) -> tuple[str, str]:
    """A user's message and the reply."""
    reply = draw.one(tuple(REPLIES))
    message = draw.one(REPLIES[reply])
    return message + draw.one(("", "!", ".", "?")), reply


def talk(draw: Draw, dialogue: Dialogue) -> None:
    """Small talk, an echo, a count, or a question without context."""
    kind = draw.rng.randrange(4)
    if kind == 0:
        message, reply = small_talk(draw)
    elif kind == 1:
        reply = draw.string()
        quote = draw.one(("'", '"'))
        message = draw.one(
            (f"Say {reply}", f"Repeat {quote}{reply}{quote}", f"Repeat after me: {reply}", f"Echo: {reply}")
        )
    elif kind == 2:
        first = 1 if draw.chance(0.5) else draw.rng.randrange(30)
        last = first + draw.rng.randint(2, 8)
        reply = ", ".join(map(str, range(first, last + 1)))
        message = f"Count from {first} to {last}" if first != 1 or draw.chance(0.5) else f"Count to {last}"
        message += draw.one(("", "."))
    else:
        message, reply = f"What is the {draw.noun()} of {draw.place()}?", UNKNOWN
    dialogue.user(message)
    dialogue.answer("talk", reply)


def copying(draw: Draw, dialogue: Dialogue) -> None:
    """Lines to repeat, or entries to look up: the first training phase."""
    if draw.chance(0.5):
        text = draw.one((" ", ", ", "\n")).join(draw.string() for _ in range(draw.rng.randint(2, 6)))
        dialogue.user(f"Repeat: {text}")
        dialogue.answer("talk", text)
        return
    keys = draw.some(draw.word, draw.rng.randint(2, 6))
    entries = {key: draw.one((draw.string, draw.integer))() for key in keys}
    dialogue.user("\n".join(f"{key}: {value}" for key, value in entries.items()))
    for key in draw.rng.sample(keys, min(len(keys), 3)):
        if dialogue.skills:
            dialogue.user(f"{key}?")
        else:
            dialogue.messages[-1]["content"] += f"\n{key}?"
        dialogue.answer("talk", str(entries[key]))
