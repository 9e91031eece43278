"""Men, women, boys and girls: six poses and hats (what they hold is in draw_held).

One unit is the person's height; x goes forward (where the person faces), y goes up from the feet.
A man has a beard, broad shoulders and long trousers; a woman long hair and a long skirt; a boy bristly hair
and shorts; a girl pigtails and a short skirt. The colour called "pants" is that of trousers, shorts or skirt.
"""

import math
import random
from dataclasses import dataclass

from draw_held import draw_held, draw_held_behind
from draw_pen import RGB, Pen, arc, box, darker, limb, oval, poly, smooth

SKINS = ((255, 219, 188), (241, 194, 152), (205, 148, 104), (142, 92, 62))
HAIRS = ((74, 46, 30), (36, 30, 32), (150, 88, 40), (236, 190, 96), (110, 66, 40))
SHOES = (66, 52, 56)


@dataclass(frozen=True)
class Build:
    """Proportions, in units of the person's height."""

    head: float  # radius of the head
    hip: float  # height of the hips
    shoulder: float  # height of the shoulders
    broad: float  # half the width of the shoulders
    leg: float  # thickness of a leg
    skirt: float  # how far a skirt reaches below the hips (0: trousers)
    bare: bool  # bare lower legs


BUILDS = {
    "man": Build(head=0.115, hip=0.40, shoulder=0.70, broad=0.125, leg=0.088, skirt=0.0, bare=False),
    "woman": Build(head=0.115, hip=0.44, shoulder=0.70, broad=0.085, leg=0.062, skirt=0.26, bare=True),
    "boy": Build(head=0.155, hip=0.34, shoulder=0.62, broad=0.10, leg=0.082, skirt=0.0, bare=True),
    "girl": Build(head=0.155, hip=0.37, shoulder=0.62, broad=0.085, leg=0.07, skirt=0.17, bare=True),
}

# Per pose: lift off the ground, lean, then knee and foot of the back and of the front leg,
# each as (forward, share of the hip height).
LEGS = {
    "standing": (0.0, 0.0, ((-0.055, 0.5), (-0.06, 0.0)), ((0.055, 0.5), (0.06, 0.0))),
    "waving": (0.0, 0.0, ((-0.055, 0.5), (-0.06, 0.0)), ((0.055, 0.5), (0.06, 0.0))),
    "walking": (0.0, 0.01, ((-0.08, 0.5), (-0.19, 0.06)), ((0.09, 0.52), (0.17, 0.0))),
    "running": (0.03, 0.075, ((-0.10, 0.42), (-0.29, 0.38)), ((0.20, 0.72), (0.19, 0.14))),
    "jumping": (0.15, 0.0, ((-0.14, 0.62), (-0.20, 0.22)), ((0.14, 0.62), (0.20, 0.22))),
}


@dataclass(frozen=True)
class Body:
    """Where the joints of one posed person are."""

    hip: tuple[float, float]
    neck: tuple[float, float]
    head: tuple[float, float]
    legs: tuple[tuple, tuple]  # (hip, knee, foot), back leg first
    build: Build


def pose_body(build: Build, pose: str) -> Body:
    """Joints of the body in a pose."""
    if pose == "sitting":
        hip = (-0.14, 0.075)
        rise = build.shoulder - build.hip
        legs = (((-0.14, 0.075), (0.06, 0.27), (0.16, 0.03)), ((-0.12, 0.07), (0.11, 0.24), (0.23, 0.03)))
        neck = (hip[0] - 0.01, hip[1] + rise + 0.02)
        return Body(hip, neck, (neck[0] + 0.01, neck[1] + build.head * 1.12), legs, build)
    lift, lean, *bends = LEGS[pose]
    hip, neck = (0.0, build.hip + lift), (lean, build.shoulder + lift)
    legs = []
    for side, (knee, foot) in zip((-0.045, 0.045), bends, strict=True):
        points = [(x, share * build.hip + lift) for x, share in (knee, foot)]
        legs.append(((side, hip[1]), points[0], (points[1][0], max(points[1][1], 0.025))))
    return Body(hip, neck, (lean * 1.5, neck[1] + build.head * 1.12), tuple(legs), build)


