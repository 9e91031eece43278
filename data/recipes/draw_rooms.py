"""The two rooms: living room and kitchen, each with a window that shows day or night.

The pen spans the whole image: x to the right, y down, both 0..1.
"""

import random

from draw_pen import NIGHT, RGB, Pen, arc, box, gradient, limb, mix, oval, poly


def fill_gradient(pen: Pen, top: float, bottom: float, first: RGB, last: RGB, left=0.0, right=1.0) -> None:
    """Fill the rectangle between the heights `top` and `bottom` with a vertical gradient."""
    x0, y0 = (round(v) for v in pen.pixel(left, top))
    x1, y1 = (round(v) for v in pen.pixel(right, bottom))
    pen.image.paste(gradient(x1 - x0, y1 - y0, first, last), (x0, y0))


def scenery(pen: Pen, color: RGB, *shapes: tuple) -> None:
    """Paint scenery: no outline, and already toned for the night."""
    pen.paint(color, *shapes, outline=False, glow=True)


def free_place(scene: dict, rng: random.Random) -> float:
    """Where to put the window: the place furthest from pictures, clocks and tall furniture."""
    taken = [t["x"] for t in scene["things"] if t["row"] == "sky"]
    tall = [t["x"] for t in scene["things"] if t["kind"] in ("fridge", "lamp", "plant", "man", "woman")]

    def room(x: float) -> tuple:
        """How much room there is around x, on the wall first."""
        return min([abs(x - t) for t in taken] + [0.4]), min([abs(x - t) for t in tall] + [0.4]), rng.random()

    return max((0.16, 0.33, 0.5, 0.67, 0.84), key=room)


def paint_window(pen: Pen, x: float, night: bool, curtain: RGB | None) -> None:
    """A window that shows day (sun, hill) or night (moon, stars)."""
    left, right, top, bottom = x - 0.105, x + 0.105, 0.12, 0.385
    pen.paint((250, 248, 244), box(left - 0.018, top - 0.018, right + 0.018, bottom + 0.018), glow=True)
    sky = ((12, 18, 62), (52, 68, 134)) if night else ((112, 198, 246), (222, 244, 253))
    fill_gradient(pen, top, bottom, *sky, left=left, right=right)
    if night:
        scenery(pen, (255, 246, 200), oval(x + 0.055, top + 0.06, 0.03))
        scenery(pen, (18, 25, 74), oval(x + 0.041, top + 0.054, 0.026))
        for p, q in ((-0.08, 0.03), (-0.04, 0.09), (-0.075, 0.15), (0.03, 0.15), (0.08, 0.12), (-0.02, 0.03)):
            scenery(pen, (240, 244, 255), oval(x + p, top + q, 0.0042))
    else:
        scenery(pen, (255, 222, 60), oval(x + 0.06, top + 0.055, 0.032))
        scenery(
            pen,
            (255, 255, 255),
            oval(x - 0.05, top + 0.09, 0.03, 0.014),
            oval(x - 0.075, top + 0.098, 0.02, 0.01),
        )
    hill = (28, 52, 84) if night else (140, 204, 120)
    scenery(pen, hill, poly((left, bottom), *arc(x, bottom, 0.105, -0.05, 180, 0, 10), (right, bottom)))
    scenery(pen, (250, 248, 244), box(x - 0.006, top, x + 0.006, bottom), box(left, 0.245, right, 0.257))
    pen.paint(
        (238, 234, 228), box(left - 0.035, bottom + 0.015, right + 0.035, bottom + 0.034, 0.005), glow=True
    )
    if curtain:
        for side in (-1, 1):
            x0, x1 = x + side * 0.155, x + side * 0.085
            drape = [
                (x0, 0.085),
                (x1 - side * 0.02, 0.085),
                (x1, 0.2),
                (x1 + side * 0.03, 0.32),
                (x1 + side * 0.03, 0.42),
            ]
            scenery(pen, curtain, poly(*drape, (x0, 0.42)))
            for k in (0.25, 0.55):
                scenery(
                    pen,
                    mix(curtain, (90, 70, 90), 0.18),
                    limb(0.004, (x0 - side * k * 0.06, 0.09), (x0 - side * k * 0.05, 0.415)),
                )
        scenery(pen, (150, 120, 96), limb(0.01, (x - 0.17, 0.083), (x + 0.17, 0.083)))


