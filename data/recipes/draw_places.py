"""Where a scene happens: sky and weather, land, water and street (the two rooms are in draw_rooms).

Everything here uses a pen over the whole image (x to the right, y down, both 0..1) and paints behind
the things; only `paint_weather` comes last, because rain and snow fall in front of them.
"""

import math
import random
from collections.abc import Callable
from functools import cache

from draw_pen import RGB, Pen, arc, box, limb, mix, oval, poly, smooth
from draw_rooms import ROOMS, fill_gradient, scenery

HORIZON = 0.58
WATER = (0.42, 0.61)

# (top, bottom) of the sky, by weather, by day and by night.
SKY: dict[str, dict[str, tuple[RGB, RGB]]] = {
    "day": {
        "sunny": ((104, 194, 246), (228, 246, 253)),
        "clear": ((104, 194, 246), (228, 246, 253)),
        "cloudy": ((172, 182, 194), (220, 224, 229)),
        "rainy": ((104, 117, 137), (172, 182, 194)),
        "snowy": ((136, 156, 188), (200, 212, 228)),
    },
    "night": {
        "sunny": ((14, 20, 66), (66, 84, 150)),
        "clear": ((14, 20, 66), (66, 84, 150)),
        "cloudy": ((32, 37, 66), (78, 84, 116)),
        "rainy": ((20, 25, 48), (58, 66, 96)),
        "snowy": ((34, 43, 88), (98, 110, 156)),
    },
}
CLOUD = {
    "sunny": (255, 255, 255),
    "clear": (255, 255, 255),
    "cloudy": (146, 154, 166),
    "rainy": (86, 95, 112),
    "snowy": (226, 232, 240),
}
Tone = Callable[[RGB], RGB]


def paint_place(pen: Pen, scene: dict) -> None:
    """Paint the whole background of a scene; raises ValueError for an unknown setting, weather or time."""
    setting, rng = scene["setting"], random.Random(scene["seed"])
    if setting in ROOMS:
        ROOMS[setting](pen, scene, rng)
        return
    if setting not in LANDS:
        raise ValueError(
            f"draw.py cannot draw the setting {setting!r}; it knows {', '.join([*LANDS, *ROOMS])}"
        )
    if scene["weather"] not in SKY.get(scene["time"], {}):
        raise ValueError(f"draw.py cannot draw a {scene['weather']!r} {scene['time']!r} in the {setting}")
    paint_sky(pen, scene, rng)
    LANDS[setting](pen, scenery_tone(scene), rng)
    if scene["weather"] == "rainy":
        paint_puddles(pen, rng)


def scenery_tone(scene: dict) -> Tone:
    """How weather and night change the colours of the scenery (things keep their own colours)."""
    veils = {
        "cloudy": ((150, 156, 164), 0.12),
        "rainy": ((104, 114, 130), 0.25),
        "snowy": ((244, 248, 253), 0.32),
    }
    veil, share = veils.get(scene["weather"], ((0, 0, 0), 0.0))
    dim = (0.43, 0.44, 0.58) if scene["time"] == "night" else (1.0, 1.0, 1.0)  # moonlight is blue

    @cache
    def tone(color: RGB) -> RGB:
        """The colour as it looks in this weather and light."""
        return tuple(round(value * light) for value, light in zip(mix(color, veil, share), dim, strict=True))

    return tone


# ---------------------------------------------------------------- sky and weather


def paint_sky(pen: Pen, scene: dict, rng: random.Random) -> None:
    """Sky with sun and rays, or moon and stars, and the clouds that belong to the weather."""
    weather, time = scene["weather"], scene["time"]
    fill_gradient(pen, 0.0, HORIZON + 0.05, *SKY[time][weather])
    taken = [thing["x"] for thing in scene["things"] if thing["row"] == "sky"]
    x = max((0.13, 0.87), key=lambda place: (min([abs(place - t) for t in taken], default=0), rng.random()))
    if time == "night":
        paint_stars(pen, rng, 44 if weather in ("sunny", "clear") else 16)
    elif weather in ("sunny", "clear"):
        paint_sun(pen, x, 0.14)
    paint_clouds(pen, weather, time, rng, away_from=x)
    if time == "night":
        paint_moon(pen, x, 0.14)  # in front of the clouds: it is what says "night"


