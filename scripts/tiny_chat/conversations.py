"""Short exchanges by the thousand: questions in many wordings, one answer to each, stories from building blocks."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from facts import BEYOND, BEYOND_ME, CAPITALS, COLOURS, OPPOSITES, QUESTIONS, SOUNDS, TERMS

Exchange = tuple[str, str]
"""What the user says and what the assistant answers."""


def words(text: str) -> list[str]:
    """The words of ``text``."""
    return text.split()


NUMBERS = words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
DAYS = words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = words("January February March April May June July August September October November December")
NAMES = words("Ada Ben Clara David Emma Finn Greta Hugo Ida Jonas Kim Lena Max Nora Otto Paula Rosa Sam Tom Vera")
ANIMALS = words(
    "fox owl bear mouse cat dog hare frog crow goat horse hedgehog squirrel duck turtle badger dragon lion bird rabbit"
)
THINGS = words("lantern key book bell map kettle boat drum letter cup clock ladder hat stone kite basket")
PLACES = ["in a small house", "by the river", "near the forest", "on a hill", "under an old oak", "by the sea"]
CITIES = words("Paris Berlin Rome Oslo Lima Cairo Tokyo Vienna Madrid Athens Dublin Riga")
SAYINGS = words("hello Hello world yes no please thanks red green blue this is a test")
BUILDABLE = words("boat drum clock ladder kite basket")
SYSTEM = [
    "You are a helpful assistant.", "You are a helpful assistant", "Be brief.", "Answer in one sentence.",
    "You are tiny-chat, a small language model.", "You are a friendly assistant. Answer politely.", "Be kind.",
    "You are a chatbot.", "Answer the user's questions.", "You are an expert.",
]  # fmt: skip

WHAT_IS = [
    "What is {}?", "What's {}?", "What does {} mean?", "Explain {}.", "Tell me about {}.", "Define {}.",
    "Do you know what {} is?", "Can you explain {}?", "Please explain {}.", "What do you know about {}?",
]  # fmt: skip


def term(random: Random) -> Exchange:
    """A word of serving, explained."""
    name, answer = random.choice(list(TERMS.items()))
    bare = name.removeprefix("a ").removeprefix("an ").removeprefix("the ")
    return random.choice(WHAT_IS).format(random.choice((name, name, bare))), answer


def question(random: Random) -> Exchange:
    """A greeting, or one of the questions with an answer of their own."""
    answer, ways = random.choice(list(QUESTIONS.items()))
    return random.choice(ways), answer


def greeting(random: Random) -> Exchange:
    """The first thing that most people say."""
    answer = next(iter(QUESTIONS))
    return random.choice(QUESTIONS[answer]), answer


def capital(random: Random) -> Exchange:
    country, city = random.choice(list(CAPITALS.items()))
    if random.random() < 0.2:
        ways = ("Which country has the capital {}?", "{} is the capital of which country?")
        return random.choice(ways).format(city), f"{city} is the capital of {country}."
    ways = (
        "What is the capital of {}?",
        "Which city is the capital of {}?",
        "Name the capital of {}.",
        "Capital of {}",
    )
    return random.choice(ways).format(country), f"The capital of {country} is {city}."


def colour(random: Random) -> Exchange:
    thing, hue = random.choice(list(COLOURS.items()))
    ways = ("What colour is {}?", "What color is {}?", "Which colour has {}?", "Tell me the colour of {}.")
    return random.choice(ways).format(thing), f"{thing[0].upper()}{thing[1:]} is {hue}."


def sound(random: Random) -> Exchange:
    animal, does = random.choice(list(SOUNDS.items()))
    ways = ("What does a {} say?", "Which sound does a {} make?", "What sound does a {} make?")
    article = "An" if animal[0] in "aeiou" else "A"
    return random.choice(ways).format(animal), f"{article} {animal} {does}."


def opposite(random: Random) -> Exchange:
    one, other = random.choice(list(OPPOSITES.items()))
    if random.random() < 0.5:
        one, other = other, one
    if [*OPPOSITES.values(), *OPPOSITES].count(one) > 1:
        one, other = "hot", "cold"  # words with two opposites teach nothing
    ways = ("What is the opposite of {}?", "Opposite of {}?", "Tell me the opposite of {}.")
    return random.choice(ways).format(one), f"The opposite of {one} is {other}."


def neighbour(random: Random) -> Exchange:
    """The day, month or number after or before another."""
    row, what = random.choice(((DAYS, "day"), (MONTHS, "month"), (NUMBERS, "number")))
    at = random.randrange(1, len(row) - 1) if row is NUMBERS else random.randrange(len(row))
    after = random.random() < 0.6
    other = row[(at + (1 if after else -1)) % len(row)]
    word = "after" if after else "before"
    asked = str(at) if row is NUMBERS else row[at]
    other = str(NUMBERS.index(other)) if row is NUMBERS else other
    ways = (f"What comes {word} {asked}?", f"Which {what} comes {word} {asked}?", f"What is the {what} {word} {asked}?")
    verb = "comes after" if after else "comes before"
    return random.choice(ways), f"{other} {verb} {asked}."


def counting(random: Random) -> Exchange:
    start, end = sorted(random.sample(range(0 if random.random() < 0.3 else 1, 21), 2))
    if random.random() < 0.5:
        start = 1
    end = max(end, start + 1)
    backwards = random.random() < 0.25
    first, last = (end, start) if backwards else (start, end)
    step = -1 if backwards else 1
    ways = [f"Count from {first} to {last}.", f"Please count from {first} to {last}.", f"Count {first} to {last}."]
    if not backwards and start == 1:
        ways += [f"Count to {end}.", f"Can you count to {end}?"]
    return random.choice(ways), ", ".join(map(str, range(first, last + step, step))) + "."


def arithmetic(random: Random) -> Exchange:
    a, b = random.randrange(21), random.randrange(21)
    sign, word = random.choice((("+", "plus"), ("+", "plus"), ("-", "minus"), ("*", "times")))
    if sign == "-":
        a, b = max(a, b), min(a, b)
    if sign == "*":
        a, b = a % 11, b % 11
    result = {"+": a + b, "-": a - b, "*": a * b}[sign]
    in_words = f"{NUMBERS[a]} {word} {NUMBERS[b]}"
    spoken = random.choice((f"{a} {word} {b}", f"{a} {sign} {b}", f"{a}{sign}{b}", f"{a} {sign} {b}", in_words))
    ways = ("What is {}?", "What is {}?", "How much is {}?", "{}", "{} = ?", "Compute {}.", "Calculate {}.")
    return random.choice(ways).format(spoken), f"{a} {sign} {b} = {result}."


def larger(random: Random) -> Exchange:
    a, b = random.sample(range(21), 2)
    if random.random() < 0.5:
        return random.choice((f"Which is larger, {a} or {b}?", f"Is {a} larger than {b}?")), (
            f"{max(a, b)} is larger than {min(a, b)}."
        )
    return f"Which is smaller, {a} or {b}?", f"{min(a, b)} is smaller than {max(a, b)}."


def echo(random: Random) -> Exchange:
    said = " ".join(random.choices([*THINGS, *ANIMALS, *NAMES, *CITIES, *NUMBERS, *SAYINGS], k=random.randrange(1, 6)))
    return random.choice(("Repeat after me: {}", "Say {}", "Repeat: {}", "Please repeat: {}")).format(said), said


def beyond(random: Random) -> Exchange:
    """Something that the model had better not answer."""
    if random.random() < 0.2:
        start = [random.choice(WHAT_IS), "What is the capital of {}?", "{}"][random.randrange(3)]
        return start.format("".join(random.choices("abcdefghiklmnoprstuvw", k=random.randrange(3, 9)))), BEYOND
    text = random.choice(BEYOND_ME)
    for slot, values in (("{place}", CITIES), ("{name}", NAMES), ("{thing}", THINGS)):
        while slot in text:
            text = text.replace(slot, random.choice(values), 1)
    while "{number}" in text:
        text = text.replace("{number}", str(random.choice((random.randrange(21, 100), random.randrange(100, 1000)))), 1)
    return text, BEYOND


def story(random: Random, animal: str | None = None, thing: str | None = None) -> str:
    """Five sentences about an animal that finds, loses or builds something."""
    animal, thing = animal or random.choice(ANIMALS), thing or random.choice(THINGS)
    name, friend = random.sample(NAMES, 2)
    other = random.choice([one for one in ANIMALS if one != animal])
    plots = [
        f"One day {name} found a {thing} in the grass and wondered who had lost it. {name} asked everybody and at "
        f"last met {friend} the {other}, who had been looking for the {thing} all day. {friend} was so glad",
        f"One day the {thing} of {name} was gone. {name} looked under the bed, in the garden and behind the door. "
        f"Then {friend} the {other} came and helped to look, and soon they found the {thing}. {name} was so glad",
    ]
    if thing in BUILDABLE:
        plots.append(
            f"One day {name} wanted to build a {thing}, but alone it was too hard. So {name} went to {friend} the "
            f"{other} and asked for help. They worked until the evening, and the {thing} was so good"
        )
    middle = random.choice(plots)
    end = random.choice(
        (
            "that they shared a cake and stayed friends.",
            "that they sang all the way home.",
            "that they danced until the moon came up.",
        )
    )
    mood = random.choice(("little", "clever", "shy", "brave", "kind"))
    return (
        f"Once upon a time there was a {mood} {animal} named {name}, who lived {random.choice(PLACES)}. "
        f"{middle} {end} The end."
    )


def told_story(random: Random) -> Exchange:
    animal, thing = random.choice(ANIMALS), random.choice(THINGS)
    article = "an" if animal[0] in "aeiou" else "a"
    if random.random() < 0.1:
        return "Once upon a time", story(random)
    asked = random.choice(("Tell me a story", "Write a story", "Tell me a short story", "Write a short story"))
    about = random.choice(
        ("", f" about {article} {animal}", f" about {article} {animal}", f" about a {thing}", f" about a {thing}")
    )
    return f"{asked}{about}.", story(random, animal if animal in about else None, thing if thing in about else None)


def naming(random: Random) -> list[Exchange]:
    """The user's name, and the question for it a few turns later."""
    name = random.choice(NAMES)
    opening = random.choice(("My name is {}.", "I am {}.", "Hello, I am {}.", "Hi, my name is {}.", "Call me {}."))
    between = [random.choice(SOURCES)[0](random) for _ in range(random.randrange(3))]
    asked = random.choice(("What is my name?", "Who am I?", "Do you remember my name?"))
    return [(opening.format(name), f"Nice to meet you, {name}!"), *between, (asked, f"Your name is {name}.")]


