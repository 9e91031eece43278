"""Buildings, vehicles, boats and benches. Conventions as in draw_things: one unit is the thing's height."""

import random

from draw_pen import Pen, arc, box, darker, lighter, limb, oval, poly, smooth
from draw_things import METAL, WOOD, contrast, hue

GLASS = (176, 222, 244)
LIT = (255, 226, 130)
TYRE = (46, 46, 54)


def draw_house(pen: Pen, thing: dict, rng: random.Random) -> None:
    """Walls in the house's colour, a gray-brown roof, door and windows (lit at night)."""
    color = hue(thing, "yellow")
    roof = (122, 96, 98) if thing.get("color") not in ("brown", "gray") else (92, 82, 96)
    pen.shadow(1.05)
    pen.paint((150, 128, 124), box(0.2, 0.72, 0.31, 1.0))
    pen.paint(color, box(-0.41, 0.0, 0.41, 0.60), poly((-0.41, 0.58), (0.41, 0.58), (0.0, 0.9)))
    pen.paint(roof, poly((-0.5, 0.55), (-0.44, 0.50), (0.0, 0.86), (0.44, 0.50), (0.5, 0.55), (0.0, 0.97)))
    pen.paint(contrast(color, (120, 78, 52), (120, 78, 52)), box(-0.085, 0.0, 0.085, 0.31, 0.03))
    pen.paint((250, 220, 120), oval(0.05, 0.15, 0.015), outline=False)
    for x in (-0.25, 0.25):
        draw_pane(pen, x, 0.33, 0.085, 0.1)
    pen.paint(LIT if pen.night else GLASS, oval(0.0, 0.66, 0.07), glow=pen.night)


def draw_pane(pen: Pen, x: float, y: float, half: float, rise: float) -> None:
    """A window with a white cross, lit at night."""
    pen.paint((252, 252, 252), box(x - half - 0.015, y - rise - 0.015, x + half + 0.015, y + rise + 0.015))
    pen.paint(
        LIT if pen.night else GLASS,
        box(x - half, y - rise, x + half, y + rise),
        outline=False,
        glow=pen.night,
    )
    pen.paint(
        (252, 252, 252),
        box(x - 0.01, y - rise, x + 0.01, y + rise),
        box(x - half, y - 0.01, x + half, y + 0.01),
        outline=False,
    )


def draw_barn(pen: Pen, thing: dict, rng: random.Random) -> None:
    """A gambrel roof, planks and a big crossed door."""
    color = hue(thing, "red")
    trim, dark = contrast(color), darker(color, 0.18)
    pen.shadow(1.12)
    wall = [(-0.42, 0.0), (0.42, 0.0), (0.42, 0.54), (0.29, 0.80), (0.0, 0.94), (-0.29, 0.80), (-0.42, 0.54)]
    pen.paint(color, poly(*wall))
    for i in range(-3, 4):
        pen.paint(dark, limb(0.008, (i * 0.11, 0.01), (i * 0.11, 0.56)), outline=False)
    pen.paint(
        (108, 100, 112), limb(0.07, (-0.46, 0.52), (-0.31, 0.82), (0.0, 0.96), (0.31, 0.82), (0.46, 0.52))
    )
    pen.paint(trim, box(-0.2, 0.0, 0.2, 0.42))
    pen.paint(color, box(-0.17, 0.0, 0.17, 0.39), outline=False)
    pen.paint(
        trim,
        limb(0.028, (-0.17, 0.01), (0.17, 0.38)),
        limb(0.028, (0.17, 0.01), (-0.17, 0.38)),
        outline=False,
    )
    draw_pane(pen, 0.0, 0.66, 0.075, 0.075)