def paint_sun(pen: Pen, x: float, y: float) -> None:
    """A golden sun with twelve rays and a halo."""
    for radius, alpha in ((0.19, 0.16), (0.145, 0.22)):
        pen.veil((255, 244, 170), alpha, oval(x, y, radius))
    for i in range(12):
        angle = math.radians(30 * i + 8)
        side, far = 0.16, 0.128 if i % 2 else 0.112
        ray = [(angle - side, 0.083), (angle, far), (angle + side, 0.083)]
        scenery(pen, (255, 190, 20), poly(*((x + r * math.cos(a), y + r * math.sin(a)) for a, r in ray)))
    scenery(pen, (255, 190, 20), oval(x, y, 0.072))
    scenery(pen, (255, 222, 60), oval(x, y, 0.063))


def paint_moon(pen: Pen, x: float, y: float) -> None:
    """A crescent: the outer circle, minus one that is shifted towards the upper right."""
    pen.veil((236, 240, 255), 0.12, oval(x, y, 0.12))
    tilt, shift = -30, 0.035
    cut = (x + shift * math.cos(math.radians(tilt)), y + shift * math.sin(math.radians(tilt)))
    outer = arc(x, y, 0.07, 0.07, 59 + tilt, 301 + tilt, 24)
    scenery(pen, (255, 244, 190), poly(*outer, *arc(*cut, 0.06, 0.06, 271 + tilt, 89 + tilt, 18)))


def paint_stars(pen: Pen, rng: random.Random, count: int) -> None:
    """Dots, and every fifth a four-pointed star."""
    for i in range(count):
        x, y, r = rng.random(), rng.uniform(0.01, 0.44), rng.uniform(0.003, 0.006)
        if i % 5 == 0:
            r *= 2.2
            star = [
                (0, -r),
                (r / 4, -r / 4),
                (r, 0),
                (r / 4, r / 4),
                (0, r),
                (-r / 4, r / 4),
                (-r, 0),
                (-r / 4, -r / 4),
            ]
            scenery(pen, (255, 250, 214), poly(*((x + p, y + q) for p, q in star)))
        else:
            scenery(pen, (236, 240, 255), oval(x, y, r * 0.7))


def paint_clouds(pen: Pen, weather: str, time: str, rng: random.Random, away_from: float) -> None:
    """A few white clouds on a clear day, a gray blanket otherwise."""
    if weather in ("sunny", "clear"):
        places = [(1 - away_from + rng.uniform(-0.2, 0.08), rng.uniform(0.09, 0.2), 0.75), (0.5, 0.27, 0.5)]
        places = places[: rng.randint(1, 2)] if time == "day" else []
    elif weather == "snowy":
        places = [(i / 3 + rng.uniform(-0.08, 0.08), rng.uniform(0.03, 0.07), 1.0) for i in range(4)]
    else:
        places = [(i / 4 + rng.uniform(-0.06, 0.06), 0.055 + 0.08 * (i % 2), 1.1) for i in range(5)]
        places += [(rng.uniform(0.05, 0.95), rng.uniform(0.24, 0.3), 0.7)]
    for x, y, scale in places:
        color = CLOUD[weather] if time == "day" else mix(CLOUD[weather], (20, 26, 62), 0.62)
        paint_cloud(pen, x, y, scale, color)


def paint_cloud(pen: Pen, x: float, y: float, scale: float, color: RGB) -> None:
    """A puffy cloud with a darker belly."""
    puffs = (
        (-0.12, 0.015, 0.042),
        (-0.065, -0.02, 0.06),
        (0.02, -0.04, 0.078),
        (0.09, -0.005, 0.055),
        (0.135, 0.022, 0.035),
    )
    for shift, tint in ((0.016, mix(color, (70, 80, 110), 0.16)), (0.0, color)):
        shapes = [oval(x + scale * p, y + scale * (q + shift), scale * r) for p, q, r in puffs]
        y0, y1 = y + scale * shift, y + scale * (0.057 + shift)
        scenery(pen, tint, *shapes, box(x - 0.15 * scale, y0, x + 0.16 * scale, y1, 0.028 * scale))


