"""Small things, plants, the snowman and the beach umbrella; also the colours and helpers that things share.

One unit is the thing's nominal height; x goes forward (to the right unless it faces left), y goes up from the
ground. Without a colour a thing gets its natural one. Each painter takes the pen, the thing and a random
source for its looks.
"""

import random

from draw_pen import Pen, arc, box, darker, lighter, limb, oval, poly, rgb, smooth

WOOD = (170, 116, 70)
METAL = (176, 182, 190)
CREAM = (252, 246, 230)


def hue(thing: dict, natural: str | tuple) -> tuple:
    """The thing's colour as RGB, or its natural colour."""
    return rgb(thing.get("color") or natural)


def contrast(color: tuple, pale: tuple = CREAM, dark: tuple = (110, 112, 124)) -> tuple:
    """A colour for trimmings that stands out and names no other hue: pale, or gray on pale things."""
    return dark if min(color) > 190 else pale


def draw_ball(pen: Pen, thing: dict, rng: random.Random) -> None:
    """A ball with two seams."""
    color = hue(thing, "red")
    pen.shadow(0.9)
    pen.paint(color, oval(0.0, 0.48, 0.47))
    pen.paint(darker(color, 0.3), limb(0.05, *arc(0.0, -0.05, 0.56, 0.56, 48, 132, 8)), outline=False)
    pen.paint(darker(color, 0.3), limb(0.05, *arc(0.0, 1.08, 0.56, 0.56, 228, 312, 8)), outline=False)
    pen.veil((255, 255, 255), 0.6, oval(-0.17, 0.68, 0.11, 0.07, 30))


def draw_kite(pen: Pen, thing: dict, rng: random.Random) -> None:
    """A diamond of two shades with a bow-tied tail."""
    color = hue(thing, "red")
    dark = darker(color, 0.35)
    tail = [(0.0, 0.26), (0.10, 0.17), (0.02, 0.08), (0.13, 0.0), (0.06, -0.12)]
    pen.paint(dark, limb(0.022, *tail), outline=False)
    for x, y in tail[1:4]:
        pen.paint(
            color,
            poly((x, y), (x - 0.08, y + 0.04), (x - 0.08, y - 0.04)),
            poly((x, y), (x + 0.08, y + 0.04), (x + 0.08, y - 0.04)),
        )
    corners = [(0.0, 1.0), (0.40, 0.68), (0.0, 0.26), (-0.40, 0.68)]
    pen.paint(color, poly(*corners))
    pen.paint(
        lighter(color, 0.28) if min(color) < 225 else (226, 230, 238),
        poly(corners[0], corners[1], (0.0, 0.68)),
        poly(corners[2], corners[3], (0.0, 0.68)),
        outline=False,
    )
    pen.paint(
        dark, limb(0.022, (0.0, 0.98), (0.0, 0.27)), limb(0.022, (-0.38, 0.68), (0.38, 0.68)), outline=False
    )


def draw_balloon(pen: Pen, thing: dict, rng: random.Random) -> None:
    """A balloon with its string."""
    color = hue(thing, "red")
    string = (226, 230, 240) if pen.night else (112, 116, 128)
    pen.paint(string, limb(0.014, (0.0, 0.42), (0.04, 0.3), (-0.03, 0.15), (0.02, 0.0)), outline=False)
    pen.paint(
        color,
        smooth(
            (0.0, 1.0),
            (0.22, 0.92),
            (0.265, 0.72),
            (0.14, 0.50),
            (0.0, 0.43),
            (-0.14, 0.50),
            (-0.265, 0.72),
            (-0.22, 0.92),
        ),
        poly((-0.05, 0.38), (0.05, 0.38), (0.0, 0.45)),
    )
    pen.veil((255, 255, 255), 0.6, oval(-0.11, 0.83, 0.05, 0.085, -25))


def draw_bucket(pen: Pen, thing: dict, rng: random.Random) -> None:
    """A bucket with a metal handle."""
    color = hue(thing, "red")
    pen.shadow(0.9)
    pen.paint(METAL, limb(0.05, *arc(0.0, 0.66, 0.38, 0.34, 0, 180, 10)))
    pen.paint(color, poly((-0.42, 0.70), (0.42, 0.70), (0.31, 0.02), (-0.31, 0.02)))
    pen.paint(darker(color, 0.3), oval(0.0, 0.70, 0.41, 0.08))
    pen.paint(
        darker(color, 0.2), poly((-0.39, 0.50), (0.39, 0.50), (0.375, 0.42), (-0.375, 0.42)), outline=False
    )


