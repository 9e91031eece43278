"""Dogs, cats, horses, cows and sheep: one skeleton, five builds (birds and ducks are in draw_birds).

One unit is the animal's nominal height; x goes forward (where the animal faces), y goes up from its feet.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from draw_birds import DARK, coat, draw_bird, draw_duck, draw_eye, draw_zz
from draw_pen import RGB, Pen, arc, darker, limb, mix, oval, poly, smooth

CAT_SMILE = ((-0.055, -0.095), (-0.015, -0.125), (0.03, -0.095), (0.075, -0.125), (0.115, -0.095))


@dataclass(frozen=True)
class Build:
    """Proportions of a four-legged animal, in units of its height."""

    back: float  # height of the middle of the trunk when standing
    long: float  # half the length of the trunk
    thick: float  # half the thickness of the trunk
    leg: float  # thickness of a leg
    head: tuple[float, float]  # where the head is when standing
    face: Callable  # draws the head: (pen, x, y, color, asleep)
    tail: Callable  # draws the tail: (pen, x, y, color, pose)
    neck: float = 0.2  # thickness of the neck
    squats: bool = False  # sits on its haunches like a dog; the others lie with their head up


def draw_quadruped(pen: Pen, thing: dict, rng: random.Random) -> None:
    """A dog, cat, horse, cow or sheep in its pose."""
    build, pose, color = BUILDS[thing["kind"]], thing.get("pose") or "standing", coat(thing)
    if pose == "sleeping":
        draw_lying(pen, thing, build, color, asleep=True)
    elif pose == "sitting" and build.squats:
        draw_squatting(pen, build, color)
    elif pose == "sitting":
        draw_lying(pen, thing, build, color, asleep=False)
    else:
        draw_upright(pen, thing, build, color, pose == "running")


def draw_upright(pen: Pen, thing: dict, build: Build, color: RGB, runs: bool) -> None:
    """Standing on four straight legs, or running with legs stretched far to the front and back."""
    kind, long, lift = thing["kind"], build.long, 0.10 if runs else 0.0
    y = build.back + lift
    head = (build.head[0] + (0.06 if runs else 0.0), build.head[1] + lift * (0.4 if runs else 1.0))
    leg_color = sheep_skin(color) if kind == "sheep" else color
    far_legs, near_legs = upright_legs(build, y, runs)
    pen.shadow(2.5 * long * (0.9 if runs else 1.0))
    build.tail(pen, -long * 0.95, y + build.thick * 0.3, color, "running" if runs else "standing")
    pen.paint(darker(leg_color, 0.22), *far_legs)
    if kind == "sheep":
        pen.paint(leg_color, *near_legs)
        draw_fleece(pen, 0.0, y, long, build.thick, color)
    else:
        neck = limb(build.neck, (long * 0.66, y + build.thick * 0.15), head)
        pen.paint(color, trunk(0.0, y, long, build.thick), neck, *near_legs)
    if kind == "cow":
        draw_patches(pen, 0.0, y, color)
        pen.paint((255, 170, 180), oval(-long * 0.4, y - build.thick * 0.98, 0.10, 0.055))
    elif kind == "horse":
        draw_mane(pen, (long * 0.66, y + build.thick * 0.7), head, color)
    build.face(pen, *head, color, False)
    if runs:
        draw_wind(pen, -long - 0.32, y)


def upright_legs(build: Build, y: float, runs: bool) -> tuple[list, list]:
    """The two far and the two near legs; y is the height of the trunk."""
    top, reach, pairs = y - build.thick * 0.3, 0.30 if runs else 0.0, []
    for shift in (0.11, -0.04):
        pair = []
        for way in (-1, 1):
            x = way * build.long * 0.72
            rise = 0.0 if not runs else 0.14 if shift * way < 0 else 0.06
            foot = (x + shift + way * reach, 0.05 + rise)
            knee = (x + shift + way * reach * 0.62, (top + foot[1]) / 2 + (0.08 if runs else 0.0))
            pair.append(limb(build.leg, (x + shift * 0.6, top), knee, foot))
        pairs.append(pair)
    return pairs[0], pairs[1]


def trunk(x: float, y: float, long: float, thick: float) -> tuple:
    """The body seen from the side: chest a little deeper than the belly."""
    outline = [
        (-1.0, 0.35),
        (-0.55, 0.95),
        (0.2, 0.85),
        (0.8, 0.98),
        (1.05, 0.3),
        (0.85, -0.7),
        (0.2, -0.95),
        (-0.6, -0.82),
        (-1.02, -0.4),
    ]
    return smooth(*((x + p * long, y + q * thick) for p, q in outline))


def draw_lying(pen: Pen, thing: dict, build: Build, color: RGB, asleep: bool) -> None:
    """Lying on the ground: asleep with the head down and a "zz", or awake with the head up."""
    long, thick = build.long, build.thick * 1.02
    y = thick * 0.92
    sheep = thing["kind"] == "sheep"
    pen.shadow(2.7 * long)
    build.tail(pen, -long * 0.98, y * 0.8, color, "sleeping")
    head = (
        (long * 1.12, y * 0.72 + 0.02) if asleep else (build.head[0], build.head[1] - build.back + y + 0.03)
    )
    if sheep:
        draw_fleece(pen, 0.0, y, long, thick, color)
    else:
        neck = limb(build.neck, (long * 0.62, y), head)
        pen.paint(
            color, trunk(0.0, y, long, thick), oval(-long * 0.55, y * 0.8, thick * 0.95, thick * 0.82), neck
        )
        pen.paint(color, limb(build.leg, (long * 0.5, 0.07), (long * 1.05, 0.05)))
        pen.paint(color, limb(build.leg, (-long * 0.55, 0.07), (-long * 0.1, 0.05)))
    if thing["kind"] == "cow":
        draw_patches(pen, 0.0, y + 0.02, color)
    if thing["kind"] == "horse":
        draw_mane(pen, (long * 0.55, y + thick * 0.7), head, color)
    build.face(pen, *head, color, asleep)
    if asleep:
        draw_zz(pen, head[0] + 0.02, head[1] + 0.34)


def draw_squatting(pen: Pen, build: Build, color: RGB) -> None:
    """Sitting on the haunches, front legs straight, head high."""
    pen.shadow(0.9)
    build.tail(pen, -0.30, 0.10, color, "sitting")
    body = smooth(
        (-0.32, 0.06),
        (-0.36, 0.24),
        (-0.16, 0.52),
        (0.06, 0.72),
        (0.24, 0.66),
        (0.27, 0.40),
        (0.18, 0.16),
        (0.0, 0.03),
    )
    pen.paint(darker(color, 0.22), limb(build.leg, (0.10, 0.40), (0.14, 0.05), (0.19, 0.05)))
    pen.paint(
        color,
        body,
        limb(build.leg, (0.20, 0.45), (0.22, 0.05), (0.28, 0.05)),
        limb(build.leg, (-0.2, 0.06), (0.0, 0.05)),
    )
    pen.paint(darker(color, 0.22), limb(0.025, *arc(-0.16, 0.16, 0.16, 0.16, -20, 95, 6)), outline=False)
    build.face(pen, 0.20, 0.80, color, False)


def draw_wind(pen: Pen, x: float, y: float) -> None:
    """Short lines behind a running animal."""
    for dx, dy, length in ((0.0, 0.12, 0.16), (-0.06, -0.04, 0.2), (0.02, -0.2, 0.14)):
        pen.veil((255, 255, 255), 0.8, limb(0.03, (x + dx - length, y + dy), (x + dx, y + dy)))


def dog_face(pen: Pen, x: float, y: float, color: RGB, asleep: bool) -> None:
    """A muzzle, a hanging ear, and the tongue out while awake."""
    pen.paint(color, oval(x, y, 0.20, 0.19), limb(0.17, (x + 0.08, y - 0.05), (x + 0.24, y - 0.07)))
    pen.paint(
        darker(color, 0.38),
        smooth(
            (x - 0.10, y + 0.16),
            (x - 0.22, y + 0.04),
            (x - 0.21, y - 0.20),
            (x - 0.09, y - 0.20),
            (x - 0.02, y + 0.04),
        ),
    )
    pen.paint(DARK, oval(x + 0.31, y - 0.03, 0.055, 0.045))
    pen.paint(
        darker(color, 0.5),
        limb(0.02, (x + 0.30, y - 0.09), (x + 0.22, y - 0.13), (x + 0.15, y - 0.11)),
        outline=False,
    )
    draw_eye(pen, x + 0.09, y + 0.06, 0.034, asleep, color)
    if not asleep:
        pen.paint((240, 110, 130), oval(x + 0.20, y - 0.17, 0.04, 0.06))


def dog_tail(pen: Pen, x: float, y: float, color: RGB, pose: str) -> None:
    """A short tail, up when standing, stretched or resting otherwise."""
    if pose == "standing":
        pen.paint(color, limb(0.08, (x + 0.05, y - 0.02), (x - 0.10, y + 0.10), (x - 0.11, y + 0.27)))
    elif pose == "running":
        pen.paint(color, limb(0.08, (x + 0.05, y - 0.02), (x - 0.10, y + 0.06), (x - 0.25, y + 0.12)))
    else:
        pen.paint(color, limb(0.08, (x + 0.06, y * 0.6), (x - 0.08, 0.06), (x - 0.22, 0.09)))


def cat_face(pen: Pen, x: float, y: float, color: RGB, asleep: bool) -> None:
    """Pointed ears, whiskers and a smile, seen from the front."""
    for side in (-1, 1):
        pen.paint(
            color, poly((x + side * 0.23, y + 0.34), (x + side * 0.02, y + 0.18), (x + side * 0.22, y + 0.02))
        )
        pen.paint(
            (255, 170, 180),
            poly((x + side * 0.19, y + 0.26), (x + side * 0.09, y + 0.18), (x + side * 0.19, y + 0.10)),
            outline=False,
        )
    pen.paint(color, oval(x, y, 0.25, 0.21))
    for side in (-1, 1):
        if asleep or sum(color) < 200:
            draw_eye(pen, x + 0.03 + side * 0.10, y + 0.03, 0.034, asleep, color)
        else:
            pen.paint(DARK, oval(x + 0.03 + side * 0.10, y + 0.03, 0.032, 0.045), outline=False)
        whisker = [(x + 0.03 + side * 0.12, y - 0.07), (x + 0.03 + side * 0.31, y - 0.04)]
        pen.paint(darker(color, 0.5), limb(0.012, *whisker), outline=False)
        pen.paint(darker(color, 0.5), limb(0.012, whisker[0], (whisker[1][0], y - 0.12)), outline=False)
    pen.paint(
        (240, 110, 130),
        poly((x - 0.005, y - 0.035), (x + 0.065, y - 0.035), (x + 0.03, y - 0.075)),
        outline=False,
    )
    pen.paint(
        darker(color, 0.5),
        limb(0.018, *((x + p, y + q) for p, q in CAT_SMILE)),
        outline=False,
    )


def cat_tail(pen: Pen, x: float, y: float, color: RGB, pose: str) -> None:
    """A long tail: a question mark when standing, curled up when at rest."""
    if pose == "standing":
        pen.paint(
            color,
            limb(
                0.075,
                (x + 0.05, y - 0.02),
                (x - 0.06, y + 0.06),
                (x - 0.10, y + 0.24),
                (x - 0.02, y + 0.42),
                (x - 0.10, y + 0.48),
            ),
        )
    elif pose == "running":
        pen.paint(
            color,
            limb(
                0.075, (x + 0.05, y - 0.02), (x - 0.12, y + 0.05), (x - 0.26, y + 0.02), (x - 0.36, y + 0.10)
            ),
        )
    else:
        pen.paint(color, limb(0.075, (x + 0.08, 0.07), (x - 0.08, 0.06), (x - 0.17, 0.14), (x - 0.13, 0.26)))


def horse_face(pen: Pen, x: float, y: float, color: RGB, asleep: bool) -> None:
    """A long face with one pointed ear."""
    pen.paint(color, poly((x - 0.10, y + 0.08), (x - 0.05, y + 0.20), (x + 0.0, y + 0.09)))
    pen.paint(color, limb(0.16, (x - 0.02, y + 0.02), (x + 0.14, y - 0.12)), oval(x - 0.02, y + 0.02, 0.095))
    pen.paint(mix(color, (255, 220, 200), 0.35), oval(x + 0.16, y - 0.13, 0.07, 0.062))
    pen.paint(DARK, oval(x + 0.19, y - 0.11, 0.014), outline=False)
    draw_eye(pen, x + 0.02, y + 0.035, 0.022, asleep, color)


def draw_mane(pen: Pen, withers: tuple, head: tuple, color: RGB) -> None:
    """The mane along the neck, from the withers to between the ears."""
    (ax, ay), (bx, by) = withers, head
    hair = darker(color, 0.45)
    along = [(ax + (bx - ax) * k, ay + (by - ay) * k) for k in (0.0, 0.25, 0.5, 0.75, 1.0)]
    pen.paint(
        hair,
        *(oval(x - 0.085, y + 0.045, 0.065, 0.075) for x, y in along),
        oval(bx - 0.01, by + 0.12, 0.05, 0.04),
    )


def horse_tail(pen: Pen, x: float, y: float, color: RGB, pose: str) -> None:
    """A bushy tail in the mane's colour; it streams when running."""
    hair = darker(color, 0.45)
    if pose == "running":
        pen.paint(
            hair,
            smooth(
                (x + 0.06, y + 0.02),
                (x - 0.10, y + 0.08),
                (x - 0.30, y + 0.02),
                (x - 0.22, y - 0.06),
                (x - 0.05, y - 0.06),
            ),
        )
    else:
        low = max(y - 0.40, 0.02)
        pen.paint(
            hair,
            smooth(
                (x + 0.06, y + 0.03),
                (x - 0.07, y),
                (x - 0.12, low + 0.06),
                (x - 0.05, low),
                (x + 0.01, y - 0.12),
            ),
        )


