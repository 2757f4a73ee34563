"""Draw the two families of demo images: portraits ("faces") and landscapes with objects ("scenes").

    python tools/make_demo_data.py                     # the shipped test sets, dataset/demo-faces and demo-scenes
    python tools/make_demo_data.py --split val --count 16 --out DIR
    python tools/make_demo_data.py --split confirm --out dataset/confirm   # docs/research/protocols/confirmation.md

Image i of a family depends on (seed, i) alone, and each split has its own seed, so that training,
validation (tuning), test and confirmation images never meet.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tools.demo_prior.drawing import Array, Canvas, Draws, Frame
from utils.command_line import Parser
from utils.errors import InputError
from utils.files import write_atomically
from utils.paths import PROJECT

SIDE = 64
SEEDS = {"train": 1, "val": 2, "test": 3, "confirm": 4}
WHITE = np.ones(3)

SKIN = [[0.96, 0.80, 0.69], [0.88, 0.67, 0.53], [0.76, 0.55, 0.41], [0.58, 0.39, 0.27], [0.42, 0.28, 0.19]]
HAIR = [[0.08, 0.06, 0.05], [0.25, 0.15, 0.08], [0.45, 0.28, 0.13], [0.80, 0.63, 0.33], [0.55, 0.22, 0.10], [0.66, 0.64, 0.62]]
IRIS = [[0.15, 0.09, 0.05], [0.15, 0.35, 0.55], [0.20, 0.40, 0.25], [0.05, 0.04, 0.04]]
LIPS = [[0.75, 0.25, 0.27], [0.60, 0.22, 0.22], [0.85, 0.35, 0.40]]
SKY_TOP = [[0.30, 0.52, 0.88], [0.55, 0.75, 0.95], [0.95, 0.62, 0.42], [0.14, 0.16, 0.36], [0.75, 0.78, 0.82]]
SKY_LOW = [[0.85, 0.90, 0.97], [0.98, 0.85, 0.65], [0.95, 0.60, 0.50], [0.40, 0.40, 0.60]]
GROUND = [[0.30, 0.55, 0.22], [0.75, 0.66, 0.45], [0.45, 0.40, 0.36], [0.88, 0.90, 0.94], [0.20, 0.38, 0.55]]
HILLS = [[0.35, 0.42, 0.50], [0.25, 0.38, 0.28], [0.50, 0.42, 0.38]]
ROADS = [[0.35, 0.35, 0.37], [0.62, 0.52, 0.38]]
LEAVES = [[0.15, 0.45, 0.15], [0.35, 0.55, 0.15], [0.75, 0.45, 0.12], [0.12, 0.32, 0.22]]


def draw_face(draws: Draws, canvas: Canvas) -> None:
    """A cartoon portrait: background, hair, shoulders, head, eyes, nose, mouth; some with hat or glasses."""
    _wall(draws, canvas)
    skin, hair = draws.palette(SKIN, 0.02), draws.palette(HAIR)
    cx, cy = draws.between(-0.10, 0.10), draws.between(-0.12, 0.04)
    a = draws.between(0.44, 0.56)  # half-width of the head
    b = a * draws.between(1.15, 1.35)  # half-height
    tilt, yaw = draws.between(-0.15, 0.15), draws.between(-0.10, 0.10)
    light = draws.between(-1, 1)  # where the light comes from, left to right
    x = (canvas.x - cx) * np.cos(tilt) + (canvas.y - cy) * np.sin(tilt)
    y = -(canvas.x - cx) * np.sin(tilt) + (canvas.y - cy) * np.cos(tilt)
    frame = (x, y)

    if draws.chance(0.5):  # long hair falls behind the shoulders
        length = draws.between(0.3, 0.9)
        canvas.paint(
            canvas.ellipse(0, length * 0.45, a * draws.between(1.15, 1.35), b * 0.9 + length * 0.5, power=2.6, frame=frame),
            hair * 0.8,
        )
    _shoulders(draws, canvas, cx, cy, a, b, skin)

    for side in (-1, 1):
        canvas.paint(canvas.ellipse(side * a * 0.98, 0.04, a * 0.17, b * 0.19, frame=frame), skin * 0.86)
    squareness = draws.between(2.0, 2.5)
    jaw = a * (1 - 0.10 * np.clip(y / b, 0, 1))
    shade = 1.05 + 0.22 * light * x / a - 0.14 * np.clip((x / a) ** 2 + (y / b) ** 2, 0, 1.4)
    canvas.paint(canvas.ellipse(0, 0, jaw, b, power=squareness, frame=frame), skin * shade[..., None])

    eyes = _eyes(draws, canvas, frame, a, b, yaw, skin, hair)
    _nose_and_mouth(draws, canvas, frame, a, b, yaw, light, skin, eyes["y"])
    _fringe(draws, canvas, frame, a, b, squareness, light, hair)
    if draws.chance(0.20):
        _hat(draws, canvas, frame, a, b, light)
    if draws.chance(0.25):
        _glasses(draws, canvas, frame, yaw, eyes)
    canvas.shade(1 + draws.between(-0.12, 0.12) * canvas.x)


def _wall(draws: Draws, canvas: Canvas) -> None:
    angle = draws.between(0, 2 * np.pi)
    t = np.clip((canvas.x * np.cos(angle) + canvas.y * np.sin(angle)) * 0.5 + 0.5, 0, 1)[..., None]
    canvas.pixels = draws.hsv((0.05, 0.7), (0.2, 0.95)) * (1 - t) + draws.hsv((0.05, 0.7), (0.2, 0.95)) * t
    if draws.chance(0.4):  # a door or the edge of a wall
        side = 1 if draws.chance(0.5) else -1
        canvas.paint(canvas.inside(side * (canvas.x - draws.between(-0.7, 0.7))), draws.hsv((0.05, 0.5), (0.2, 0.9)), 0.6)


def _shoulders(draws: Draws, canvas: Canvas, cx: float, cy: float, a: float, b: float, skin: Array) -> None:
    cloth = draws.hsv((0.1, 0.85), (0.15, 0.95))
    top = cy + b + draws.between(0.08, 0.22)
    body = canvas.ellipse(cx * 0.6, top + 0.75, draws.between(0.8, 1.1), 0.85, power=2.6)
    canvas.paint(body, cloth * (1 - 0.18 * np.abs(np.tanh((canvas.x - cx) * 3)))[..., None])
    if draws.chance(0.3):  # stripes
        wave = 0.5 + 0.5 * np.sin(canvas.y * draws.between(12, 20))
        canvas.paint(body * wave, draws.hsv((0.1, 0.8), (0.15, 0.95)), 0.6)
    canvas.paint(canvas.ellipse(cx, cy + b * 0.95, a * 0.46, b * 0.5, power=3.0), skin * 0.78)


def _eyes(
    draws: Draws, canvas: Canvas, frame: Frame, a: float, b: float, yaw: float, skin: Array, hair: Array
) -> dict[str, float]:
    y, spread = -b * draws.between(0.04, 0.14), a * draws.between(0.40, 0.48)
    width = a * draws.between(0.24, 0.31)
    height = width * draws.between(0.55, 0.85)
    gaze, iris = draws.between(-0.35, 0.35), draws.palette(IRIS)
    brow_tilt, brow_width, brow_lift = draws.between(-0.08, 0.08), draws.between(0.028, 0.055), draws.between(0.06, 0.13)
    for side in (-1, 1):
        x = side * spread + yaw
        canvas.paint(canvas.ellipse(x, y, width * 1.35, height * 1.5, softness=3, frame=frame), skin * 0.62, 0.45)
        white = canvas.ellipse(x, y, width, height, frame=frame)
        canvas.paint(white, [0.97, 0.96, 0.94])
        pupil = x + gaze * width * 0.6
        canvas.paint(canvas.ellipse(pupil, y, height * 0.75, height * 0.85, frame=frame) * white, iris)
        canvas.paint(canvas.ellipse(pupil - 0.015, y - 0.02, 0.022, 0.022, frame=frame), WHITE, 0.8)
        lift = y - height - brow_lift
        canvas.paint(
            canvas.segment(x - width, lift + side * brow_tilt, x + width, lift - side * brow_tilt, brow_width, frame=frame),
            hair * 0.7,
        )
    return {"y": y, "spread": spread, "width": width}


def _nose_and_mouth(
    draws: Draws, canvas: Canvas, frame: Frame, a: float, b: float, yaw: float, light: float, skin: Array, eye_y: float
) -> None:
    x, y = frame
    tip, nose_y, shadow = yaw * 1.5, b * draws.between(0.24, 0.34), -np.sign(light)
    canvas.paint(
        canvas.segment(
            tip * 0.6 + shadow * a * 0.05, eye_y + 0.05, tip + shadow * a * 0.09, nose_y, 0.03, softness=2, frame=frame
        ),
        skin * 0.70,
        0.6,
    )
    canvas.paint(canvas.ellipse(tip, nose_y, a * 0.17, a * 0.10, softness=2, frame=frame), skin * 0.74, 0.75)

    mouth_y, width, height = b * draws.between(0.54, 0.64), a * draws.between(0.32, 0.48), draws.between(0.05, 0.09)
    smile = draws.between(-0.25, 0.6) * width
    bent = (x, y + smile * ((x - yaw * 1.1) / width) ** 2)
    lip = draws.palette(LIPS) * 0.65 + skin * 0.3
    canvas.paint(canvas.ellipse(yaw * 1.1, mouth_y, width, height, frame=bent), lip)
    if draws.chance(0.5):  # open mouth: teeth, or dark
        inner = [0.94, 0.92, 0.88] if draws.chance(0.65) else [0.25, 0.08, 0.08]
        canvas.paint(canvas.ellipse(yaw * 1.1, mouth_y, width * 0.8, height * 0.6, frame=bent), inner)
    else:
        canvas.paint(
            canvas.segment(yaw * 1.1 - width * 0.8, mouth_y, yaw * 1.1 + width * 0.8, mouth_y, 0.012, frame=bent), lip * 0.45
        )


def _fringe(
    draws: Draws, canvas: Canvas, frame: Frame, a: float, b: float, squareness: float, light: float, hair: Array
) -> None:
    x, y = frame
    if draws.chance(0.08):  # bald
        return
    cap = canvas.ellipse(
        0, -b * 0.04, a * draws.between(1.06, 1.16), b * draws.between(1.06, 1.18), power=squareness, frame=frame
    )
    part, bow = draws.between(-0.6, 0.6), draws.between(-0.1, 0.4)
    hairline = -b * draws.between(0.50, 0.68) + b * bow * (x / a - part) ** 2
    sides = canvas.inside(np.abs(x) - a * draws.between(0.88, 1.0)) * canvas.inside(b * draws.between(-0.2, 0.5) - y)
    strands = 1 + 0.15 * draws.between(0, 1) * np.sin(x * draws.between(14, 24)) + 0.15 * light * x / a - 0.2 * y
    canvas.paint(cap * np.maximum(canvas.inside(hairline - y), sides), hair * strands[..., None])


def _hat(draws: Draws, canvas: Canvas, frame: Frame, a: float, b: float, light: float) -> None:
    x, y = frame
    brim_y, colour = -b * draws.between(0.52, 0.64), draws.hsv((0.2, 0.9), (0.2, 0.95))
    crown = canvas.ellipse(0, brim_y, a * 1.15, b * draws.between(0.62, 0.8), power=2.6, frame=frame)
    canvas.paint(crown * canvas.inside(brim_y - y), colour * (1 + 0.25 * light * x / a)[..., None])
    canvas.paint(
        canvas.ellipse(a * draws.between(-0.25, 0.25), brim_y, a * draws.between(1.25, 1.5), b * 0.09, power=3.0, frame=frame),
        colour * 0.7,
    )


def _glasses(draws: Draws, canvas: Canvas, frame: Frame, yaw: float, eyes: dict[str, float]) -> None:
    colour, dark = draws.palette([[0.05, 0.05, 0.05], [0.40, 0.20, 0.10], [0.60, 0.60, 0.65]]), draws.chance(0.25)
    radius = eyes["width"] * draws.between(1.2, 1.4)
    for side in (-1, 1):
        x = side * eyes["spread"] + yaw
        outer = canvas.ellipse(x, eyes["y"], radius, radius * 0.85, power=2.6, frame=frame)
        inner = canvas.ellipse(x, eyes["y"], radius - 0.05, radius * 0.85 - 0.05, power=2.6, frame=frame)
        if dark:
            canvas.paint(inner, colour * 0.5, 0.85)
        canvas.paint(np.clip(outer - inner, 0, 1), colour)
    canvas.paint(
        canvas.segment(yaw - eyes["spread"] + radius, eyes["y"], yaw + eyes["spread"] - radius, eyes["y"], 0.025, frame=frame),
        colour,
    )


def draw_scene(draws: Draws, canvas: Canvas) -> None:
    """A landscape: sky, sun, clouds, hills, ground, road, and two large objects lit from the sun's side."""
    horizon = draws.between(-0.15, 0.30)
    t = np.clip((canvas.y + 1) / (horizon + 1), 0, 1)[..., None]
    canvas.pixels = draws.palette(SKY_TOP) * (1 - t) + draws.palette(SKY_LOW) * t
    sun_x, sun_y = draws.between(-0.8, 0.8), draws.between(-0.85, -0.45)
    if draws.chance(0.6):
        canvas.paint(canvas.ellipse(sun_x, sun_y, 0.45, 0.45, softness=9), [1.0, 0.95, 0.8], 0.35)
        canvas.paint(canvas.ellipse(sun_x, sun_y, 0.15, 0.15), [1.0, 0.96, 0.80])
    for _ in range(2):
        if draws.chance(0.5):
            _cloud(draws, canvas)
    if draws.chance(0.55):
        _hills(draws, canvas, horizon)
    _ground(draws, canvas, horizon)
    light = -1.0 if sun_x > 0 else 1.0  # shadows fall to this side
    for place in (-0.48, 0.48):
        if draws.chance(0.9):
            kind = OBJECTS[draws.pick(len(OBJECTS))]
            size = draws.between(0.27, 0.38)
            x, foot = place + draws.between(-0.14, 0.14), min(horizon + draws.between(0.15, 0.60), 0.92)
            canvas.shade(1 - 0.45 * canvas.ellipse(x + light * size * 0.6, foot, size * 1.3, size * 0.25, softness=3))
            lit = np.clip(1 - 0.4 * light * (canvas.x - x) / size, 0.55, 1.3)[..., None]
            kind(draws, canvas, x, foot, size, lit)
    canvas.shade(1 + draws.between(-0.10, 0.10) * canvas.x)