def hands(body: Body, pose: str, holding: str | None) -> tuple[tuple, tuple]:
    """Elbow and hand of the back and of the front arm; the front arm holds whatever is held."""
    (x, y), broad = body.neck, body.build.broad
    back = ((x - broad - 0.05, y - 0.15), (x - broad - 0.06, y - 0.29))
    front = ((x + broad + 0.05, y - 0.15), (x + broad + 0.06, y - 0.29))
    if pose == "waving":
        back = ((x - broad - 0.10, y + 0.03), (x - broad - 0.13, y + 0.21))
    elif pose == "jumping":
        back, front = (
            ((x - broad - 0.11, y + 0.06), (x - broad - 0.16, y + 0.23)),
            ((x + broad + 0.11, y + 0.06), (x + broad + 0.16, y + 0.23)),
        )
    elif pose == "running":
        back, front = (
            ((x - broad - 0.12, y - 0.10), (x - broad - 0.10, y - 0.24)),
            ((x + broad + 0.03, y - 0.15), (x + broad + 0.14, y - 0.06)),
        )
    elif pose == "walking":
        back, front = (
            ((x - broad - 0.05, y - 0.14), (x - broad - 0.12, y - 0.25)),
            ((x + broad + 0.05, y - 0.14), (x + broad + 0.12, y - 0.24)),
        )
    elif pose == "sitting":
        back, front = (
            ((x - broad - 0.05, y - 0.13), (x - broad - 0.08, 0.04)),
            ((x + broad + 0.05, y - 0.12), (x + broad + 0.13, y - 0.16)),
        )
    if holding:
        reach = 0.13 if holding in ("balloon", "umbrella", "kite", "flag") else 0.11
        front = ((x + broad + 0.05, y - 0.13), (x + broad + reach, y - 0.06 if reach > 0.12 else y - 0.12))
    return back, front


def draw_person(pen: Pen, thing: dict, rng: random.Random) -> None:
    """A person of any kind; looks (skin, hair) come from `rng`, everything else from the thing."""
    kind, pose, held = thing["kind"], thing.get("pose") or "standing", thing.get("holding")
    brown_legs = BUILDS[kind].bare and thing["pants"] == "brown"  # keep skirt and legs apart
    skin = rng.choice(SKINS[:2] if brown_legs else SKINS)
    hair = rng.choice(HAIRS[:2] if skin in SKINS[2:] else HAIRS[:3] if kind == "man" else HAIRS)
    body = pose_body(BUILDS[kind], pose)
    back, front = hands(body, pose, held and held["kind"])
    pen.shadow(0.44 if pose in ("sitting", "running") else 0.28 if pose == "jumping" else 0.36)
    if held:
        draw_held_behind(pen, held, front[1], body.head[1] + body.build.head + 0.2)
    draw_back_hair(pen, kind, body.head, hair)
    draw_arm(pen, body, -1, back, thing["shirt"], skin)
    draw_legs(pen, body, thing["pants"], skin)
    draw_torso(pen, body, thing["shirt"], skin)
    if body.build.skirt:
        draw_skirt(pen, body, pose, thing["pants"])
    draw_head(pen, kind, body.head, skin, hair, thing.get("hat"))
    draw_arm(pen, body, 1, front, thing["shirt"], skin)
    if held:
        draw_held(pen, held, front[1])
        pen.paint(skin, oval(*front[1], 0.036))


def draw_arm(pen: Pen, body: Body, side: int, joints: tuple, shirt: str, skin: RGB) -> None:
    """A sleeve from shoulder to wrist, and the hand that sticks out of it."""
    shoulder = (body.neck[0] + side * (body.build.broad - 0.025), body.neck[1] - 0.045)
    elbow, hand = joints
    wrist = tuple(e + (h - e) * 0.62 for e, h in zip(elbow, hand, strict=True))
    pen.paint(skin, limb(0.05, elbow, hand), oval(*hand, 0.034))
    pen.paint(shirt if side > 0 else darker(shirt, 0.1), limb(0.068, shoulder, elbow, wrist))


def draw_legs(pen: Pen, body: Body, pants: str, skin: RGB) -> None:
    """Both legs with shoes, back leg first and a little darker."""
    build = body.build
    for leg, shade in zip(body.legs, (0.14, 0.0), strict=True):
        hip, knee, foot = leg
        length = math.dist(knee, foot)
        dx, dy = (foot[0] - knee[0]) / length, (foot[1] - knee[1]) / length  # along the shin
        ankle = (foot[0] - 0.03 * dx, foot[1] - 0.03 * dy)
        toe = (foot[0] - 0.055 * dy, max(foot[1] + 0.055 * dx, 0.028))  # at right angles to the shin
        pen.paint(SHOES, limb(0.056, foot, toe))
        if build.bare:
            pen.paint(darker(skin, shade * 0.7), limb(build.leg * 0.8, knee, ankle))
            pen.paint(darker(skin if build.skirt else pants, shade), limb(build.leg * 1.15, hip, knee))
        else:
            pen.paint(darker(pants, shade), limb(build.leg, hip, knee, ankle))