def cow_face(pen: Pen, x: float, y: float, color: RGB, asleep: bool) -> None:
    """Horns, ears and a broad pink muzzle, seen from the front."""
    for side in (-1, 1):
        pen.paint(
            (246, 226, 180),
            limb(0.05, (x + side * 0.09, y + 0.13), (x + side * 0.17, y + 0.20), (x + side * 0.15, y + 0.28)),
        )
        pen.paint(darker(color, 0.3), oval(x + side * 0.21, y + 0.08, 0.09, 0.05, side * 20))
    pen.paint(
        color,
        smooth(
            (x - 0.14, y + 0.16),
            (x + 0.14, y + 0.16),
            (x + 0.15, y - 0.05),
            (x + 0.10, y - 0.18),
            (x - 0.10, y - 0.18),
            (x - 0.15, y - 0.05),
        ),
    )
    pen.paint((255, 178, 186), oval(x + 0.01, y - 0.13, 0.145, 0.09))
    for side in (-1, 1):
        pen.paint((170, 80, 96), oval(x + 0.01 + side * 0.055, y - 0.12, 0.02, 0.026), outline=False)
        draw_eye(pen, x + 0.01 + side * 0.07, y + 0.06, 0.026, asleep, color)


def draw_patches(pen: Pen, x: float, y: float, color: RGB) -> None:
    """The cow's patches: a shade of its own colour, gray on white."""
    shade = (120, 116, 120) if min(color) > 225 else darker(color, 0.28)
    for p, q, rx, ry in ((-0.30, 0.06, 0.13, 0.12), (0.10, 0.13, 0.14, 0.08), (0.02, -0.12, 0.08, 0.06)):
        pen.paint(
            shade,
            smooth(
                (x + p - rx, y + q),
                (x + p - rx * 0.3, y + q + ry),
                (x + p + rx, y + q + ry * 0.5),
                (x + p + rx * 0.7, y + q - ry),
                (x + p - rx * 0.4, y + q - ry * 0.7),
            ),
            outline=False,
        )