def paint_weather(pen: Pen, scene: dict) -> None:
    """Rain streaks or snow flakes in front of everything."""
    rng = random.Random(scene["seed"] + 1)
    if scene["weather"] == "rainy":
        for i in range(110):
            x, y, length = rng.random() * 1.05, rng.uniform(0.08, 1.0), rng.uniform(0.04, 0.07)
            color = (236, 246, 255) if i % 2 else (112, 176, 236)
            pen.veil(color, 0.72, limb(0.0052, (x, y), (x - 0.3 * length, y + length)))
    elif scene["weather"] == "snowy":
        for i in range(120):
            x, y = rng.random(), rng.random()
            pen.veil((255, 255, 255), 0.95, oval(x, y, 0.004 + 0.007 * (i % 3) / 2))


def paint_puddles(pen: Pen, rng: random.Random) -> None:
    """Rings that the drops make on the wet ground."""
    for _ in range(26):
        x, y = rng.random(), rng.uniform(0.65, 0.99)
        pen.veil((226, 240, 252), 0.4, oval(x, y, 0.032 * y, 0.008 * y))


# ---------------------------------------------------------------- land, water, street


def ridge(rng: random.Random, y: float, height: float, waves: float) -> tuple:
    """The outline of a row of rolling hills that rise `height` above `y`."""
    phase, lean = rng.uniform(0, 6.28), rng.uniform(0.6, 1.4)
    tops = []
    for i in range(25):
        x = i / 24
        swell = 0.6 * math.sin(waves * 6.28 * x + phase) + 0.4 * math.sin(waves * lean * 9.1 * x + 2 * phase)
        tops.append((x, y - height * (0.55 + 0.45 * swell)))
    return poly((0.0, 1.0), *tops, (1.0, 1.0))


def mountains(pen: Pen, tone: Tone, rng: random.Random, color: RGB, base: float) -> None:
    """Three or four peaks with snow caps."""
    for i in range(4):
        x, top, half = (
            i / 3 + rng.uniform(-0.09, 0.09),
            base - rng.uniform(0.12, 0.23),
            rng.uniform(0.2, 0.28),
        )
        scenery(
            pen,
            tone(mix(color, (255, 255, 255), 0.12 * (i % 2))),
            poly((x - half, base), (x, top), (x + half, base)),
        )
        k, drop = 0.28, (base - top) * 0.28
        cap = [
            (x - half * k, top + drop),
            (x, top),
            (x + half * k, top + drop),
            (x + half * 0.1, top + drop * 0.75),
        ]
        scenery(
            pen,
            tone((250, 252, 255)),
            poly(*cap, (x, top + drop * 1.15), (x - half * 0.12, top + drop * 0.8)),
        )


def tufts(pen: Pen, color: RGB, rng: random.Random, count: int, top: float = 0.64) -> None:
    """Little tufts of grass, larger where they are nearer."""
    for _ in range(count):
        x, y = rng.random(), rng.uniform(top, 0.99)
        r = 0.012 * (0.5 + (y - 0.55) * 1.6)
        for lean in (-1, 0, 1):
            scenery(
                pen,
                color,
                poly((x + lean * r - 0.003, y), (x + lean * r * 1.9, y - 2 * r), (x + lean * r + 0.003, y)),
            )


