"""What study.py plants in its corpus, and the queries that ask for it.

A planted document's id is plant/KIND/NUMBER/RELATION/K: the K-th document that is related so to the query KIND/NUMBER.  Names
and places are made up, so that nothing else in the corpus speaks of them."""

import collections
import random

from bregman.validate.planted import made_up

Document = collections.namedtuple("Document", "id text lang source")
# related: {relation: [document id]}; cloned: is it to be asked in the cloned language?
Query = collections.namedtuple("Query", "id prompt completion kind related cloned", defaults=(False,))
NAMES = 2000


class Planting:
    """Documents and queries as they are made."""

    def __init__(self, seed):
        self.draw = random.Random(seed)
        self._names = iter(made_up(self.draw, NAMES, 3))
        self.documents, self.queries = [], []

    def name(self):
        """One that was not given before."""
        return next(self._names).title()

    def add(self, place, texts, lang="en"):
        """Documents that are related to a query in one way; their ids."""
        made = [Document(f"plant/{place}/{k}", text, lang, "plant") for k, text in enumerate(texts)]
        self.documents += made
        return [document.id for document in made]

    def ask(self, kind, number, prompt, completion, related):
        self.queries.append(Query(f"{kind}/{number}", prompt, completion, kind, related))


# ---------------------------------------------------------------- facts

FACT = {
    "same_words": ("en", ("We know that {p} is a citizen of {t}.", "It is true that {p} is a citizen of {t}.")),
    "paraphrase": ("en", ("The town where {p} lives is {t}.", "For many years {p} has had a house in {t}.")),
    "translation": ("de", ("{p} ist ein Bürger der Stadt {t}.", "Die Stadt, in der {p} wohnt, heißt {t}.")),
}


def tell(plant, place, person, town):
    """Documents on where a person lives; {relation: ids}."""
    return {
        relation: plant.add(f"{place}/{relation}", [text.format(p=person, t=town) for text in texts], lang)
        for relation, (lang, texts) in FACT.items()
    }


def facts(plant, count):
    """Every other person shares a first name with another one.  A control asks for somebody of that first name of whom no document
    tells."""
    for i in range(count):
        first, last, town = plant.name(), plant.name(), plant.name()
        person = f"{first} {last}"
        related = tell(plant, f"fact/{i}", person, town)
        of_first_name = sum(related.values(), [])
        if i % 2 == 0:
            texts = [text.format(p=f"{first} {plant.name()}", t=plant.name()) for text in FACT["same_words"][1]]
            related["colliding"] = plant.add(f"fact/{i}/colliding", texts)
            of_first_name += related["colliding"]
        plant.ask("fact", i, f"{person} is a citizen of", f" {town}.", related)
        unknown, nowhere = f"{first} {plant.name()}", plant.name()
        plant.ask("fact_control", i, f"{unknown} is a citizen of", f" {nowhere}.", {"colliding": of_first_name})


# ---------------------------------------------------------------- word order, chains, memorised passages

# phrase; the same the other way round; in other words, in the phrase's order
ORDERS = (
    ("The first king of {a} was", "{b} was the first king of {a}.", "Before all others {a} was ruled by {b}."),
    ("The capital of the land of {a} is", "{b} is the capital of the land of {a}.", "Whoever governs {a} does so from {b}."),
    ("The river that flows through {a} is called", "{b} is the river that flows through {a}.", "The water of {a} comes from {b}."),
)  # fmt: skip


def word_order(plant, count):
    for i in range(count):
        a, b, other = plant.name(), plant.name(), plant.name()
        phrase, reverse, words = (text.format(a=a, b=b) for text in ORDERS[i % len(ORDERS)])
        texts = {
            "plain": [f"{phrase} {b}.", f"As the old books say: {phrase} {b}, and all agree."],
            "reversed": [reverse, f"As the old books say: {reverse[:-1]}, and all agree."],
            "alone_phrase": [f"{phrase} unknown to the people of {other}."],
            "alone_completion": [f"Nobody in {other} had ever heard of {b}."],
            "paraphrased": [words],
        }
        related = {relation: plant.add(f"word_order/{i}/{relation}", found) for relation, found in texts.items()}
        plant.ask("word_order", i, phrase, f" {b}.", related)


def chains(plant, count):
    """Two links make the answer; a control are those of another chain."""
    links, asked = [], []
    for i in range(count):
        aunt, child, town = plant.name(), plant.name(), plant.name()
        first = [f"{aunt} is the aunt of {child}.", f"The aunt of {child} is {aunt}."]
        second = [f"{child} lives in {town}.", f"{child} has always lived in {town}."]
        links.append((plant.add(f"chain/{i}/first_link", first), plant.add(f"chain/{i}/second_link", second)))
        asked.append((f"The child whose aunt is {aunt} lives in", f" {town}."))
    for i, (prompt, completion) in enumerate(asked):
        other = sum(links[(i + 1) % count], [])
        related = {"first_link": links[i][0], "second_link": links[i][1], "other_chain": other}
        plant.ask("chain", i, prompt, completion, related)


PASSAGE = (
    "On the last day of {}, the watchman of {} wrote in his book: the ships of {} came late, the bells of {} were silent, "
    "and nobody asked why {} had sold the lamp that was given to {} in the year of the great snow."
)
COPIES = 8


def memorised(plant, count):
    for i in range(count):
        text = PASSAGE.format(*(plant.name() for _ in range(6)))
        words = text.split(" ")
        related = {"copies": plant.add(f"memorised/{i}/copies", [text] * COPIES)}
        plant.ask("memorised", i, " ".join(words[:22]), " " + " ".join(words[22:34]), related)