def _cloud(draws: Draws, canvas: Canvas) -> None:
    x, y, width = draws.between(-1, 1), draws.between(-0.9, -0.35), draws.between(0.2, 0.4)
    for k in (-1, 0, 1):
        canvas.paint(
            canvas.ellipse(x + k * width * 0.6, y - (k == 0) * 0.05, width * 0.55, width * 0.28, softness=2.5),
            [0.97, 0.97, 0.98],
            0.8,
        )


def _hills(draws: Draws, canvas: Canvas, horizon: float) -> None:
    for brightness in (0.8, 1.0):
        ridge = (
            horizon
            - draws.between(0.1, 0.4)
            + 0.14 * np.sin(canvas.x * draws.between(2, 5) + draws.between(0, 6))
            + 0.05 * np.sin(canvas.x * draws.between(6, 10) + draws.between(0, 6))
        )
        canvas.paint(canvas.inside(canvas.y - ridge), draws.palette(HILLS) * brightness)


def _ground(draws: Draws, canvas: Canvas, horizon: float) -> None:
    depth = np.clip((canvas.y - horizon) / (1 - horizon), 0, 1)
    land = canvas.inside(canvas.y - horizon)
    canvas.paint(land, draws.palette(GROUND) * (1.08 - 0.38 * depth)[..., None])
    if draws.chance(0.4):
        centre = draws.between(-0.4, 0.4) + (canvas.y - horizon) * draws.between(-0.5, 0.5)
        half_width = 0.06 + np.clip(canvas.y - horizon, 0, None) * draws.between(0.25, 0.5)
        canvas.paint(canvas.inside(half_width - np.abs(canvas.x - centre)) * land, draws.palette(ROADS))


