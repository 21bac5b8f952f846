"""Questions about scenes and the only right answers, in the formats of the hosted guide's prompts.

Each task is a function `(rng, scene) -> (question, answer)`, or None where the scene has nothing to ask that way. The
scorer takes the same tasks, so an answer is judged by what the task itself would have said.
"""

from __future__ import annotations

import random
import re
from collections import Counter

from demo.scenes import COLOURS, NOUNS, Scene, Thing

UNKNOWN = "I only know simple shapes and text."
NUMBERS = ["no", "one", "two", "three", "four", "five", "six"]


class Counted(list):
    """The things that a number counts."""


class Compared(list):
    """The two things whose places a word compares, and by which edges: the left and the right, or the upper and the lower."""

    across = True


class Following(list):
    """What is named next, where it is not named yet: who says that there is a next one must have seen it."""


class Marked(str):
    """An answer that knows which of its characters are about which things: `marks` are (first, end, things)."""

    marks: list[tuple[int, int, list[Thing]]]


def marked(*pieces) -> Marked:
    """Joins texts, marked texts, and pairs of a text and the thing, or the things, that it is about."""
    text, marks = "", []
    for piece in pieces:
        if isinstance(piece, tuple):
            words, about = piece
            marks.append((len(text), len(text) + len(words), about if isinstance(about, list) else [about]))
            text += words
        else:
            marks += [(a + len(text), b + len(text), about) for a, b, about in getattr(piece, "marks", [])]
            text += piece
    answer = Marked(text)
    answer.marks = marks
    return answer


def joined(between: str, pieces: list) -> Marked:
    return marked(*[part for i, piece in enumerate(pieces) for part in ([between, piece] if i else [piece])])


def plural(noun: str) -> str:
    return {"cross": "crosses", "fish": "fish"}.get(noun, noun + "s")


def article(name: str) -> str:
    return ("an " if name[0] in "aeiou" else "a ") + name


def listing(names: list) -> Marked:
    """Names, the last one after "and"."""
    pieces = [names[0]]
    for i, name in enumerate(names[1:], 2):
        between = " and " if i == len(names) else ", "
        pieces += [(between, Following([name[1]])) if isinstance(name, tuple) else between, name]
    return marked(*pieces)


def describe(rng, scene: Scene):
    question = rng.choice([
        "Describe the picture.", "Describe this image.", "What is in the picture?", "What is in this image?",
        "What do you see?", "What does the image show?", "Please describe the image.", "What is depicted in the image?",
        "What is in this picture?", "Describe this picture.", "What is this?", "What can you see in this image?",
    ])  # fmt: skip
    if scene.kind == "words":
        quoted = [marked('"', (thing.text, thing), '"') for thing in scene.things]
        return question, marked("The text ", listing(quoted), ".")
    if scene.kind == "receipt":
        return question, marked('A receipt of "', (scene.fields["shop"], scene.things[0]), '".')
    if scene.kind == "document":
        return question, marked('A page with the heading "', (scene.things[0].text, scene.things[0]), '".')
    names = [(article(thing.name), thing) for thing in scene.things]
    names[0] = (names[0][0].capitalize(), names[0][1])
    return question, marked(listing(names), ".")


def counting(rng, scene: Scene, pick: float | None = None):
    if scene.kind != "shapes":
        return None
    pick = rng.random() if pick is None else pick
    if pick < 0.25:
        one = rng.choice(["thing", "object"])
        what, n = one + "s", len(scene.things)
    elif pick < 0.75:
        noun = rng.choice(NOUNS) if rng.random() < 0.25 else rng.choice(scene.things).noun
        what, one, n = plural(noun), noun, sum(thing.noun == noun for thing in scene.things)
    else:
        colour = rng.choice(list(COLOURS)) if rng.random() < 0.25 else rng.choice(scene.things).colour
        what, one, n = f"{colour} things", f"{colour} thing", sum(thing.colour == colour for thing in scene.things)
    question = rng.choice([
        f"How many {what} are there?", f"How many {what} are in the picture?", f"How many {what} are in the image?",
        f"Count the {what}.", f"How many {what} do you see?",
    ])  # fmt: skip
    counted = Counted(t for t in scene.things if what in (plural(t.noun), f"{t.colour} things", "things", "objects"))
    if n == 1:
        return question, marked("There ", ("is one", counted), f" {one}.")
    if n == 0:
        return question, marked("There ", ("are no", counted), f" {what}.")
    return question, marked("There ", (f"are {NUMBERS[n]}", counted), f" {what}.")