def draw_tent(pen: Pen, thing: dict, rng: random.Random) -> None:
    """A ridge tent with an open flap, lit at night."""
    color = hue(thing, "orange")
    pen.shadow(1.3)
    pen.paint(darker(color, 0.12), poly((0.12, 0.95), (0.60, 0.0), (-0.30, 0.0), (-0.12, 0.95)))
    pen.paint(color, poly((-0.12, 0.95), (0.34, 0.0), (-0.58, 0.0)))
    pen.paint(
        LIT if pen.night else (74, 64, 74), poly((-0.12, 0.72), (0.06, 0.0), (-0.30, 0.0)), glow=pen.night
    )
    pen.paint(lighter(color, 0.25), poly((-0.12, 0.72), (0.06, 0.0), (0.15, 0.0)), outline=False)
    pen.paint(WOOD, limb(0.025, (-0.12, 0.94), (-0.12, 1.0)))
    for x, way in ((-0.58, -1), (0.60, 1)):
        pen.paint((120, 110, 104), limb(0.012, (x - way * 0.1, 0.2), (x + way * 0.05, 0.0)), outline=False)


def draw_wheel(pen: Pen, x: float, y: float, r: float) -> None:
    """A tyre with its hub."""
    pen.paint(TYRE, oval(x, y, r))
    pen.paint((206, 210, 218), oval(x, y, r * 0.52), outline=False)
    pen.paint((120, 124, 134), oval(x, y, r * 0.18), outline=False)


def draw_car(pen: Pen, thing: dict, rng: random.Random) -> None:
    """A small car seen from the side; head lights and windows shine at night."""
    color = hue(thing, "red")
    pen.shadow(2.0)
    if pen.night:
        pen.veil((255, 244, 170), 0.35, poly((0.93, 0.42), (1.5, 0.5), (1.5, 0.08)))
    cabin = smooth((-0.66, 0.50), (-0.52, 0.86), (-0.2, 0.98), (0.2, 0.95), (0.42, 0.74), (0.58, 0.50))
    hull = smooth(
        (-0.97, 0.36),
        (-0.9, 0.58),
        (-0.5, 0.62),
        (0.4, 0.60),
        (0.86, 0.54),
        (0.98, 0.36),
        (0.94, 0.2),
        (0.5, 0.16),
        (-0.5, 0.16),
        (-0.93, 0.2),
    )
    pen.paint(color, cabin, hull)
    pane = LIT if pen.night else GLASS
    pen.paint(
        pane, poly((-0.50, 0.60), (-0.41, 0.82), (-0.2, 0.89), (-0.08, 0.89), (-0.08, 0.60)), glow=pen.night
    )
    pen.paint(
        pane, poly((0.02, 0.60), (0.02, 0.89), (0.17, 0.87), (0.33, 0.74), (0.42, 0.60)), glow=pen.night
    )
    pen.paint(
        darker(color, 0.35),
        limb(0.02, (-0.03, 0.58), (-0.03, 0.24)),
        limb(0.03, (0.05, 0.50), (0.14, 0.50)),
        outline=False,
    )
    pen.paint((255, 240, 150), oval(0.90, 0.42, 0.06, 0.07), glow=True)
    pen.paint((200, 40, 50), box(-0.96, 0.40, -0.89, 0.50), outline=False)
    for x in (-0.55, 0.55):
        draw_wheel(pen, x, 0.185, 0.185)


def draw_bus(pen: Pen, thing: dict, rng: random.Random) -> None:
    """A long bus with a row of windows and its door at the front."""
    color = hue(thing, "yellow")
    pen.shadow(1.8)
    pen.paint(color, box(-0.87, 0.12, 0.87, 0.97, 0.1))
    pane = LIT if pen.night else GLASS
    for i in range(5):
        x = -0.78 + 0.27 * i
        pen.paint(pane, box(x, 0.52, x + 0.22, 0.82, 0.03), glow=pen.night)
    pen.paint(pane, box(0.59, 0.18, 0.80, 0.82, 0.03), glow=pen.night)
    pen.paint(darker(color, 0.35), limb(0.015, (0.695, 0.19), (0.695, 0.81)), outline=False)
    pen.paint(darker(color, 0.28), box(-0.86, 0.36, 0.55, 0.42), outline=False)
    pen.paint((255, 240, 150), oval(0.85, 0.26, 0.03, 0.05), glow=True)
    for x in (-0.5, 0.38):
        draw_wheel(pen, x, 0.14, 0.14)