def paint_living_room(pen: Pen, scene: dict, rng: random.Random) -> None:
    """Striped wallpaper, a curtained window, a skirting board and a wooden floor."""
    night = scene["time"] == "night"
    dim = 0.26 if night else 0.0
    wall = mix(
        rng.choice([(250, 234, 208), (216, 236, 226), (222, 232, 246), (248, 224, 218), (236, 228, 244)]),
        NIGHT,
        dim,
    )
    floor = mix(rng.choice([(222, 186, 140), (206, 172, 132), (232, 200, 158)]), NIGHT, dim)
    fill_gradient(pen, 0.0, 0.60, mix(wall, (255, 255, 255), 0.25 * (1 - night)), wall)
    stripe = mix(wall, (255, 255, 255), 0.22)
    for i in range(10):
        scenery(pen, stripe, box(i / 10 + 0.02, 0.0, i / 10 + 0.05, 0.57))
    paint_window(
        pen,
        free_place(scene, rng),
        night,
        mix(rng.choice([(226, 170, 160), (164, 196, 190), (176, 180, 216)]), NIGHT, dim),
    )
    fill_gradient(pen, 0.60, 1.0, floor, mix(floor, (120, 70, 30), 0.12))
    line = mix(floor, (110, 70, 40), 0.28)
    for i, y in enumerate((0.645, 0.70, 0.77, 0.86, 0.965)):
        scenery(pen, line, box(0.0, y, 1.0, y + 0.003))
        for k in range(4):
            x = (k + 0.5 * (i % 2) + 0.3) / 3.6
            scenery(pen, line, box(x, y - (0.05, 0.055, 0.07, 0.09, 0.105)[i], x + 0.003, y))
    skirting = mix((252, 250, 246), NIGHT, dim)
    scenery(pen, skirting, box(0.0, 0.57, 1.0, 0.60))
    scenery(pen, mix(skirting, (80, 60, 50), 0.35), box(0.0, 0.598, 1.0, 0.603))


def paint_kitchen(pen: Pen, scene: dict, rng: random.Random) -> None:
    """Wall tiles, a window, cupboards and a chequered floor."""
    night = scene["time"] == "night"
    dim = 0.26 if night else 0.0
    tile = mix(rng.choice([(226, 240, 238), (240, 236, 224), (228, 234, 244)]), NIGHT, dim)
    fill_gradient(pen, 0.0, 0.60, mix(tile, (255, 255, 255), 0.3 * (1 - night)), tile)
    grout = mix(tile, (110, 130, 150), 0.22)
    for i in range(1, 7):
        scenery(pen, grout, box(0.0, i * 0.075, 1.0, i * 0.075 + 0.003))
    for i in range(13):
        scenery(pen, grout, box(i / 12, 0.0, i / 12 + 0.003, 0.46))
    paint_window(pen, free_place(scene, rng), night, None)
    paint_counter(pen, mix(rng.choice([(150, 186, 190), (214, 180, 150), (172, 178, 204)]), NIGHT, dim), dim)
    light, dark = mix((244, 240, 230), NIGHT, dim), mix((206, 208, 206), NIGHT, dim)
    fill_gradient(pen, 0.60, 1.0, light, light)
    rows = (0.60, 0.635, 0.68, 0.74, 0.82, 0.92, 1.05)
    for r in range(6):
        for c in range(-9, 9):
            if (r + c) % 2:
                corners = [(c, rows[r]), (c + 1, rows[r]), (c + 1, rows[r + 1]), (c, rows[r + 1])]
                scenery(
                    pen, dark, poly(*((0.5 + k * 0.14 * (0.45 + (y - 0.5) * 1.1), y) for k, y in corners))
                )


def paint_counter(pen: Pen, front: RGB, dim: float) -> None:
    """The cupboards along the kitchen wall and the worktop on them."""
    scenery(pen, front, box(0.0, 0.475, 1.0, 0.60))
    for i in range(6):
        x = i / 6
        scenery(pen, mix(front, (255, 255, 255), 0.22), box(x + 0.012, 0.49, x + 0.155, 0.585, 0.008))
        scenery(pen, mix(front, (40, 40, 60), 0.5), box(x + 0.065, 0.50, x + 0.102, 0.507))
    scenery(pen, mix((110, 100, 100), NIGHT, dim), box(0.0, 0.592, 1.0, 0.602))
    scenery(pen, mix((232, 218, 196), NIGHT, dim), box(0.0, 0.455, 1.0, 0.478))
    scenery(pen, mix((176, 156, 130), NIGHT, dim), box(0.0, 0.476, 1.0, 0.483))


ROOMS = {"living room": paint_living_room, "kitchen": paint_kitchen}