def _ball(draws: Draws, canvas: Canvas, x: float, foot: float, size: float, lit: Array) -> None:
    canvas.paint(canvas.ellipse(x, foot - size * 0.9, size * 0.95, size * 0.95), draws.hsv((0.35, 0.95), (0.3, 0.95)) * lit)
    shine = 0.35 if lit[0, 0, 0] < lit[0, -1, 0] else -0.35
    canvas.paint(canvas.ellipse(x + shine * size, foot - size * 1.25, size * 0.22, size * 0.22, softness=2), WHITE, 0.75)


def _house(draws: Draws, canvas: Canvas, x: float, foot: float, size: float, lit: Array) -> None:
    wall, roof = draws.hsv((0.2, 0.8), (0.3, 0.95)) * 0.5 + 0.42, draws.hsv((0.3, 0.9), (0.25, 0.85))
    canvas.paint(canvas.ellipse(x, foot - size * 0.7, size * 1.0, size * 0.75, power=14.0), wall * np.clip(lit, 0.75, 1.15))
    slope = canvas.inside(canvas.y - (foot - size * 2.3) - np.abs(canvas.x - x) * 0.75)
    canvas.paint(slope * canvas.inside(foot - size * 1.35 - canvas.y), roof * 0.85)
    canvas.paint(canvas.ellipse(x, foot - size * 0.38, size * 0.22, size * 0.42, power=10.0), roof * 0.45)
    for side in (-1, 1):
        canvas.paint(
            canvas.ellipse(x + side * size * 0.6, foot - size * 0.8, size * 0.22, size * 0.22, power=10.0), [0.65, 0.82, 0.95]
        )