def draw_torso(pen: Pen, body: Body, shirt: str, skin: RGB) -> None:
    """Neck and shirt."""
    (hx, hy), (nx, ny), build = body.hip, body.neck, body.build
    waist = 0.10 if not build.skirt else 0.075
    pen.paint(skin, limb(0.075, (nx, ny - 0.02), body.head))
    shoulders = [
        (nx - build.broad, ny - 0.035),
        (nx - 0.05, ny + 0.012),
        (nx + 0.05, ny + 0.012),
        (nx + build.broad, ny - 0.035),
    ]
    pen.paint(shirt, poly(*shoulders, (hx + waist, hy - 0.02), (hx - waist, hy - 0.02)))


def draw_skirt(pen: Pen, body: Body, pose: str, color: str) -> None:
    """A flared skirt with a belt; it lies over the knees of those who sit."""
    (x, y), length = body.hip, body.build.skirt
    if pose == "sitting":
        knee = body.legs[1][1]
        lap = [
            (x - 0.10, 0.015),
            (x - 0.085, y + 0.05),
            (x + 0.06, y + 0.06),
            (knee[0] - 0.04, knee[1] + 0.06),
        ]
        pen.paint(
            color,
            poly(
                *lap,
                (knee[0] + 0.05, knee[1] - 0.02),
                (x + 0.22, 0.06 if length > 0.2 else 0.10),
                (x + 0.1, 0.015),
            ),
        )
        return
    sway = {"walking": 0.02, "running": -0.07}.get(pose, 0.0)
    flare = 0.075 + length * 0.42 + (0.03 if pose in ("running", "jumping") else 0.0)
    waist, hem = y + 0.045, y - length
    skirt = [
        (x - 0.075, waist),
        (x + 0.075, waist),
        (x + flare + sway, hem + 0.015),
        (x + flare * 0.4 + sway, hem - 0.012),
    ]
    pen.paint(color, poly(*skirt, (x - flare * 0.4 + sway, hem - 0.012), (x - flare + sway, hem + 0.015)))
    pen.paint(darker(color, 0.25), box(x - 0.075, waist - 0.018, x + 0.075, waist + 0.008), outline=False)


def draw_back_hair(pen: Pen, kind: str, head: tuple, hair: RGB) -> None:
    """Hair that hangs behind head and shoulders."""
    (x, y), r = head, BUILDS[kind].head
    if kind == "woman":
        fall = [
            (x - 0.4 * r, y + 1.1 * r),
            (x + 0.4 * r, y + 1.1 * r),
            (x + 1.22 * r, y + 0.3 * r),
            (x + 1.3 * r, y - 1.2 * r),
        ]
        fall += [
            (x + 1.25 * r, y - 2.3 * r),
            (x, y - 2.0 * r),
            (x - 1.25 * r, y - 2.3 * r),
            (x - 1.3 * r, y - 1.2 * r),
            (x - 1.22 * r, y + 0.3 * r),
        ]
        pen.paint(hair, smooth(*fall))
    elif kind == "girl":
        for side in (-1, 1):
            tail = [
                (x + side * 0.8 * r, y + 0.35 * r),
                (x + side * 1.45 * r, y + 0.45 * r),
                (x + side * 1.85 * r, y - 0.3 * r),
            ]
            pen.paint(
                hair, smooth(*tail, (x + side * 1.6 * r, y - 1.05 * r), (x + side * 1.2 * r, y - 0.4 * r))
            )