def _single_nouns(scene: Scene) -> list[Thing]:
    counts = Counter(thing.noun for thing in scene.things)
    return [thing for thing in scene.things if counts[thing.noun] == 1]


def _single_names(scene: Scene) -> list[Thing]:
    counts = Counter(thing.name for thing in scene.things)
    return [thing for thing in scene.things if counts[thing.name] == 1]


def colour(rng, scene: Scene):
    things = _single_nouns(scene) if scene.kind == "shapes" else []
    if not things:
        return None
    thing = rng.choice(things)
    question = rng.choice([
        f"What colour is the {thing.noun}?", f"What color is the {thing.noun}?", f"Which colour does the {thing.noun} have?",
    ])  # fmt: skip
    return question, marked("The ", (f"{thing.noun} is {thing.colour}", thing), ".")


def relation(rng, scene: Scene):
    things = _single_names(scene) if scene.kind == "shapes" else []
    if len(things) < 2:
        return None
    a, b = rng.sample(things, 2)
    (ax, ay), (bx, by) = a.centre, b.centre
    both = Compared([a, b])
    # Between two things one axis may be too close to call.
    both.across = abs(ax - bx) / scene.size[0] > abs(ay - by) / scene.size[1]
    first = (ax < bx) if both.across else (ay < by)
    words = ("left of", "right of") if both.across else ("above", "below")
    truth = words[0] if first else words[1]
    question = f"Is the {a.name} {words[rng.randint(0, 1)]} the {b.name}?"
    return question, marked("The ", (a.name, a), " is ", (truth, both), " the ", (b.name, b), ".")


def _asked(rng, scene: Scene) -> tuple[str, list[Thing]]:
    """What is to be located, as a prompt says it, and the things it means, in their order."""
    pick = rng.random()
    if pick < 0.45:
        return rng.choice(["things", "objects"]), scene.things
    if pick < 0.75:
        noun = rng.choice(scene.things).noun if rng.random() < 0.95 else rng.choice(NOUNS)
        return plural(noun), [thing for thing in scene.things if thing.noun == noun]
    name = rng.choice(scene.things).name
    found = [thing for thing in scene.things if thing.name == name]
    return (name if len(found) == 1 else name.split()[0] + " " + plural(name.split()[1])), found


def _fence(rng, text, kind: str) -> tuple[str, str]:
    """The answer with the fence that the real model puts around it, or without where the prompt forbids it."""
    if rng.random() < 0.6:
        return f", do not output ```{kind}```.", text
    return ".", marked(f"```{kind}\n", text, "\n```")


def boxes_json(things, label=lambda thing: thing.name, key="label") -> str:
    if not things:
        return "[]"
    rows = []
    for thing, following in zip(things, [*things[1:], None]):
        box = ", ".join(map(str, thing.told or thing.box))
        rows.append(marked((f'\t{{"bbox_2d": [{box}], "{key}": "', thing), (label(thing), thing)))
        rows.append(('"},\n', Following([following])) if following else '"}\n]')
    return marked("[\n", *rows)


def boxes(rng, scene: Scene):
    if scene.kind != "shapes":
        return None
    what, found = _asked(rng, scene)
    end, answer = _fence(rng, boxes_json(found), "json")
    one = what[-1] != "s" and len(found) == 1
    question = rng.choice([
        f"Locate the {what} in the image, output the bbox coordinates in JSON format",
        f"Locate {'the ' if one else 'all '}{what}, output all bbox coordinates in JSON format",
        f"Locate {'the ' if one else 'each one of all '}{what} in the image and describe their features, output their bbox coordinates in JSON format",
        f"Detect {'the ' if one else 'all '}{what} in the image and output their bbox coordinates in JSON format",
    ])  # fmt: skip
    return question + end, answer


def _point(thing: Thing) -> tuple[int, int]:
    x, y = thing.centre
    return int(x), int(y)