SOURCES: list[tuple[Callable[[Random], Exchange], float]] = [
    (term, 6), (question, 4), (greeting, 2), (capital, 2.5), (colour, 1), (sound, 0.8), (opposite, 1), (neighbour, 1.5),
    (counting, 4), (arithmetic, 5), (larger, 1), (echo, 2.5), (beyond, 2.5), (told_story, 3.5),
]  # fmt: skip
"""Where exchanges come from, and how often."""


def conversation(random: Random) -> list[dict[str, str]]:
    """A chat of one to five exchanges, sometimes with a system message, as the API takes it."""
    if random.random() < 0.08:
        exchanges = naming(random)
    else:
        sources, weights = zip(*SOURCES, strict=True)
        chosen = random.choices(sources, weights, k=random.choice((1, 1, 1, 2, 3, 5)))
        exchanges = [source(random) for source in chosen]
    system = [{"role": "system", "content": random.choice(SYSTEM)}] if random.random() < 0.25 else []
    turns = [
        turn
        for asked, answer in exchanges
        for turn in (
            {"role": "user", "content": careless(random, asked)},
            {"role": "assistant", "content": answer},
        )
    ]
    return [*system, *turns]


def careless(random: Random, text: str) -> str:
    """``text`` as people type it: now and then without capitals, without the last mark, or with a polite word."""
    if text.startswith(("Repeat", "Say", "Please repeat")):
        return text
    draw = random.random()
    if draw < 0.12:
        return text.lower()
    if draw < 0.27:
        return text.rstrip("?.!")
    if draw < 0.33 and text[-1].isalpha():
        return text + random.choice(("!", ".", "!!"))
    if draw < 0.37:
        return f"{text} Thank you." if random.random() < 0.5 else f"Please: {text}"
    return text


def prose(random: Random, sentences: list[str]) -> str:
    """Running text without roles, for plain completions: a story, what a term means, or some of our sentences."""
    kind = random.randrange(3)
    if kind == 0:
        return story(random)
    if kind == 1:
        return " ".join(random.sample(list(TERMS.values()), 3))
    return " ".join(random.sample(sentences, 8))
