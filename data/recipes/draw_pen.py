"""The painter's tools: the palette, a handful of shapes, and a pen that puts them on the canvas.

A shape is a plain tuple made by `oval`, `poly`, `limb`, `box` or `smooth`. A pen has its own origin and unit,
so every thing can be drawn in its own coordinates (one unit = its height, x forward, y up) and comes out at
any size and place.
"""

import math
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

RGB = tuple[int, int, int]

# Hues far apart: each name must be recognised from a dozen pixels.
PALETTE: dict[str, RGB] = {
    "red": (218, 32, 40),
    "orange": (255, 136, 10),
    "yellow": (255, 220, 36),
    "green": (32, 150, 62),
    "blue": (28, 98, 220),
    "purple": (126, 52, 178),
    "pink": (255, 138, 190),
    "brown": (128, 76, 38),
    "black": (38, 38, 44),
    "white": (252, 252, 250),
    "gray": (146, 150, 156),
}
NIGHT: RGB = (22, 30, 78)


def rgb(color: str | RGB) -> RGB:
    """The RGB triple of a palette name (an RGB triple stays as it is)."""
    return PALETTE[color] if isinstance(color, str) else color


def mix(first: str | RGB, second: str | RGB, share: float) -> RGB:
    """`first` with `share` (0..1) of `second` mixed in."""
    a, b = rgb(first), rgb(second)
    return tuple(round(p + (q - p) * share) for p, q in zip(a, b, strict=True))


def darker(color: str | RGB, share: float = 0.2) -> RGB:
    """A shade of the same colour; black gets lighter instead, so that its details stay visible."""
    base = rgb(color)
    return mix(base, (0, 0, 0), share) if max(base) > 70 else mix(base, (150, 155, 175), share)


def lighter(color: str | RGB, share: float = 0.3) -> RGB:
    """A tint of the same colour."""
    return mix(color, (255, 255, 255), share)


def edge(color: str | RGB) -> RGB:
    """The outline of a filled shape: darker than the shape, lighter for black, mid gray for white."""
    base = rgb(color)
    if min(base) > 225:
        return (128, 134, 150)
    return darker(base, 0.45)


def oval(x: float, y: float, rx: float, ry: float | None = None, angle: float = 0.0) -> tuple:
    """An ellipse around (x, y) with radii rx, ry (a circle without ry), turned by `angle` degrees."""
    ry = rx if ry is None else ry
    if angle:
        return ("poly", turned_oval(x, y, rx, ry, angle))
    return ("oval", x, y, rx, ry)


def poly(*points: tuple[float, float]) -> tuple:
    """A polygon with straight edges."""
    return ("poly", points)


def limb(width: float, *points: tuple[float, float]) -> tuple:
    """A thick line with round joints and ends: arms, legs, poles, strings."""
    return ("limb", width, points)


def box(x0: float, y0: float, x1: float, y1: float, radius: float = 0.0) -> tuple:
    """An upright rectangle, its corners rounded by `radius`."""
    return ("box", x0, y0, x1, y1, radius)


@lru_cache(maxsize=512)
def smooth(*points: tuple[float, float]) -> tuple:
    """A closed soft shape through the points (Catmull-Rom spline)."""
    count, steps, curve = len(points), 6, []
    for i in range(count):
        (ax, ay), (bx, by), (cx, cy), (dx, dy) = (points[(i + k - 1) % count] for k in range(4))
        for step in range(steps):
            t = step / steps
            w0, w1 = t * (-0.5 + t * (1 - 0.5 * t)), 1 + t * t * (-2.5 + 1.5 * t)
            w2, w3 = t * (0.5 + t * (2 - 1.5 * t)), t * t * (-0.5 + 0.5 * t)
            curve.append((w0 * ax + w1 * bx + w2 * cx + w3 * dx, w0 * ay + w1 * by + w2 * cy + w3 * dy))
    return ("poly", tuple(curve))