def draw_cup(pen: Pen, thing: dict, rng: random.Random) -> None:
    """A steaming cup."""
    color = hue(thing, "white")
    pen.shadow(0.9)
    pen.paint(color, oval(0.34, 0.48, 0.18))
    pen.paint((230, 230, 236), oval(0.35, 0.48, 0.09), outline=False)
    pen.paint(
        color, poly((-0.40, 0.82), (0.34, 0.82), (0.28, 0.16), (0.18, 0.03), (-0.24, 0.03), (-0.34, 0.16))
    )
    pen.paint((112, 70, 44), oval(-0.03, 0.82, 0.35, 0.075))
    for x in (-0.16, 0.08):
        pen.veil((255, 255, 255), 0.6, limb(0.05, (x, 0.92), (x + 0.05, 1.0), (x, 1.10)))


def draw_cake(pen: Pen, thing: dict, rng: random.Random) -> None:
    """An iced cake with three candles."""
    color = hue(thing, "pink")
    pen.shadow(1.0)
    pen.paint((236, 238, 244), oval(0.0, 0.08, 0.54, 0.075))
    pen.paint(color, box(-0.42, 0.08, 0.42, 0.62, 0.06))
    icing = [(-0.44, 0.66), (0.44, 0.66), (0.44, 0.50)]
    icing += [
        (x, 0.36 if i % 2 == 0 else 0.50) for i, x in enumerate((0.33, 0.22, 0.11, 0.0, -0.11, -0.22, -0.33))
    ]
    pen.paint(lighter(color, 0.6) if min(color) < 190 else (232, 222, 206), smooth(*icing, (-0.44, 0.50)))
    for x in (-0.2, 0.0, 0.2):
        pen.paint((250, 250, 250), box(x - 0.03, 0.64, x + 0.03, 0.84))
        pen.paint((255, 170, 40), oval(x, 0.91, 0.04, 0.07), glow=True)


def draw_flower(pen: Pen, thing: dict, rng: random.Random) -> None:
    """Five petals on a leafy stem."""
    color = hue(thing, "red")
    pen.shadow(0.35)
    pen.paint((44, 138, 62), limb(0.05, (0.0, 0.0), (0.015, 0.3), (0.0, 0.66)))
    pen.paint(
        (62, 160, 74),
        smooth((0.0, 0.10), (0.16, 0.18), (0.27, 0.40), (0.10, 0.34)),
        smooth((0.0, 0.06), (-0.16, 0.14), (-0.27, 0.32), (-0.10, 0.28)),
    )
    pen.paint(color, *(oval(x, y, 0.125) for x, y in arc(0.0, 0.76, 0.165, 0.165, 90, 378, 4)))
    pen.paint(
        (150, 92, 40) if thing.get("color") in ("yellow", "orange") else (255, 206, 50), oval(0.0, 0.76, 0.09)
    )


def draw_tree(pen: Pen, thing: dict, rng: random.Random) -> None:
    """A leafy crown; pink is blossom."""
    color = hue(thing, "green")
    pen.shadow(0.5)
    pen.paint(
        (138, 92, 58),
        poly((-0.065, 0.0), (0.065, 0.0), (0.04, 0.5), (-0.04, 0.5)),
        limb(0.03, (0.0, 0.34), (0.11, 0.48)),
        limb(0.03, (0.0, 0.30), (-0.11, 0.46)),
    )
    wobble = [rng.uniform(-0.012, 0.012) for _ in range(6)]
    crown = (
        (-0.16, 0.55, 0.135),
        (0.16, 0.55, 0.135),
        (-0.12, 0.74, 0.145),
        (0.12, 0.75, 0.14),
        (0.0, 0.86, 0.13),
        (0.0, 0.62, 0.18),
    )
    pen.paint(color, *(oval(x + w, y, r) for (x, y, r), w in zip(crown, wobble, strict=True)))
    for x, y, r in ((-0.12, 0.76, 0.085), (0.07, 0.86, 0.07), (-0.17, 0.57, 0.06), (0.13, 0.62, 0.07)):
        pen.paint(lighter(color, 0.2), oval(x - 0.01, y + 0.015, r, r * 0.8), outline=False)
    for _ in range(9):
        x, y = rng.uniform(-0.22, 0.22), rng.uniform(0.50, 0.88)
        pen.paint(darker(color, 0.18), oval(x, y, 0.014, 0.010), outline=False)