def draw_bicycle(pen: Pen, thing: dict, rng: random.Random) -> None:
    """Two spoked wheels, a coloured frame, saddle and handlebar."""
    color = hue(thing, "blue")
    pen.shadow(1.35)
    for x in (-0.40, 0.40):
        pen.paint(
            (238, 240, 244) if pen.night else TYRE,
            *(limb(0.045, *arc(x, 0.28, 0.255, 0.255, 0, 360, 24)),),
            outline=False,
        )
        for spoke in (0, 60, 120):
            pen.paint(METAL, limb(0.01, *arc(x, 0.28, 0.24, 0.24, spoke, spoke + 180, 1)), outline=False)
    frame = [(-0.40, 0.28), (-0.20, 0.62), (0.25, 0.62), (-0.05, 0.28), (-0.40, 0.28)]
    pen.paint(
        color,
        limb(0.07, *frame),
        limb(0.07, (-0.05, 0.28), (-0.20, 0.62)),
        limb(0.07, (0.40, 0.28), (0.22, 0.78)),
    )
    pen.paint(
        TYRE,
        limb(0.06, (-0.23, 0.62), (-0.25, 0.76)),
        limb(0.09, (-0.36, 0.79), (-0.16, 0.79)),
        limb(0.06, (0.22, 0.78), (0.20, 0.90), (0.34, 0.92)),
    )
    pen.paint(
        TYRE, oval(-0.05, 0.28, 0.06), limb(0.04, (-0.05, 0.28), (0.02, 0.14), (0.09, 0.14)), outline=False
    )


def draw_boat(pen: Pen, thing: dict, rng: random.Random) -> None:
    """A sailing boat: hull and stripe in its colour, white sails."""
    color = hue(thing, "red")
    pen.veil((20, 40, 80), 0.18, oval(0.0, 0.03, 0.56, 0.055))
    pen.paint(WOOD, limb(0.035, (0.02, 0.25), (0.02, 1.0)))
    pen.paint((252, 250, 244), smooth((0.06, 0.94), (0.30, 0.66), (0.45, 0.36), (0.06, 0.34), (0.05, 0.6)))
    pen.paint((240, 240, 238), poly((-0.03, 0.88), (-0.34, 0.36), (-0.03, 0.34)))
    pen.paint(color, poly((0.02, 1.0), (0.02, 0.92), (-0.14, 0.96)))
    pen.paint(
        color, smooth((-0.56, 0.30), (0.0, 0.27), (0.58, 0.33), (0.40, 0.07), (0.0, 0.02), (-0.40, 0.06))
    )
    pen.paint(contrast(color), limb(0.03, (-0.44, 0.20), (0.0, 0.175), (0.45, 0.21)), outline=False)
    for x in (-0.42, -0.05, 0.32):
        pen.veil((255, 255, 255), 0.8, limb(0.022, *arc(x, 0.03, 0.12, 0.03, 180, 360, 6)))


def draw_bench(pen: Pen, thing: dict, rng: random.Random) -> None:
    """Coloured planks on iron legs."""
    color = hue(thing, "brown")
    pen.shadow(1.75)
    iron = (74, 78, 88)
    for x in (-0.62, 0.62):
        pen.paint(
            iron, limb(0.07, (x, 0.03), (x, 0.46), (x * 1.06, 0.97)), limb(0.06, (x, 0.46), (x * 0.92, 0.03))
        )
    for y in (0.62, 0.82):
        pen.paint(color, box(-0.82, y, 0.82, y + 0.14, 0.03))
    pen.paint(color, box(-0.84, 0.38, 0.84, 0.53, 0.04))
    pen.paint(darker(color, 0.3), box(-0.80, 0.385, 0.80, 0.42), outline=False)


TOWN = {
    "house": draw_house,
    "barn": draw_barn,
    "tent": draw_tent,
    "car": draw_car,
    "bus": draw_bus,
    "bicycle": draw_bicycle,
    "boat": draw_boat,
    "bench": draw_bench,
}