@lru_cache(maxsize=512)
def arc(x: float, y: float, rx: float, ry: float, start: float, stop: float, steps: int = 12) -> tuple:
    """Points along an ellipse from angle `start` to `stop` in degrees (0 = forward, 90 = up)."""
    angles = [math.radians(start + (stop - start) * i / steps) for i in range(steps + 1)]
    return tuple((x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles)


@lru_cache(maxsize=512)
def turned_oval(x: float, y: float, rx: float, ry: float, angle: float) -> tuple:
    """Points of an ellipse that is turned by `angle` degrees."""
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return tuple((x + p * cos - q * sin, y + p * sin + q * cos) for p, q in arc(0, 0, rx, ry, 0, 345, 23))


def gradient(width: int, height: int, top: RGB, bottom: RGB) -> Image.Image:
    """A vertical colour gradient: one column of pixels, stretched sideways."""
    column = np.linspace(top, bottom, height).round().astype(np.uint8)[:, None]
    return Image.fromarray(column, "RGB").resize((width, height), Image.Resampling.NEAREST)


class Pen:
    """Draws shapes given in its own coordinates onto a shared canvas.

    `x`, `y`: the origin in pixels; `sx`, `sy`: pixels per unit along each axis (their signs mirror or flip).
    `night` mixes a little dark blue into every colour that is not `glow`ing.
    """

    def __init__(self, image: Image.Image, night: bool = False, place=(0.0, 0.0, 1.0, 1.0), canvas=None):
        self.image, self.night = image, night
        self.x, self.y, self.sx, self.sy = place
        self.solid, self.clear = canvas or (ImageDraw.Draw(image), ImageDraw.Draw(image, "RGBA"))
        self.line = max(1, round(image.width * 0.0032))

    def at(self, x: float, y: float, unit: float, facing: str = "right") -> "Pen":
        """A pen with its origin at (x, y) and a unit `unit` long, in coordinates of this one; y goes up."""
        forward = -1 if facing == "left" else 1
        place = (*self.pixel(x, y), forward * unit * self.sx, -unit * self.sy)
        return Pen(self.image, self.night, place, (self.solid, self.clear))

    def pixel(self, x: float, y: float) -> tuple[float, float]:
        """Where a point of this pen lies on the canvas, in pixels."""
        return self.x + x * self.sx, self.y + y * self.sy

    def paint(self, color: str | RGB, *shapes: tuple, outline: bool = True, glow: bool = False) -> None:
        """Fill the union of the shapes and draw one thin outline around it (none between its parts)."""
        base = rgb(color)
        line = edge(base)
        if self.night and not glow:
            base, line = mix(base, NIGHT, 0.09), mix(line, NIGHT, 0.09)
        if outline:
            for shape in shapes:
                self._stamp(self.solid, shape, line, self.line)
        for shape in shapes:
            self._stamp(self.solid, shape, base, 0)

    def veil(self, color: str | RGB, alpha: float, *shapes: tuple) -> None:
        """Fill shapes without outline, `alpha` (0..1) opaque: shadows, glow, glass."""
        ink = (*rgb(color), round(255 * alpha))
        for shape in shapes:
            self._stamp(self.clear, shape, ink, 0)

    def shadow(self, width: float, x: float = 0.0) -> None:
        """A soft patch of shade on the ground, `width` wide around `x`."""
        for scale, alpha in ((1.0, 0.10), (0.78, 0.12), (0.55, 0.12)):
            self.veil((20, 24, 40), alpha, oval(x, 0.0, width * scale / 2, width * scale * 0.11))

    def _stamp(self, canvas: ImageDraw.ImageDraw, shape: tuple, ink: tuple, grow: int) -> None:
        """Put one shape on the canvas, `grow` pixels fatter on every side."""
        kind = shape[0]
        if kind == "oval":
            self._stamp_oval(canvas, shape[1:], ink, grow)
        elif kind == "poly":
            points = [self.pixel(x, y) for x, y in shape[1]]
            canvas.polygon(points, fill=ink)
            if grow:
                self._stroke(canvas, [*points, points[0]], ink, 2 * grow + 1, dots=len(points) <= 10)
        elif kind == "limb":
            points = [self.pixel(x, y) for x, y in shape[2]]
            width = max(shape[1] * abs(self.sy), self.line) + 2 * grow
            self._stroke(canvas, points, ink, width, dots=True)
        else:
            self._stamp_box(canvas, shape[1:], ink, grow)

    def _stamp_oval(self, canvas, numbers, ink, grow) -> None:
        """An ellipse, given as (x, y, rx, ry)."""
        x, y = self.pixel(numbers[0], numbers[1])
        rx, ry = numbers[2] * abs(self.sx) + grow, numbers[3] * abs(self.sy) + grow
        canvas.ellipse((x - rx, y - ry, x + rx, y + ry), fill=ink)

    def _stamp_box(self, canvas, numbers, ink, grow) -> None:
        """A rectangle, given as (x0, y0, x1, y1, corner radius)."""
        (xa, ya), (xb, yb) = self.pixel(numbers[0], numbers[1]), self.pixel(numbers[2], numbers[3])
        corners = (min(xa, xb) - grow, min(ya, yb) - grow, max(xa, xb) + grow, max(ya, yb) + grow)
        radius = numbers[4] * abs(self.sy)
        if radius >= 1:
            canvas.rounded_rectangle(corners, radius + grow, fill=ink)
        else:
            canvas.rectangle(corners, fill=ink)

    def _stroke(self, canvas, points, ink, width, dots) -> None:
        """A line through pixels; `dots` rounds its ends and joints."""
        canvas.line(points, fill=ink, width=max(1, round(width)))
        radius = width / 2 - 0.5
        if dots and radius > 1:
            for x, y in points:
                canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=ink)