def draw_head(pen: Pen, kind: str, head: tuple, skin: RGB, hair: RGB, hat: str | None) -> None:
    """Head and ears, then beard, face, hair and hat."""
    (x, y), r = head, BUILDS[kind].head
    pen.paint(
        skin,
        oval(x, y, r),
        oval(x - 0.95 * r, y - 0.1 * r, 0.2 * r),
        oval(x + 0.95 * r, y - 0.1 * r, 0.2 * r),
    )
    if kind == "man":
        beard = arc(x, y, 1.04 * r, 1.06 * r, 188, 352, 12)
        pen.paint(
            hair,
            poly(
                *beard, (x + 0.72 * r, y - 0.3 * r), (x + 0.15 * r, y - 0.32 * r), (x - 0.5 * r, y - 0.3 * r)
            ),
        )
    draw_face(pen, x + 0.18 * r, y, r, bearded=kind == "man")
    draw_front_hair(pen, kind, x, y, r, hair)
    if hat:
        draw_hat(pen, kind, x, y, r, hat)


def draw_face(pen: Pen, x: float, y: float, r: float, bearded: bool) -> None:
    """Eyes, cheeks and a smile around the middle (x, y) of the face; `r` is the radius of the head."""
    for side in (-1, 1):
        pen.paint((44, 34, 40), oval(x + side * 0.36 * r, y + 0.08 * r, 0.125 * r, 0.15 * r), outline=False)
        pen.veil((240, 90, 100), 0.35, oval(x + side * 0.58 * r, y - 0.24 * r, 0.19 * r, 0.14 * r))
    if bearded:
        pen.paint(
            (250, 240, 236), poly(*arc(x, y - 0.45 * r, 0.28 * r, 0.24 * r, 180, 360, 8)), outline=False
        )
    else:
        pen.paint(
            (176, 52, 60),
            limb(0.09 * r, *arc(x, y - 0.28 * r, 0.32 * r, 0.26 * r, 205, 335, 6)),
            outline=False,
        )


def draw_front_hair(pen: Pen, kind: str, x: float, y: float, r: float, hair: RGB) -> None:
    """Hair on top of the head: combed, bristly, or parted."""
    top = arc(x, y, 1.08 * r, 1.1 * r, 10, 170, 14)
    if kind == "man":
        pen.paint(
            hair,
            poly(
                *top, (x - 0.75 * r, y + 0.38 * r), (x + 0.2 * r, y + 0.58 * r), (x + 0.8 * r, y + 0.45 * r)
            ),
        )
    elif kind == "boy":
        spikes = [
            (0.95, 0.25),
            (1.12, 0.75),
            (0.75, 0.85),
            (0.62, 1.28),
            (0.3, 1.08),
            (0.02, 1.42),
            (-0.25, 1.1),
        ]
        spikes += [
            (-0.62, 1.28),
            (-0.72, 0.9),
            (-1.14, 0.75),
            (-0.98, 0.2),
            (-0.6, 0.55),
            (-0.1, 0.5),
            (0.25, 0.66),
            (0.6, 0.5),
        ]
        pen.paint(hair, poly(*((x + p * r, y + q * r) for p, q in spikes)))
    else:
        parting = [
            (x - 0.98 * r, y - 0.1 * r),
            (x - 0.62 * r, y + 0.42 * r),
            (x + 0.1 * r, y + 0.72 * r),
            (x + 0.75 * r, y + 0.45 * r),
        ]
        pen.paint(hair, poly(*top, *parting, (x + 1.02 * r, y - 0.1 * r)))


def draw_hat(pen: Pen, kind: str, x: float, y: float, r: float, color: str) -> None:
    """A cap with a peak for men and boys, a wide-brimmed hat for women and girls."""
    brim = y + 0.5 * r
    if kind in ("man", "boy"):
        pen.paint(
            darker(color, 0.18),
            poly(
                (x + 0.2 * r, brim + 0.2 * r),
                (x + 1.7 * r, brim - 0.02 * r),
                (x + 1.62 * r, brim - 0.18 * r),
                (x + 0.2 * r, brim - 0.1 * r),
            ),
        )
        pen.paint(color, poly(*arc(x, brim - 0.06 * r, 1.14 * r, 0.98 * r, 0, 180, 14)))
        pen.paint(darker(color, 0.18), oval(x, brim + 0.92 * r, 0.13 * r, 0.09 * r))
    else:
        pen.paint(color, poly(*arc(x, brim, 0.86 * r, 1.02 * r, 0, 180, 14)))
        pen.paint(color, oval(x, brim, 1.62 * r, 0.27 * r))
        pen.paint(
            darker(color, 0.3),
            box(x - 0.84 * r, brim + 0.16 * r, x + 0.84 * r, brim + 0.38 * r, 0.05 * r),
            outline=False,
        )


PEOPLE = dict.fromkeys(BUILDS, draw_person)