def points(rng, scene: Scene):
    if scene.kind != "shapes":
        return None
    what, found = _asked(rng, scene)
    if not found:
        return None
    one = what[-1] != "s" and len(found) == 1
    form = rng.choice(["XML", "XML", "JSON"])
    if form == "XML":
        rows = []
        for thing in found:
            x, y = _point(thing)
            rows.append((f'<points x1="{x}" y1="{y}" alt="{thing.name}">{thing.name}</points>', thing))
        text = joined("\n", rows)
    else:
        rows = []
        for thing in found:
            x, y = _point(thing)
            rows.append((f'\t{{"point_2d": [{x}, {y}], "label": "{thing.name}"}}', thing))
        text = marked("[\n", joined(",\n", rows), "\n]")
    end, answer = _fence(rng, text, form.lower())
    question = rng.choice([
        f"Locate {'the ' if one else 'all '}{what} in the image as {'a point' if one else 'points'}, and output the result in {form} format",
        f"Locate {'the ' if one else 'all '}{what} in the image in point form, output their point coordinates in {form} format",
    ])  # fmt: skip
    return question + end, answer


def reading(rng, scene: Scene):
    if scene.kind not in ("words", "receipt", "document"):
        return None
    question = rng.choice([
        "Read all the text in the image.", "What does the text say?", "Read the text.", "What text is in the picture?",
        "Please output only the text content from the image.", "What is written in the image?",
    ])  # fmt: skip
    return question, joined("\n", [(thing.text, thing) for thing in scene.things])


def spotting(rng, scene: Scene):
    if scene.kind not in ("words",):
        return None
    end, answer = _fence(rng, boxes_json(scene.things, lambda thing: thing.text, "text_content"), "json")
    question = rng.choice([
        "Locate all the text in the image, output the bbox coordinates in JSON format",
        "Spotting all the text in the image with line-level, and output in JSON format",
    ])  # fmt: skip
    return question + end, answer


def receipt_fields(rng, scene: Scene):
    if scene.kind != "receipt":
        return None
    keys = rng.sample(["shop", "date", "total"], rng.randint(1, 3))
    spell = rng.choice([str.lower, str.capitalize])
    lines = {thing.text: thing for thing in scene.things}
    pairs = [marked(f'"{spell(key)}": "', (scene.fields[key], lines[scene.fields[key]]), '"') for key in keys]
    text = marked("{", joined(", ", pairs), "}")
    end, answer = _fence(rng, text, "json")
    named = ", ".join(f"'{spell(key)}'" for key in keys)
    return f"Extract the following from the image: [{named}]. Please output in JSON format" + end, answer


def page_html(rng, scene: Scene):
    if scene.kind != "document":
        return None
    rows = []
    for block, thing in zip(scene.fields["blocks"], scene.things):
        box = " ".join(map(str, thing.box))
        rows.append(marked((f'<{block} data-bbox="{box}">', thing), (thing.text, thing), f"</{block}>"))
    return "QwenVL HTML", marked("```html\n<html><body>\n", joined("\n", rows), "\n</body></html>\n```")


def motion(rng, scene: Scene):
    if scene.kind != "clip" or scene.motion is None:
        return None
    thing = scene.things[0]
    question = rng.choice([
        "What happens in the video?", "Describe the video.", f"Where does the {thing.noun} move?",
        "In which direction does it move?", f"How does the {thing.noun} move?",
    ])  # fmt: skip
    seen = [units[0] for units in scene.unit_things]
    if scene.motion == "not":
        return question, marked("The ", (thing.name, seen[0]), " does ", ("not", seen), " move.")
    return question, marked("The ", (thing.name, seen[0]), " moves ", (scene.motion, seen), ".")


def _clock(seconds: float) -> str:
    return f"00:{int(seconds) // 60:02}:{seconds % 60:05.2f}"


def events(rng, scene: Scene):
    if scene.kind != "clip" or not scene.events:
        return None
    rows = []
    for start, end, name, key in scene.events:
        seen = [thing for units in scene.unit_things for thing in units if thing.key == key]
        rows.append(marked(
            '\t{"start_time": "', (_clock(start), seen[0]), '", "end_time": "', (_clock(end), seen[-1]),
            '", "event": "', (article(name), seen[0]), ' is there"}',
        ))  # fmt: skip
    end, answer = _fence(rng, marked("[\n", joined(",\n", rows), "\n]"), "json")
    question = rng.choice([
        "Please describe the series of events in the video, output the start time (start_time), end time (end_time), and event (event) in JSON format",
        "Describe the events in the video. Output start_time, end_time and event in JSON format",
        "When is what in the video? Output the results in JSON format including start_time, end_time, and event",
    ])  # fmt: skip
    return question + end, answer


