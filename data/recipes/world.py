"""The world of the embedded dataset: what a scene may hold, and a sampler that puts one together.

A scene is a plain dictionary (JSON-able). `draw.py` paints it, `language.py` talks about it:

    {"setting", "weather", "time", "seed", "things": [{"kind", "color", "x", "y", "row", "size", ...}]}

`seed` only moves decoration (clouds, skin tones, wall colours); nothing that a question asks about hangs on
it.
"""

import random

PEOPLE = ("man", "woman", "boy", "girl")
ANIMALS = ("dog", "cat", "bird", "duck", "horse", "cow", "sheep")
OUTDOORS = ("park", "beach", "street", "snow", "lake", "farm")
INDOORS = ("living room", "kitchen")
SETTINGS = OUTDOORS + INDOORS

# Width and height of a big thing in the near row, as fractions of the picture's side.
EXTENT = {
    "man": (0.17, 0.46), "woman": (0.17, 0.44), "boy": (0.14, 0.34), "girl": (0.14, 0.34),
    "dog": (0.22, 0.19), "cat": (0.17, 0.16), "bird": (0.11, 0.09), "duck": (0.12, 0.10),
    "horse": (0.32, 0.30), "cow": (0.32, 0.26), "sheep": (0.24, 0.19),
    "ball": (0.10, 0.10), "kite": (0.16, 0.18), "balloon": (0.11, 0.20), "tree": (0.30, 0.50),
    "pine": (0.26, 0.50), "flower": (0.09, 0.15), "house": (0.42, 0.42), "barn": (0.42, 0.40),
    "tent": (0.30, 0.24), "car": (0.36, 0.18), "bus": (0.46, 0.26), "bicycle": (0.26, 0.19),
    "boat": (0.32, 0.28), "bench": (0.30, 0.18), "snowman": (0.20, 0.34), "umbrella": (0.30, 0.36),
    "bucket": (0.09, 0.10), "sofa": (0.44, 0.26), "chair": (0.18, 0.30), "table": (0.34, 0.22),
    "lamp": (0.14, 0.44), "tv": (0.30, 0.24), "plant": (0.16, 0.28), "picture": (0.18, 0.15),
    "rug": (0.50, 0.10), "cup": (0.08, 0.09), "cake": (0.13, 0.12), "fridge": (0.22, 0.46),
    "clock": (0.13, 0.13),
}  # fmt: skip
SIDES = (0.37, 0.63)  # left of the first is "on the left", right of the second "on the right"
SMALLER = 0.7  # a small thing, or one in the far row, is drawn at this scale

# What may stand where. Far things are the backdrop, sky things hang or fly.
BACKDROP = {
    "park": ("tree", "tree", "pine", "bench", "house"),
    "beach": ("boat", "boat", "umbrella"),
    "street": ("house", "car", "bus", "tree"),
    "snow": ("pine", "house", "snowman"),
    "lake": ("boat", "pine", "tent", "tree"),
    "farm": ("barn", "tree", "cow", "horse", "sheep"),
    "living room": ("sofa", "lamp", "plant", "tv"),
    "kitchen": ("fridge", "table", "chair", "plant"),
}
FOREGROUND = {
    "park": ("ball", "bicycle", "bench", "flower"),
    "beach": ("ball", "bucket", "umbrella"),
    "street": ("bicycle", "car", "ball"),
    "snow": ("snowman", "ball"),
    "lake": ("tent", "flower", "ball"),
    "farm": ("flower", "bucket", "bicycle"),
    "living room": ("chair", "table", "ball", "rug"),
    "kitchen": ("chair", "table", "bucket"),
}
SKY = {
    "park": ("kite", "balloon"),
    "beach": ("kite", "balloon"),
    "street": ("balloon",),
    "snow": ("balloon",),
    "lake": ("kite", "balloon"),
    "farm": ("kite", "balloon"),
    "living room": ("picture", "clock", "balloon"),
    "kitchen": ("clock", "picture", "balloon"),
}
PETS = {
    "park": ("dog", "cat", "duck", "bird"),
    "beach": ("dog", "bird"),
    "street": ("dog", "cat", "bird"),
    "snow": ("dog", "cat"),
    "lake": ("duck", "dog", "bird"),
    "farm": ("horse", "cow", "sheep", "dog", "duck"),
    "living room": ("cat", "dog"),
    "kitchen": ("cat", "dog"),
}
HERDS = (
    "duck",
    "sheep",
    "bird",
    "ball",
    "flower",
    "tree",
    "pine",
    "balloon",
)  # kinds that come in twos to fours

