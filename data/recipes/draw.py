"""Paint a scene (see world.py for what a scene is) as a flat picture-book illustration.

    from draw import draw
    draw(scene, size=384).save("scene.png")

The picture depends on the scene alone. It is drawn three times too large and then reduced, which softens
every edge. The drawing itself lives in draw_places and draw_rooms (what is behind), draw_people and
draw_held, draw_animals and draw_birds, draw_things, draw_town and draw_furniture.
"""

import random

from draw_animals import ANIMALS
from draw_furniture import FURNITURE
from draw_pen import Pen
from draw_people import PEOPLE
from draw_places import paint_place, paint_weather
from draw_things import THINGS
from draw_town import TOWN
from PIL import Image
from world import extent

PAINTERS = {**PEOPLE, **ANIMALS, **THINGS, **TOWN, **FURNITURE}

OVERSIZE = 3
GROUND = {"near": 0.90, "far": 0.66}
WATER_LINE = {"near": 0.59, "far": 0.56}
ROAD = {"near": 0.86, "far": 0.735}
ROWS = ("sky", "far", "near")


def draw(scene: dict, size: int = 384) -> Image.Image:
    """Paint the scene, so that a person enjoys looking at it and a model can learn from it.

    Returns an RGB image of size by size pixels. Raises ValueError for an unknown kind of thing or setting.
    """
    image = Image.new("RGB", (size * OVERSIZE, size * OVERSIZE))
    pen = Pen(image, scene["time"] == "night", (0.0, 0.0, image.width, image.height))
    paint_place(pen, scene)
    rng = random.Random(scene["seed"])
    looks = {id(thing): rng.randrange(1 << 30) for thing in scene["things"]}
    for thing in sorted(scene["things"], key=lambda thing: depth(thing, scene["setting"])):
        paint_thing(pen, thing, scene["setting"], random.Random(looks[id(thing)]))
    paint_weather(pen, scene)
    return image.reduce(OVERSIZE)


def depth(thing: dict, setting: str) -> tuple:
    """Sort key for painting: sky, far, near; in a row, rugs first, then whatever stands higher up."""
    return ROWS.index(thing["row"]), thing["kind"] != "rug", base_line(thing, setting)


def base_line(thing: dict, setting: str) -> float:
    """The height (0 = top) on which a thing stands; for things in the sky or on a wall, their centre."""
    if thing.get("y") is not None:
        return thing["y"]
    if thing["row"] == "sky":
        return 0.25
    if thing["kind"] == "boat" and setting in ("lake", "beach"):
        return WATER_LINE[thing["row"]]
    if thing["kind"] in ("car", "bus", "bicycle") and setting == "street":
        return ROAD[thing["row"]]
    return GROUND[thing["row"]]


def paint_thing(pen: Pen, thing: dict, setting: str, rng: random.Random) -> None:
    """Paint one thing in its place; the unit of its pen is its height, and y goes up from its feet."""
    kind = thing["kind"]
    if kind not in PAINTERS:
        raise ValueError(f"draw.py cannot draw {kind!r}; it knows {', '.join(sorted(PAINTERS))}")
    height = extent(thing)[1]
    y = base_line(thing, setting) + (height / 2 if thing["row"] == "sky" else 0.0)
    PAINTERS[kind](pen.at(thing["x"], y, height, thing.get("facing") or "right"), thing, rng)