def paint_park(pen: Pen, tone: Tone, rng: random.Random) -> None:
    """Green hills and a lawn with a winding path."""
    scenery(pen, tone((168, 214, 176)), ridge(rng, HORIZON, 0.12, 1.1))
    scenery(pen, tone((146, 204, 130)), ridge(rng, HORIZON + 0.01, 0.06, 1.7))
    fill_gradient(pen, HORIZON, 1.0, tone((152, 208, 104)), tone((118, 190, 86)))
    far, near = rng.uniform(0.25, 0.75), rng.uniform(0.2, 0.8)
    path = [
        (far - 0.012, HORIZON + 0.004),
        (far + 0.012, HORIZON + 0.004),
        (far + 0.09, 0.72),
        (near + 0.14, 0.86),
        (near + 0.22, 1.06),
    ]
    path += [(near - 0.12, 1.06), (near - 0.04, 0.86), (far - 0.01, 0.72)]
    tufts(pen, tone((92, 168, 74)), rng, 22)
    scenery(pen, tone((226, 208, 166)), smooth(*path))


def paint_water(pen: Pen, tone: Tone, rng: random.Random, far: RGB, near: RGB) -> None:
    """A band of water with wave crests."""
    fill_gradient(pen, WATER[0], WATER[1] + 0.03, tone(far), tone(near))
    for i in range(26):
        y = WATER[0] + 0.012 + (WATER[1] - WATER[0] - 0.02) * (i % 7) / 6.5
        x, r = rng.random(), 0.014 + 0.05 * (y - WATER[0])
        pen.veil(tone((255, 255, 255)), 0.55, limb(0.004, *arc(x - r, y, r, r * 0.4, 180, 0, 4)))
        pen.veil(tone((255, 255, 255)), 0.55, limb(0.004, *arc(x + r, y, r, r * 0.4, 180, 0, 4)))


def paint_beach(pen: Pen, tone: Tone, rng: random.Random) -> None:
    """Sea, surf and sand."""
    paint_water(pen, tone, rng, (62, 160, 206), (126, 218, 220))
    phase = rng.uniform(0, 6.28)
    for lift, color in ((0.022, (186, 236, 234)), (0.012, (255, 255, 255)), (0.0, (226, 200, 148))):
        shore = [(x / 24, WATER[1] - lift + 0.008 * math.sin(x * 0.8 + phase)) for x in range(25)]
        scenery(pen, tone(color), poly((0.0, 1.0), *shore, (1.0, 1.0)))
    fill_gradient(pen, WATER[1] + 0.022, 1.0, tone((242, 218, 166)), tone((250, 230, 184)))
    for _ in range(40):
        x, y = rng.random(), rng.uniform(0.66, 0.99)
        scenery(pen, tone((222, 194, 140)), oval(x, y, 0.005 * y, 0.003 * y))


def paint_lake(pen: Pen, tone: Tone, rng: random.Random) -> None:
    """Mountains, a lake and its grassy shore."""
    mountains(pen, tone, rng, (136, 160, 190), WATER[0] + 0.01)
    scenery(pen, tone((134, 186, 150)), ridge(rng, WATER[0] + 0.01, 0.05, 1.6))
    paint_water(pen, tone, rng, (112, 186, 214), (84, 168, 204))
    phase = rng.uniform(0, 6.28)
    for lift, color in ((0.014, (206, 190, 150)), (0.0, (150, 204, 108))):
        shore = [(x / 24, WATER[1] - lift + 0.009 * math.sin(x * 0.6 + phase)) for x in range(25)]
        scenery(pen, tone(color), poly((0.0, 1.0), *shore, (1.0, 1.0)))
    fill_gradient(pen, WATER[1] + 0.01, 1.0, tone((150, 204, 108)), tone((120, 184, 92)))
    tufts(pen, tone((86, 156, 76)), rng, 26)