# Colours a kind comes in; kinds that are not listed take any bright colour.
BRIGHT = ("red", "orange", "yellow", "green", "blue", "purple", "pink")
COLORS_OF = {
    "dog": ("brown", "black", "white", "gray"),
    "cat": ("orange", "black", "white", "gray"),
    "bird": ("red", "blue", "yellow", "black"),
    "duck": ("yellow", "white", "brown"),
    "horse": ("brown", "black", "white"),
    "cow": ("brown", "black", "white"),
    "sheep": ("white", "black"),
    "tree": ("green", "orange", "pink"),
    "pine": ("green",),
    "barn": ("red", "brown", "white"),
    "snowman": ("white",),
    "tv": ("black",),
    "picture": ("brown",),
    "plant": ("green",),
    "cake": ("pink", "white", "brown"),
    "fridge": ("white", "gray", "red"),
    "bench": ("brown", "green", "red"),
    "table": ("brown", "white"),
    "chair": ("brown", "red", "blue", "green", "yellow"),
    "clock": ("white",),
    "house": ("red", "yellow", "blue", "white", "pink"),
    "car": ("red", "yellow", "green", "blue", "black", "white"),
    "bus": ("red", "yellow", "green", "blue"),
}
PLAIN = ("pine", "snowman", "tv", "picture", "plant", "clock")  # nobody asks what colour these are
HELD = ("balloon", "umbrella", "ball", "flag", "book", "cup", "flower", "kite")
HELD_INDOORS = ("balloon", "ball", "book", "cup", "flower")
POSES = ("standing", "standing", "walking", "running", "jumping", "waving", "sitting")
ANIMAL_POSES = ("standing", "standing", "sitting", "sleeping", "running")
STILL_ANIMALS = ("horse", "cow", "sheep")  # graze: they stand, run or sleep, but don't sit


def color_of(kind: str, rng: random.Random) -> str:
    """A colour that the kind comes in."""
    return rng.choice(COLORS_OF.get(kind, BRIGHT))


def extent(thing: dict) -> tuple[float, float]:
    """(width, height) of the thing as drawn, as fractions of the picture's side."""
    scale = (SMALLER if thing["size"] == "small" else 1.0) * (SMALLER if thing["row"] == "far" else 1.0)
    width, height = EXTENT[thing["kind"]]
    return width * scale, height * scale


def _thing(kind: str, row: str, rng: random.Random, color: str | None = None) -> dict:
    small = rng.random() < (0.4 if kind in ("dog", "ball", "tree", "car", "house", "boat", "cat") else 0.0)
    thing = {"kind": kind, "color": color or color_of(kind, rng), "x": 0.5, "y": None, "row": row}
    thing["size"] = "small" if small else "big"
    if kind in ANIMALS:
        poses = ("standing", "running", "sleeping") if kind in STILL_ANIMALS else ANIMAL_POSES
        thing["pose"] = "standing" if kind == "duck" else rng.choice(poses)
        thing["facing"] = rng.choice(("left", "right"))
        if kind == "bird":
            thing["pose"] = "flying" if row == "sky" else "standing"
    elif kind in ("car", "bus"):
        thing["facing"] = rng.choice(("left", "right"))
    elif kind == "tv":
        thing["on"] = rng.random() < 0.5
    return thing


def _person(kind: str, row: str, indoors: bool, rng: random.Random) -> dict:
    shirt = rng.choice((*BRIGHT, "white", "black"))
    pants = rng.choice([c for c in ("blue", "black", "brown", "gray", "red", "green", "white") if c != shirt])
    hat = rng.choice((*BRIGHT, "black", "white")) if rng.random() < (0.2 if indoors else 0.45) else None
    holding = None
    if rng.random() < 0.5:
        held = rng.choice(HELD_INDOORS if indoors else HELD)
        holding = {"kind": held, "color": rng.choice(BRIGHT)}
    return {
        "kind": kind, "color": None, "x": 0.5, "y": None, "row": row, "size": "big",
        "shirt": shirt, "pants": pants, "hat": hat, "holding": holding,
        "pose": rng.choice(POSES), "facing": rng.choice(("left", "right")),
    }  # fmt: skip