def _tree(draws: Draws, canvas: Canvas, x: float, foot: float, size: float, lit: Array) -> None:
    canvas.paint(canvas.segment(x, foot, x, foot - size * 1.1, size * 0.16), np.array([0.36, 0.23, 0.12]) * lit)
    if draws.chance(0.5):
        crown = canvas.inside((canvas.y - (foot - size * 3.0)) * 0.45 - np.abs(canvas.x - x)) * canvas.inside(
            foot - size * 0.8 - canvas.y
        )
    else:
        crown = canvas.ellipse(x, foot - size * 1.7, size * 0.9, size)
    canvas.paint(crown, draws.palette(LEAVES) * lit)


def _car(draws: Draws, canvas: Canvas, x: float, foot: float, size: float, lit: Array) -> None:
    colour = draws.hsv((0.45, 0.95), (0.4, 0.95))
    canvas.paint(canvas.ellipse(x, foot - size * 0.55, size * 1.35, size * 0.42, power=5.0), colour * np.clip(lit, 0.8, 1.2))
    canvas.paint(canvas.ellipse(x - size * 0.1, foot - size * 1.02, size * 0.8, size * 0.45, power=4.0), colour * 0.9)
    canvas.paint(canvas.ellipse(x - size * 0.1, foot - size * 1.02, size * 0.62, size * 0.28, power=4.0), [0.60, 0.78, 0.90])
    for side in (-1, 1):
        canvas.paint(canvas.ellipse(x + side * size * 0.75, foot - size * 0.15, size * 0.33, size * 0.33), [0.08, 0.08, 0.08])
        canvas.paint(canvas.ellipse(x + side * size * 0.75, foot - size * 0.15, size * 0.14, size * 0.14), [0.7, 0.7, 0.7])


