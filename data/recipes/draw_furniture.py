"""What stands or hangs in a room. Conventions as in draw_things: one unit is the thing's height."""

import math
import random

from draw_pen import Pen, arc, box, darker, lighter, limb, oval, poly, smooth
from draw_things import WOOD, contrast, hue

TERRACOTTA = (206, 118, 82)


def draw_sofa(pen: Pen, thing: dict, rng: random.Random) -> None:
    """Two seats, a high back and round arms."""
    color = hue(thing, "blue")
    pen.shadow(1.75)
    for x in (-0.68, 0.68):
        pen.paint((110, 76, 52), limb(0.07, (x, 0.10), (x, 0.02)))
    pen.paint(darker(color, 0.08), box(-0.70, 0.3, 0.70, 0.98, 0.14))
    pen.paint(darker(color, 0.25), limb(0.014, (0.0, 0.56), (0.0, 0.92)), outline=False)
    for x0, x1 in ((-0.62, 0.0), (0.0, 0.62)):
        pen.paint(lighter(color, 0.1) if min(color) < 225 else color, box(x0, 0.34, x1, 0.56, 0.07))
    pen.paint(color, box(-0.68, 0.10, 0.68, 0.36, 0.05))
    for way in (-1, 1):
        pen.paint(color, box(min(way * 0.58, way * 0.84), 0.08, max(way * 0.58, way * 0.84), 0.66, 0.12))


def draw_chair(pen: Pen, thing: dict, rng: random.Random) -> None:
    """A kitchen chair seen from the front."""
    color = hue(thing, "brown")
    pen.shadow(0.62)
    dark = darker(color, 0.25)
    pen.paint(dark, limb(0.05, (-0.16, 0.42), (-0.17, 0.07)), limb(0.05, (0.20, 0.42), (0.21, 0.07)))
    pen.paint(
        color,
        limb(0.06, (-0.22, 0.97), (-0.21, 0.42), (-0.24, 0.02)),
        limb(0.06, (0.21, 0.97), (0.21, 0.42), (0.24, 0.02)),
    )
    for y in (0.60, 0.78):
        pen.paint(color, box(-0.21, y, 0.21, y + 0.10, 0.02))
    pen.paint(color, box(-0.21, 0.90, 0.21, 1.0, 0.04))
    pen.paint(
        color,
        poly((-0.22, 0.50), (0.22, 0.50), (0.28, 0.38), (-0.28, 0.38)),
        box(-0.28, 0.34, 0.28, 0.40, 0.02),
    )


def draw_table(pen: Pen, thing: dict, rng: random.Random) -> None:
    """A table top, seen a little from above, on four legs."""
    color = hue(thing, "brown")
    pen.shadow(1.5)
    for x in (-0.5, 0.5):
        pen.paint(darker(color, 0.3), limb(0.07, (x, 0.75), (x, 0.12)))
    for x in (-0.64, 0.64):
        pen.paint(color, limb(0.09, (x, 0.75), (x * 1.02, 0.05)))
    pen.paint(darker(color, 0.12), box(-0.70, 0.68, 0.70, 0.80))
    pen.paint(
        color,
        poly((-0.66, 1.0), (0.66, 1.0), (0.77, 0.86), (-0.77, 0.86)),
        box(-0.77, 0.79, 0.77, 0.87, 0.02),
    )


def draw_lamp(pen: Pen, thing: dict, rng: random.Random) -> None:
    """A floor lamp; its shade has the colour and glows."""
    color = hue(thing, "yellow")
    pen.shadow(0.3)
    if pen.night:
        for r in (0.34, 0.25):
            pen.veil((255, 236, 150), 0.2, oval(0.0, 0.82, r))
    pen.paint((104, 88, 80), limb(0.024, (0.0, 0.03), (0.0, 0.8)))
    pen.paint((104, 88, 80), poly((-0.10, 0.0), (0.10, 0.0), (0.07, 0.035), (-0.07, 0.035)))
    pen.paint(color, poly((-0.085, 0.98), (0.085, 0.98), (0.155, 0.70), (-0.155, 0.70)), glow=True)
    pen.paint((255, 246, 200), oval(0.0, 0.70, 0.145, 0.02), glow=True)
    pen.veil((255, 255, 255), 0.3, poly((-0.06, 0.96), (-0.02, 0.96), (-0.05, 0.72), (-0.11, 0.72)))


def draw_tv(pen: Pen, thing: dict, rng: random.Random) -> None:
    """A television on a low stand: a bright picture when it is on, a black glass when it is off."""
    frame = hue(thing, (58, 58, 66))
    pen.shadow(1.2)
    pen.paint(WOOD, box(-0.58, 0.04, 0.58, 0.20, 0.02))
    pen.paint(
        darker(WOOD, 0.35),
        limb(0.03, (0.0, 0.06), (0.0, 0.18)),
        limb(0.06, (-0.48, 0.0), (-0.48, 0.03)),
        limb(0.06, (0.48, 0.0), (0.48, 0.03)),
        outline=False,
    )
    pen.paint((70, 70, 78), poly((-0.12, 0.20), (0.12, 0.20), (0.05, 0.30), (-0.05, 0.30)))
    pen.paint(frame, box(-0.62, 0.27, 0.62, 1.0, 0.04))
    if not thing.get("on"):
        pen.paint((24, 26, 34), box(-0.56, 0.33, 0.56, 0.94), outline=False)
        pen.veil((255, 255, 255), 0.12, poly((-0.3, 0.94), (-0.02, 0.94), (-0.3, 0.33), (-0.56, 0.33)))
        return
    pen.paint((130, 214, 255), box(-0.56, 0.33, 0.56, 0.94), outline=False, glow=True)
    pen.paint((255, 230, 90), oval(0.3, 0.79, 0.08), outline=False, glow=True)
    pen.paint(
        (120, 210, 110),
        poly((-0.56, 0.33), (-0.56, 0.5), (-0.2, 0.66), (0.15, 0.48), (0.56, 0.58), (0.56, 0.33)),
        outline=False,
        glow=True,
    )


