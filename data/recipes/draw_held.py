"""What people hold. The pen is that of the person (one unit: its height); `hand` is where the hand is."""

from draw_pen import Pen, arc, box, darker, limb, oval, poly


def draw_held_behind(pen: Pen, held: dict, hand: tuple, top: float) -> None:
    """What goes behind the person: strings, poles and what is on them; it reaches up to the height `top`."""
    (x, y), kind, color = hand, held["kind"], held["color"]
    if kind == "balloon":
        x, middle = x + 0.03, top - 0.11
        string = (226, 230, 240) if pen.night else (110, 112, 124)
        pen.paint(string, limb(0.009, hand, (x, y + 0.15), (x, middle - 0.1)), outline=False)
        knot = poly((x - 0.025, middle - 0.14), (x + 0.025, middle - 0.14), (x, middle - 0.105))
        pen.paint(color, oval(x, middle, 0.105, 0.125), knot)
        pen.veil((255, 255, 255), 0.55, oval(x - 0.04, middle + 0.05, 0.022, 0.036, -30))
    elif kind == "umbrella":
        draw_open_umbrella(pen, hand, top + 0.02, color)
    elif kind == "kite":
        string = (226, 230, 240) if pen.night else (110, 112, 124)
        pen.paint(string, limb(0.009, hand, (x + 0.03, top - 0.34)), outline=False)
        draw_small_kite(pen, x + 0.03, top - 0.17, color)
    elif kind == "flag":
        pen.paint((150, 112, 78), limb(0.022, (x, y - 0.14), (x, top)))
        cloth = [(0.0, 0.0), (0.10, 0.02), (0.21, -0.02), (0.205, -0.19), (0.10, -0.155), (0.0, -0.18)]
        pen.paint(color, poly(*((x + p, top - 0.01 + q) for p, q in cloth)))


def draw_open_umbrella(pen: Pen, hand: tuple, top: float, color: str) -> None:
    """An umbrella whose pole leans back, so that the canopy is above the head."""
    middle, half = hand[0] - 0.11, 0.275
    pen.paint((110, 84, 66), limb(0.022, (hand[0], hand[1] - 0.08), (middle + 0.02, top)))
    dome = arc(middle, top - 0.15, half, 0.19, 0, 180, 16)
    rim = [middle - half * (0.75 - 0.5 * i) for i in range(4)]
    scallops = [point for x in rim for point in arc(x, top - 0.15, half / 4, 0.03, 180, 0, 6)]
    pen.paint(color, poly(*dome, *scallops))
    for x in rim[:3]:
        seam = limb(0.008, (middle, top + 0.035), (x + half / 4, top - 0.14))
        pen.paint(darker(color, 0.3), seam, outline=False)


def draw_small_kite(pen: Pen, x: float, y: float, color: str) -> None:
    """A kite on a short string, its tail dangling."""
    pen.paint(
        darker(color, 0.2),
        limb(0.014, (x, y - 0.18), (x + 0.07, y - 0.24), (x + 0.03, y - 0.30), (x + 0.10, y - 0.36)),
        outline=False,
    )
    pen.paint(color, poly((x, y + 0.19), (x + 0.13, y + 0.03), (x, y - 0.18), (x - 0.13, y + 0.03)))
    pen.paint(
        darker(color, 0.35),
        limb(0.012, (x, y + 0.18), (x, y - 0.17)),
        limb(0.012, (x - 0.12, y + 0.03), (x + 0.12, y + 0.03)),
        outline=False,
    )


def draw_held(pen: Pen, held: dict, hand: tuple) -> None:
    """The held things that are in front of the hand."""
    (x, y), kind, color = hand, held["kind"], held["color"]
    if kind == "ball":
        pen.paint(color, oval(x + 0.03, y + 0.06, 0.095))
        pen.paint(
            darker(color, 0.3), limb(0.012, *arc(x + 0.03, y - 0.04, 0.1, 0.1, 40, 140, 6)), outline=False
        )
        pen.veil((255, 255, 255), 0.5, oval(x + 0.0, y + 0.1, 0.028, 0.02))
    elif kind == "book":
        pen.paint(
            (252, 250, 240),
            poly((x - 0.08, y + 0.0), (x + 0.11, y + 0.0), (x + 0.11, y + 0.175), (x - 0.08, y + 0.175)),
        )
        pen.paint(color, box(x - 0.10, y - 0.01, x + 0.09, y + 0.155, 0.012))
        pen.paint(darker(color, 0.3), box(x - 0.10, y - 0.01, x - 0.07, y + 0.155), outline=False)
    elif kind == "cup":
        pen.paint(darker(color, 0.1), oval(x + 0.085, y + 0.065, 0.042))
        pen.paint((255, 255, 255), oval(x + 0.085, y + 0.065, 0.02), outline=False)
        pen.paint(
            color,
            poly((x - 0.055, y + 0.13), (x + 0.085, y + 0.13), (x + 0.07, y - 0.005), (x - 0.04, y - 0.005)),
        )
        pen.paint((96, 60, 40), oval(x + 0.015, y + 0.13, 0.062, 0.016), outline=False)
    elif kind == "flower":
        pen.paint(
            (48, 140, 64),
            limb(0.02, (x, y - 0.08), (x, y + 0.14)),
            oval(x + 0.05, y + 0.04, 0.045, 0.02, 30),
            outline=False,
        )
        pen.paint(
            color,
            *(
                oval(x + p, y + 0.2 + q, 0.048)
                for p, q in ((0.062, 0.0), (0.02, 0.06), (-0.05, 0.037), (-0.05, -0.037), (0.02, -0.06))
            ),
        )
        pen.paint(
            (255, 206, 50) if color != "yellow" else (150, 90, 40), oval(x, y + 0.2, 0.034), outline=False
        )
