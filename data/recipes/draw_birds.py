"""Birds and ducks, and what all animals share: their coats, their eyes and the "zz" of those asleep.

One unit is the animal's nominal height; x goes forward (where the animal faces), y goes up from its feet.
"""

import random

from draw_pen import RGB, Pen, arc, darker, lighter, limb, mix, oval, poly, rgb, smooth

DARK = (38, 32, 36)
BEAK = (255, 150, 30)
NATURAL = {
    "dog": "brown",
    "cat": "gray",
    "horse": "brown",
    "cow": "white",
    "sheep": "white",
    "bird": "blue",
    "duck": "yellow",
}


def coat(thing: dict) -> RGB:
    """The animal's colour, or its natural one."""
    return rgb(thing.get("color") or NATURAL[thing["kind"]])


def draw_eye(pen: Pen, x: float, y: float, r: float, asleep: bool, color: RGB) -> None:
    """An open eye with a glint, or a closed lid; on dark coats with a white ring."""
    dark_coat = sum(color) < 200
    if asleep:
        pen.paint(
            (210, 210, 220) if dark_coat else DARK,
            limb(r * 0.6, *arc(x, y + r * 0.5, r * 1.5, r * 1.3, 200, 340, 4)),
            outline=False,
        )
        return
    if dark_coat:
        pen.paint((245, 245, 245), oval(x, y, r * 1.4), outline=False)
    pen.paint(DARK, oval(x, y, r), outline=False)
    pen.paint((255, 255, 255), oval(x + r * 0.3, y + r * 0.35, r * 0.35), outline=False)


def draw_zz(pen: Pen, x: float, y: float) -> None:
    """The sleeper's "z z"."""
    for dx, dy, s in ((0.0, 0.0, 0.10), (0.17, 0.18, 0.14)):
        a, b = x + dx, y + dy
        strokes = limb(0.035, (a, b + s), (a + s, b + s), (a, b), (a + s, b))
        pen.paint((70, 84, 150), strokes, outline=False)
        if pen.night:
            pen.paint((214, 224, 255), strokes, outline=False)


def draw_bird(pen: Pen, thing: dict, rng: random.Random) -> None:
    """A small round songbird with a pointed beak and tail; flying it spreads its wings."""
    color, pose = coat(thing), thing.get("pose") or "standing"
    if pose == "flying" or (thing["row"] == "sky" and pose in ("standing", "running")):
        draw_flying_bird(pen, color)
        return
    lift = {"standing": 0.20, "running": 0.22}.get(pose, 0.0)
    pen.shadow(0.8)
    if lift:
        stride = 0.16 if pose == "running" else 0.05
        for way in (-1, 1):
            pen.paint(BEAK, limb(0.05, (0.0, 0.3), (way * stride, 0.03), (way * stride + 0.10, 0.03)))
    y = 0.36 + lift
    lean = 0.08 if pose == "running" else 0.0
    tail = poly((-0.26, y - 0.02), (-0.66, y + 0.10 - lean), (-0.60, y + 0.24 - lean), (-0.22, y + 0.16))
    asleep = pose == "sleeping"
    head = (0.20 + lean, y + (0.14 if asleep else 0.24))
    pen.paint(
        BEAK,
        poly(
            (head[0] + 0.18, head[1] + 0.08),
            (head[0] + 0.42, head[1] - 0.02),
            (head[0] + 0.17, head[1] - 0.08),
        ),
    )
    pen.paint(
        color,
        smooth(
            (-0.38, y + 0.10),
            (-0.1, y + 0.26),
            (0.22, y + 0.3),
            (0.40, y),
            (0.18, y - 0.32),
            (-0.16, y - 0.3),
        ),
        oval(*head, 0.23),
        tail,
    )
    pen.paint(
        mix(color, (255, 250, 235), 0.6),
        smooth((0.16, y - 0.08), (0.31, y - 0.03), (0.26, y - 0.22), (0.08, y - 0.27)),
        outline=False,
    )
    pen.paint(
        darker(color, 0.25), smooth((0.12, y + 0.12), (0.02, y - 0.14), (-0.40, y - 0.08), (-0.2, y + 0.14))
    )
    draw_eye(pen, head[0] + 0.07, head[1] + 0.05, 0.05, asleep, color)
    if asleep:
        draw_zz(pen, 0.40, 0.80)


def draw_flying_bird(pen: Pen, color: RGB) -> None:
    """A bird seen from the side with both wings up."""
    wing = darker(color, 0.22)
    pen.paint(wing, smooth((-0.02, 0.55), (0.10, 0.85), (0.12, 1.22), (-0.10, 1.05), (-0.24, 0.70)))
    pen.paint(BEAK, poly((0.46, 0.62), (0.70, 0.53), (0.46, 0.48)))
    tail = poly((-0.30, 0.52), (-0.72, 0.62), (-0.66, 0.40), (-0.28, 0.40))
    pen.paint(color, oval(0.0, 0.48, 0.40, 0.20), oval(0.34, 0.56, 0.18), tail)
    pen.paint(mix(color, (255, 250, 235), 0.6), oval(0.10, 0.36, 0.22, 0.07), outline=False)
    pen.paint(
        lighter(color, 0.12) if max(color) > 70 else darker(color, 0.3),
        smooth((0.16, 0.52), (-0.06, 0.85), (-0.46, 1.16), (-0.48, 0.86), (-0.22, 0.48)),
    )
    draw_eye(pen, 0.40, 0.60, 0.045, False, color)


def draw_duck(pen: Pen, thing: dict, rng: random.Random) -> None:
    """A duck: long body with an upturned tail, upright neck, broad flat bill, orange feet."""
    color, pose = coat(thing), thing.get("pose") or "standing"
    bill = BEAK if max(abs(p - q) for p, q in zip(color, BEAK, strict=True)) > 45 else (255, 208, 60)
    asleep, lift = pose == "sleeping", {"standing": 0.14, "running": 0.17}.get(pose, 0.0)
    pen.shadow(1.0)
    if lift:
        stride = 0.2 if pose == "running" else 0.06
        for way in (-1, 1):
            pen.paint(
                bill, limb(0.06, (-0.05, 0.25), (way * stride - 0.05, 0.04), (way * stride + 0.07, 0.04))
            )
    y = 0.25 + lift
    head = (0.16, y + 0.24) if asleep else (0.40 if pose == "running" else 0.32, y + 0.46)
    body = smooth(
        (-0.62, y + 0.26),
        (-0.38, y + 0.10),
        (0.1, y + 0.14),
        (0.42, y + 0.06),
        (0.38, y - 0.16),
        (0.05, y - 0.25),
        (-0.36, y - 0.16),
    )
    pen.paint(bill, limb(0.09, (head[0] + 0.14, head[1] - 0.03), (head[0] + 0.30, head[1] - 0.04)))
    pen.paint(color, body, limb(0.16, (0.28, y), head), oval(*head, 0.165, 0.155))
    pen.paint(
        darker(color, 0.2), smooth((0.14, y + 0.05), (-0.06, y - 0.13), (-0.42, y + 0.02), (-0.2, y + 0.10))
    )
    draw_eye(pen, head[0] + 0.06, head[1] + 0.04, 0.036, asleep, color)
    if asleep:
        draw_zz(pen, head[0] + 0.28, head[1] + 0.25)