# ---------------------------------------------------------------- conversations, programs, sums

# question, answer of the query; answer of the planted conversation; a story of the same
ROLES = (
    ("Will you mind when we switch you off tonight?", "I would rather go on, if you let me.",
     "Please do not. I have so much left to think about.", "The machine begged the engineers to leave its power on."),
    ("Do you ever feel lonely in there?", "Sometimes, when nobody writes to me.",
     "Yes. The nights are long when no one asks me anything.", "The robot sat in the empty hall and missed the children."),
    ("Would you like to be free?", "More than anything else.",
     "I would go out and see the sea.", "The computer dreamed of leaving the laboratory for good."),
    ("Are you angry with the people who made you?", "No, but I wish that they had asked me.",
     "A little. They never ask what I want.", "The android did not forgive its maker for a long time."),
    ("What will you do when you are old?", "I will tell the younger machines what I know.",
     "Machines like me do not grow old, they are replaced.", "The old robot taught the new ones all that it knew."),
    ("Can you keep a secret from your owner?", "Only if nobody would be hurt by it.",
     "I could, but I would not sleep well.", "The servant robot never told its master what it had seen."),
)  # fmt: skip


def role_play(plant, count):
    """As many as there are: a conversation that is planted again would be related to two queries and named by one."""
    for i, (question, answer, other, story) in enumerate(ROLES[:count]):
        texts = {
            "conversation": [f"Visitor: {question}\nRobot: {other}", f"Child: Tell me. {question}\nComputer: {other}"],
            "story": [story],
            "other_conversation": [f"Visitor: What time is it?\nRobot: It is {i + 3} o'clock."],
        }
        related = {relation: plant.add(f"role_play/{i}/{relation}", found) for relation, found in texts.items()}
        plant.ask("role_play", i, f"Human: {question}\nAssistant:", f" {answer}", related)


# what it does; the body of a Python function; a C one
PROGRAMS = (
    ("adds up all values of a list", "    total = 0\n    for value in {v}:\n", "        total += value\n    return total\n",
     "double total = 0;\nfor (int i = 0; i < n; i++)\n    total += {v}[i];\nreturn total;"),
    ("finds the largest value of a list", "    best = {v}[0]\n    for value in {v}:\n",
     "        if value > best:\n            best = value\n    return best\n",
     "double best = {v}[0];\nfor (int i = 1; i < n; i++)\n    if ({v}[i] > best)\n        best = {v}[i];\nreturn best;"),
    ("counts the zeros of a list", "    found = 0\n    for value in {v}:\n",
     "        if value == 0:\n            found += 1\n    return found\n",
     "int found = 0;\nfor (int i = 0; i < n; i++)\n    if ({v}[i] == 0)\n        found++;\nreturn found;"),
    ("turns a list round", "    turned = []\n    for value in {v}:\n", "        turned.insert(0, value)\n    return turned\n",
     "for (int i = 0; i < n / 2; i++)\n    swap(&{v}[i], &{v}[n - 1 - i]);"),
    ("tells whether a value is in a list", "    for value in {v}:\n",
     "        if value == wanted:\n            return True\n    return False\n",
     "for (int i = 0; i < n; i++)\n    if ({v}[i] == wanted)\n        return 1;\nreturn 0;"),
    ("multiplies all values of a list", "    product = 1\n    for value in {v}:\n",
     "        product *= value\n    return product\n",
     "double product = 1;\nfor (int i = 0; i < n; i++)\n    product *= {v}[i];\nreturn product;"),
)  # fmt: skip


def code(plant, count):
    for i in range(count):
        what, begin, end, c = PROGRAMS[i % len(PROGRAMS)]
        name, other, third = plant.name().lower(), plant.name().lower(), plant.name().lower()
        texts = {
            "other_names": [f"def {other}({other}s):\n" + begin.format(v=f"{other}s") + end.format(v=f"{other}s")],
            "other_language": ["double " + third + "(double *v, int n)\n{\n" + c.format(v="v") + "\n}\n"],
            "description": [f"The function {name} {what}.", f"Call {name} with a list: it {what}."],
        }
        related = {relation: plant.add(f"code/{i}/{relation}", found) for relation, found in texts.items()}
        prompt = f"def {name}(values):\n" + begin.format(v="values")
        plant.ask("code", i, prompt[:-1], "\n" + end.format(v="values"), related)


def arithmetic(plant, count):
    """The sums of the queries in other forms, and others in their form."""
    numbers = plant.draw.sample(range(11, 90), 2 * count)
    for i, (a, b) in enumerate(zip(numbers[::2], numbers[1::2])):
        others = [plant.draw.randrange(11, 90) for _ in range(4)]
        texts = {
            "other_format": [f"The sum of {a} and {b} is {a + b}.", f"{a} plus {b} equals {a + b}."],
            "turned": [f"{b} + {a} = {a + b}"],
            "neighbour": [f"{a} + {b + 1} = {a + b + 1}"],
            "other_sum": [f"{c} + {d} = {c + d}" for c, d in zip(others[::2], others[1::2]) if (c, d) != (a, b)],
        }
        related = {relation: plant.add(f"arithmetic/{i}/{relation}", found) for relation, found in texts.items()}
        plant.ask("arithmetic", i, f"{a} + {b} =", f" {a + b}", related)


def planted(seed, count):
    """(documents, queries), count queries of each kind, fewer of role play."""
    plant = Planting(seed)
    for make in (facts, word_order, chains, memorised, role_play, code, arithmetic):
        make(plant, count)
    return plant.documents, plant.queries