def paint_farm(pen: Pen, tone: Tone, rng: random.Random) -> None:
    """A ploughed field, a fence and a meadow."""
    scenery(pen, tone((196, 216, 142)), ridge(rng, HORIZON, 0.10, 0.8))
    fill_gradient(pen, HORIZON - 0.02, 1.0, tone((212, 206, 112)), tone((170, 196, 92)))
    center = rng.uniform(0.3, 0.7)
    for i in range(-9, 10, 2):
        row = [(center + 0.045 * i, HORIZON - 0.02), (center + 0.045 * (i + 1), HORIZON - 0.02)]
        row += [(center + 0.26 * (i + 1), 1.0), (center + 0.26 * i, 1.0)]
        scenery(pen, tone((196, 190, 96)), poly(*row))
    fill_gradient(pen, 0.70, 1.0, tone((168, 208, 104)), tone((142, 192, 88)))
    wood = tone((196, 160, 118))
    for y in (0.565, 0.595):
        scenery(pen, wood, box(0.0, y, 1.0, y + 0.011))
    for i in range(12):
        scenery(pen, wood, box(i / 11 - 0.008, 0.545, i / 11 + 0.008, 0.63, 0.004))
    tufts(pen, tone((110, 168, 72)), rng, 18, top=0.73)


def paint_snow(pen: Pen, tone: Tone, rng: random.Random) -> None:
    """Snowy peaks and drifts."""
    mountains(pen, tone, rng, (150, 172, 206), HORIZON + 0.01)
    scenery(pen, tone((222, 233, 247)), ridge(rng, HORIZON + 0.01, 0.06, 1.2))
    fill_gradient(pen, HORIZON, 1.0, tone((232, 241, 251)), tone((212, 227, 246)))
    for y, color in ((0.72, (240, 247, 254)), (0.86, (246, 250, 255))):
        scenery(pen, tone(color), ridge(rng, y, 0.035, 0.9))


def paint_street(pen: Pen, tone: Tone, rng: random.Random) -> None:
    """Silhouettes of houses, two pavements with kerbs and the road between them."""
    x, night = 0.0, tone((255, 255, 255))[0] < 150
    while x < 1.0:
        width, top = rng.uniform(0.1, 0.17), HORIZON - rng.uniform(0.16, 0.32)
        wall = tone(rng.choice([(186, 194, 214), (198, 190, 208), (178, 202, 208), (206, 200, 196)]))
        scenery(pen, wall, box(x, top, x + width + 0.002, HORIZON + 0.01))
        if rng.random() < 0.5:
            scenery(pen, wall, poly((x, top), (x + width / 2, top - 0.06), (x + width, top)))
        paint_windows(pen, x, top, width, wall, night, rng)
        x += width
    fill_gradient(pen, HORIZON, 0.69, tone((214, 210, 206)), tone((204, 200, 198)))
    scenery(pen, tone((168, 166, 170)), box(0.0, 0.684, 1.0, 0.70))
    fill_gradient(pen, 0.70, 0.875, tone((128, 130, 140)), tone((112, 114, 126)))
    for i in range(7):
        x = (i + rng.random() * 0.02) / 6
        scenery(
            pen,
            tone((244, 240, 226)),
            poly((x - 0.045, 0.79), (x + 0.04, 0.79), (x + 0.045, 0.802), (x - 0.045, 0.802)),
        )
    scenery(pen, tone((236, 234, 230)), box(0.0, 0.87, 1.0, 0.884))
    fill_gradient(pen, 0.884, 1.0, tone((216, 211, 206)), tone((200, 195, 192)))
    for i in range(9):
        scenery(pen, tone((186, 181, 180)), limb(0.003, (i / 8, 0.886), ((i / 8 - 0.5) * 1.25 + 0.5, 1.0)))


def paint_windows(
    pen: Pen, x: float, top: float, width: float, wall: RGB, night: bool, rng: random.Random
) -> None:
    """Rows of windows on a far house; many are lit at night."""
    for row in range(5):
        y = top + 0.025 + 0.055 * row
        for column in (0.2, 0.6):
            lit = night and rng.random() < 0.6
            pane = (255, 222, 120) if lit else mix(wall, (60, 80, 120), 0.22)
            if y < HORIZON - 0.05:
                scenery(pen, pane, box(x + width * column, y, x + width * (column + 0.2), y + 0.03))


LANDS = {
    "park": paint_park,
    "beach": paint_beach,
    "lake": paint_lake,
    "farm": paint_farm,
    "snow": paint_snow,
    "street": paint_street,
}