def cow_tail(pen: Pen, x: float, y: float, color: RGB, pose: str) -> None:
    """A thin tail with a tassel."""
    tip = (x - 0.20, y + 0.05) if pose == "running" else (x - 0.06, max(y - 0.34, 0.06))
    pen.paint(color, limb(0.035, (x + 0.05, y), (x - 0.07, y - 0.04), tip))
    pen.paint(darker(color, 0.5), oval(tip[0], tip[1] - 0.01, 0.04, 0.06))


def draw_fleece(pen: Pen, x: float, y: float, long: float, thick: float, color: RGB) -> None:
    """A woolly, scalloped body."""
    puffs = [oval(px, py, 0.15) for px, py in arc(x, y, long * 0.80, thick * 0.66, 0, 330, 11)]
    pen.paint(color, *puffs, oval(x, y, long * 0.8, thick * 0.8))
    for px, py in ((-0.25, 0.08), (0.02, 0.15), (0.24, 0.02), (-0.08, -0.10), (-0.34, -0.10), (0.16, -0.16)):
        pen.paint(
            darker(color, 0.18), limb(0.022, *arc(x + px, y + py, 0.075, 0.06, 200, 350, 5)), outline=False
        )


def sheep_skin(color: RGB) -> RGB:
    """Face and legs of a sheep: dark, but gray on a black one."""
    return mix(color, DARK, 0.75) if max(color) > 70 else (120, 118, 124)