def comparison(rng, first: Scene, second: Scene):
    """About two pictures with one thing each."""
    a, b = first.things[0], second.things[0]
    one, two = (article(a.name), a), (article(b.name), b)
    if rng.random() < 0.5:
        question = rng.choice(["What is in the two pictures?", "Describe both pictures.", "What are these?"])
        return question, marked("The first picture shows ", one, ", the second ", two, ".")
    same = "both" if (a.noun, a.colour) == (b.noun, b.colour) else "noun" if a.noun == b.noun else "colour" if a.colour == b.colour else ""
    question = rng.choice(["What do the two pictures have in common?", "Compare the two pictures.", "What is the difference?"])
    answers = {
        "both": ("Both show ", one, "."),
        "noun": ("Both show ", (article(a.noun), a), ", but the first is ", (a.colour, a), " and the second is ", (b.colour, b), "."),
        "colour": ("Both are ", (a.colour, a), ", but the first is ", (article(a.noun), a), " and the second is ", (article(b.noun), b), "."),
        "": ("The first is ", one, ", the second is ", two, "."),
    }  # fmt: skip
    return question, marked(*answers[same])


STRANGE = """What is the capital of France?|Who are you?|Tell me a joke.|Write a poem about love.|What time is it?|
Who painted this?|Which breed is this dog?|Translate this into German.|How old is the man?|Why is the sky blue?|
What is 17 times 3?|Hello!|Who is the person in the picture?|What is the weather like?|How do I cook rice?|
Is this photo from Italy?|What is the meaning of life?|Write a program that sorts numbers.|Who won the match?|
Which language is this?|What emotion does the face show?|Solve the equation.|Name the actor.|Help me with my homework.|
Is the animal sick?|What brand is the shoe?|Who wrote Hamlet?|How far is the moon?|Give me a recipe.|Summarize the book."""
STRANGE = [line.strip() for line in STRANGE.replace("\n", "").split("|")]


def unknown(rng, scene=None):
    return rng.choice(STRANGE), UNKNOWN


# How often a task is drawn where its scene allows it.
TASKS = {
    "describe": (describe, 0.8),
    "counting": (counting, 1.4),
    "colour": (colour, 0.3),
    "relation": (relation, 0.7),
    "boxes": (boxes, 1.2),
    "points": (points, 0.25),
    "reading": (reading, 1.5),
    "spotting": (spotting, 0.1),
    "receipt": (receipt_fields, 1.5),
    "html": (page_html, 1.2),
    "motion": (motion, 1.0),
    "events": (events, 1.0),
    "unknown": (unknown, 0.5),
}  # fmt: skip


def asked(question: str) -> tuple[int, int]:
    """The noun and the colour that a question is about, from 1, 0 where it has none, and -1 where it has several."""
    words = re.findall(r"[a-z]+", question.lower())
    nouns = [i for i, noun in enumerate(NOUNS, 1) if noun in words or plural(noun) in words]
    colours = [i for i, colour in enumerate(COLOURS, 1) if colour in words]
    return tuple(-1 if len(some) > 1 else some[0] if some else 0 for some in (nouns, colours))


# How often a task may be asked of one scene; the rest once.
OFTEN = {"counting": 3, "colour": 2, "relation": 2}


def counts(rng: random.Random, scene: Scene, n: int) -> list[tuple[str, str, str]]:
    """Up to `n` rounds of counting, mostly of nouns and colours, no answer twice."""
    found = {}
    for _ in range(3 * n):
        question, answer = counting(rng, scene, rng.choice([0.1, 0.5, 0.5, 0.9, 0.9]))
        if len(found) < n:
            found.setdefault(answer, ("counting", question, answer))
    return list(found.values())


def rounds(rng: random.Random, scene: Scene, n: int) -> list[tuple[str, str, str]]:
    """Up to `n` rounds about one scene: (task, question, answer), no question twice."""
    left = {name: OFTEN.get(name, 1) for name in TASKS}
    if scene.kind == "clip":
        del left["describe"]
    if rng.random() > 0.12:
        del left["unknown"]
    if scene.kind == "words" and rng.random() > 0.15:
        # Its numbers are most of what would be said, and little of it would be about reading.
        del left["spotting"]
    found, answers = [], set()
    while left and len(found) < n:
        name = rng.choices(list(left), [TASKS[name][1] for name in left])[0]
        said = TASKS[name][0](rng, scene)
        left[name] -= 1
        if said is None or left[name] == 0:
            del left[name]
        # The answer says what was meant, however it was asked.
        if said is not None and said[1] not in answers:
            answers.add(said[1])
            found.append((name, *said))
    return found