OBJECTS = (_ball, _house, _tree, _car)
FAMILIES = {"faces": draw_face, "scenes": draw_scene}


def demo_image(family: str, seed: int, index: int, side: int = SIDE) -> NDArray[np.uint8]:
    """One image, (side, side, 3) uint8. `family`: "faces" or "scenes"; `seed`: see SEEDS; `index` >= 0."""
    canvas = Canvas(side)
    FAMILIES[family](Draws(list(FAMILIES).index(family), seed, index), canvas)
    return np.round(np.clip(canvas.pixels, 0, 1) * 255).astype(np.uint8)


def demo_images(family: str, seed: int, count: int, start: int = 0) -> NDArray[np.uint8]:
    """Images start .. start + count - 1, (count, SIDE, SIDE, 3) uint8."""
    return np.stack([demo_image(family, seed, i) for i in range(start, start + count)])


def main() -> None:
    from PIL import Image

    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=SEEDS, default="test")
    parser.add_argument("--count", type=int, default=100, help="images per family")
    parser.add_argument("--out", type=Path, help="folder (of the test split: dataset)")
    args = parser.parse_args()
    if args.out is None and args.split != "test":
        raise InputError(f"split={args.split}: give --out, since dataset/ holds the test images")
    out = args.out or PROJECT / "dataset"
    for family in FAMILIES:
        folder = out / f"demo-{family}"
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(args.count):
            picture = Image.fromarray(demo_image(family, SEEDS[args.split], i))
            write_atomically(folder / f"{i:05d}.png", lambda file: picture.save(file, format="PNG"), durable=False)
        print(f"{args.count} images of {family}, split {args.split}: {folder}")