def sheep_face(pen: Pen, x: float, y: float, color: RGB, asleep: bool) -> None:
    """A dark face with ears to the sides and a woolly tuft."""
    face = sheep_skin(color)
    for side in (-1, 1):
        pen.paint(face, oval(x + side * 0.16, y + 0.06, 0.09, 0.045, -side * 25))
    pen.paint(face, oval(x + 0.01, y - 0.03, 0.13, 0.18))
    pen.paint(
        color, oval(x - 0.06, y + 0.13, 0.075), oval(x + 0.05, y + 0.15, 0.075), oval(x + 0.0, y + 0.19, 0.07)
    )
    for side in (-1, 1):
        if asleep:
            draw_eye(pen, x + 0.02 + side * 0.055, y, 0.026, True, DARK)
        else:
            pen.paint((255, 255, 255), oval(x + 0.02 + side * 0.055, y, 0.036), outline=False)
            pen.paint(DARK, oval(x + 0.03 + side * 0.055, y - 0.004, 0.020), outline=False)


def sheep_tail(pen: Pen, x: float, y: float, color: RGB, pose: str) -> None:
    """A tuft of wool."""
    pen.paint(color, oval(x - 0.04, y, 0.09, 0.075))


BUILDS = {
    "dog": Build(0.44, 0.36, 0.17, 0.12, (0.42, 0.74), dog_face, dog_tail, neck=0.22, squats=True),
    "cat": Build(0.40, 0.32, 0.15, 0.10, (0.36, 0.66), cat_face, cat_tail, neck=0.18, squats=True),
    "horse": Build(0.52, 0.32, 0.145, 0.085, (0.40, 0.86), horse_face, horse_tail, neck=0.17),
    "cow": Build(0.52, 0.42, 0.22, 0.11, (0.50, 0.70), cow_face, cow_tail, neck=0.22),
    "sheep": Build(0.52, 0.42, 0.27, 0.095, (0.46, 0.68), sheep_face, sheep_tail),
}


ANIMALS = {**dict.fromkeys(BUILDS, draw_quadruped), "bird": draw_bird, "duck": draw_duck}