def _fits(thing: dict, placed: list[dict]) -> bool:
    """Things of one row don't overlap; a far thing may hide a little behind a near one."""
    width = extent(thing)[0]
    for other in placed:
        if "sky" in (thing["row"], other["row"]) and thing["row"] != other["row"]:
            continue
        slack = 1.0 if thing["row"] == other["row"] else 0.75
        if thing["kind"] != other["kind"] and "rug" in (thing["kind"], other["kind"]):
            continue  # a rug lies under things
        reach = sum(0.05 for t in (thing, other) if t.get("holding"))
        if abs(thing["x"] - other["x"]) < slack * ((width + extent(other)[0]) / 2 + reach):
            return False
    return True


def _place(thing: dict, placed: list[dict], rng: random.Random) -> bool:
    margin = extent(thing)[0] / 2 + 0.02 + (0.06 if thing.get("holding") else 0.0)
    for _ in range(25):
        thing["x"] = round(rng.uniform(margin, 1 - margin), 3)
        if any(abs(thing["x"] - edge) < 0.035 for edge in SIDES):
            continue  # neither clearly left nor clearly in the middle: nobody could say where it is
        if thing["row"] == "sky":
            thing["y"] = round(rng.uniform(0.14, 0.26), 3)
        if _fits(thing, placed):
            placed.append(thing)
            return True
    return False


def sample_scene(rng: random.Random) -> dict:
    """Draw a scene: a place, its weather, one to three people, perhaps animals, a backdrop and some objects.

    Things that do not fit into the picture are left out, so every thing in the result can be seen.
    """
    setting = rng.choice(SETTINGS)
    indoors = setting in INDOORS
    if indoors:
        weather, time = None, rng.choice(("day", "day", "night"))
    else:
        time = "night" if rng.random() < 0.2 else "day"
        weather = rng.choice(
            ("snowy", "sunny", "cloudy") if setting == "snow" else ("sunny", "sunny", "cloudy", "rainy")
        )
        if time == "night" and weather == "sunny":
            weather = "clear"  # there is no sun at night
    wanted = [
        _person(rng.choice(PEOPLE), "near", indoors, rng) for _ in range(rng.choice((1, 1, 1, 2, 2, 3)))
    ]
    if rng.random() < 0.08:
        wanted = []  # some pictures have no people: "are there any people?" must not always be yes
    if rng.random() < 0.6:
        kind = rng.choice(PETS[setting])
        row = "sky" if kind == "bird" and not indoors and rng.random() < 0.5 else "near"
        wanted.append(_thing(kind, row, rng))
    if rng.random() < 0.5:
        wanted.append(_thing(rng.choice(FOREGROUND[setting]), "near", rng))
    for _ in range(rng.choice((1, 1, 2, 2))):
        wanted.append(_thing(rng.choice(BACKDROP[setting]), "far", rng))
    if rng.random() < 0.3:
        wanted.append(_thing(rng.choice(SKY[setting]), "sky", rng))
    herds = [t for t in wanted if t["kind"] in HERDS]
    if herds and rng.random() < 0.6:
        model = rng.choice(herds)
        same_color = rng.random() < 0.5
        for _ in range(rng.choice((1, 1, 2, 3))):
            more = _thing(model["kind"], model["row"], rng, model["color"] if same_color else None)
            more["size"] = model["size"]
            wanted.append(more)
    placed: list[dict] = []
    for thing in wanted:
        _place(thing, placed, rng)
    order = {"sky": 0, "far": 1, "near": 2}
    placed.sort(key=lambda t: (order[t["row"]], t["kind"] != "rug", t["x"]))
    return {
        "setting": setting,
        "weather": weather,
        "time": time,
        "seed": rng.randrange(2**31),
        "things": placed,
    }


def side(thing: dict) -> str:
    """Which third of the picture the thing stands in: left, middle or right."""
    return "left" if thing["x"] < SIDES[0] else "right" if thing["x"] > SIDES[1] else "middle"


def neighbour(scene: dict, thing: dict) -> dict | None:
    """The nearest other thing of the same row, when it is close enough to be 'next to' it."""
    others = [
        t for t in scene["things"] if t is not thing and t["row"] == thing["row"] and t["kind"] != "rug"
    ]
    near = min(others, key=lambda t: abs(t["x"] - thing["x"]), default=None)
    return near if near is not None and abs(near["x"] - thing["x"]) < 0.42 else None