def draw_pine(pen: Pen, thing: dict, rng: random.Random) -> None:
    """Three tiers of needles."""
    color = hue(thing, (24, 118, 74))
    pen.shadow(0.44)
    pen.paint((118, 78, 50), box(-0.045, 0.0, 0.045, 0.2))
    for low, high, half, tint in (
        (0.12, 0.50, 0.25, 0.16),
        (0.34, 0.74, 0.205, 0.06),
        (0.57, 1.0, 0.155, 0.0),
    ):
        hem = [(half * k, low + (0.0 if i % 2 == 0 else 0.035)) for i, k in enumerate((1, 0.5, 0, -0.5, -1))]
        pen.paint(darker(color, tint), poly((0.0, high), *hem))
        pen.paint(
            lighter(color, 0.14),
            poly((0.0, high - 0.03), (-half * 0.35, low + 0.13), (-half * 0.62, low + 0.05)),
            outline=False,
        )


def draw_snowman(pen: Pen, thing: dict, rng: random.Random) -> None:
    """Three snowballs, coal, a carrot; the colour (if any) is that of its scarf, otherwise a gray one."""
    snow = (250, 252, 255)
    pen.shadow(0.62)
    for way in (-1, 1):
        pen.paint(
            (118, 80, 52),
            limb(0.022, (way * 0.15, 0.5), (way * 0.30, 0.60)),
            limb(0.016, (way * 0.25, 0.57), (way * 0.28, 0.66)),
            outline=False,
        )
    pen.paint(snow, oval(0.0, 0.20, 0.245, 0.205))
    pen.paint(snow, oval(0.0, 0.49, 0.18, 0.165))
    pen.paint(snow, oval(0.0, 0.75, 0.135))
    for y in (0.56, 0.48, 0.40):
        pen.paint((44, 44, 52), oval(0.01, y, 0.016), outline=False)
    pen.paint(
        (44, 44, 52),
        oval(-0.03, 0.79, 0.018),
        oval(0.07, 0.79, 0.018),
        limb(0.012, *arc(0.02, 0.72, 0.06, 0.04, 200, 340, 5)),
        outline=False,
    )
    pen.paint((255, 136, 30), poly((0.01, 0.77), (0.17, 0.735), (0.01, 0.72)))
    scarf = (96, 106, 140) if thing.get("color") in (None, "white") else rgb(thing["color"])
    pen.paint(
        scarf,
        limb(0.055, (-0.105, 0.645), (0.0, 0.625), (0.105, 0.645)),
        limb(0.055, (0.08, 0.63), (0.105, 0.51)),
    )
    pen.paint((60, 58, 70), box(-0.105, 0.86, 0.105, 1.0, 0.02), box(-0.16, 0.845, 0.16, 0.875))


def draw_umbrella(pen: Pen, thing: dict, rng: random.Random) -> None:
    """A beach umbrella stuck in the ground; every other panel is a lighter shade."""
    color = hue(thing, "red")
    pen.shadow(0.5)
    pen.paint((226, 214, 196), limb(0.03, (0.0, 0.0), (0.0, 0.98)))
    top, rim, half = 0.95, 0.60, 0.41
    scallops = [
        p
        for i in range(5)
        for p in arc(half - half * 0.2 - i * half * 0.4, rim, half * 0.2, 0.035, 0, 180, 4)
    ]
    pen.paint(color, poly(*arc(0.0, rim, half, top - rim, 180, 0, 18), *scallops))
    pale = lighter(color, 0.35) if min(color) < 225 else (222, 226, 236)
    for i in (1, 3):
        x = half - i * half * 0.4
        panel = [
            (x, rim + 0.02),
            (x * 0.72, rim + 0.2),
            (0.0, top - 0.01),
            ((x - half * 0.4) * 0.72, rim + 0.2),
            (x - half * 0.4, rim + 0.02),
        ]
        pen.paint(pale, poly(*panel), outline=False)
    pen.paint(color, oval(0.0, 0.97, 0.022))


THINGS = {
    "ball": draw_ball,
    "kite": draw_kite,
    "balloon": draw_balloon,
    "bucket": draw_bucket,
    "cup": draw_cup,
    "cake": draw_cake,
    "flower": draw_flower,
    "tree": draw_tree,
    "pine": draw_pine,
    "snowman": draw_snowman,
    "umbrella": draw_umbrella,
}