def draw_plant(pen: Pen, thing: dict, rng: random.Random) -> None:
    """A house plant; a colour other than green is that of its pot."""
    pot = hue(thing, TERRACOTTA) if thing.get("color") != "green" else TERRACOTTA
    pen.shadow(0.45)
    for x, y, shade in (
        (-0.26, 0.58, 0.0),
        (0.26, 0.58, 0.0),
        (0.0, 0.99, 0.0),
        (-0.17, 0.85, 0.2),
        (0.18, 0.83, 0.2),
    ):
        green = lighter((38, 146, 72), shade)
        length = math.hypot(x, y - 0.32)
        side = (0.066 * (y - 0.32) / length, -0.066 * x / length)  # across the leaf
        middle = (x * 0.6, 0.32 + (y - 0.32) * 0.55)
        left, right = ((middle[0] + k * side[0], middle[1] + k * side[1]) for k in (-1, 1))
        pen.paint(green, smooth((0.0, 0.30), left, (x, y), right))
        pen.paint(
            darker(green, 0.25), limb(0.012, (0.0, 0.32), (x * 0.8, 0.32 + (y - 0.32) * 0.8)), outline=False
        )
    pen.paint(
        pot,
        poly((-0.17, 0.30), (0.17, 0.30), (0.12, 0.02), (-0.12, 0.02)),
        box(-0.20, 0.27, 0.20, 0.36, 0.02),
    )
    pen.paint(darker(pot, 0.2), box(-0.165, 0.245, 0.165, 0.27), outline=False)


def draw_picture(pen: Pen, thing: dict, rng: random.Random) -> None:
    """A framed landscape; the frame has the colour."""
    frame = hue(thing, "brown")
    pen.veil((40, 30, 40), 0.2, box(-0.56, -0.04, 0.62, 0.94))
    pen.paint(frame, box(-0.6, 0.0, 0.6, 1.0, 0.03))
    pen.paint((250, 247, 238), box(-0.48, 0.12, 0.48, 0.88))
    pen.paint((190, 224, 236), box(-0.42, 0.18, 0.42, 0.82), outline=False)
    pen.paint((250, 214, 120), oval(0.2, 0.64, 0.09), outline=False)
    pen.paint(
        (150, 190, 160),
        poly((-0.42, 0.18), (-0.42, 0.4), (-0.16, 0.58), (0.1, 0.36), (0.3, 0.48), (0.42, 0.4), (0.42, 0.18)),
        outline=False,
    )


def draw_rug(pen: Pen, thing: dict, rng: random.Random) -> None:
    """A flat oval rug with a border, lying around its ground line."""
    color = hue(thing, "red")
    pen.paint(color, oval(0.0, 0.05, 2.5, 0.55))
    pale = lighter(color, 0.35) if min(color) < 225 else (222, 222, 230)
    pen.paint(pale, oval(0.0, 0.05, 2.15, 0.44), outline=False)
    pen.paint(color, oval(0.0, 0.05, 1.95, 0.38), outline=False)


def draw_fridge(pen: Pen, thing: dict, rng: random.Random) -> None:
    """Freezer above, fridge below, two handles."""
    color = hue(thing, "white")
    pen.shadow(0.56)
    pen.paint((70, 70, 80), box(-0.19, 0.0, 0.19, 0.05))
    pen.paint(color, box(-0.235, 0.025, 0.235, 1.0, 0.04))
    pen.paint(darker(color, 0.35), box(-0.23, 0.655, 0.23, 0.668), outline=False)
    pen.veil((255, 255, 255), 0.35, box(0.15, 0.06, 0.19, 0.62), box(0.15, 0.71, 0.19, 0.95))
    handle = contrast(color, (236, 238, 244), (130, 134, 146))
    pen.paint(
        handle, limb(0.028, (-0.165, 0.42), (-0.165, 0.60)), limb(0.028, (-0.165, 0.72), (-0.165, 0.84))
    )


def draw_clock(pen: Pen, thing: dict, rng: random.Random) -> None:
    """A wall clock; the rim has the colour."""
    rim = hue(thing, "red")
    pen.veil((40, 30, 40), 0.2, oval(0.03, 0.46, 0.5))
    pen.paint(rim, oval(0.0, 0.5, 0.5))
    pen.paint((252, 252, 248), oval(0.0, 0.5, 0.375))
    for x, y in arc(0.0, 0.5, 0.31, 0.31, 0, 330, 11):
        pen.paint((60, 60, 70), oval(x, y, 0.022), outline=False)
    hour, minute = (
        arc(0.0, 0.5, 0.17, 0.17, *(2 * [rng.randrange(0, 360, 30)]), 1)[0],
        arc(0.0, 0.5, 0.27, 0.27, *(2 * [rng.randrange(0, 360, 30)]), 1)[0],
    )
    pen.paint(
        (40, 40, 48),
        limb(0.05, (0.0, 0.5), hour),
        limb(0.035, (0.0, 0.5), minute),
        oval(0.0, 0.5, 0.04),
        outline=False,
    )


FURNITURE = {
    "sofa": draw_sofa,
    "chair": draw_chair,
    "table": draw_table,
    "lamp": draw_lamp,
    "tv": draw_tv,
    "plant": draw_plant,
    "picture": draw_picture,
    "rug": draw_rug,
    "fridge": draw_fridge,
    "clock": draw_clock,
}
