"""The README's pictures, from the notebooks' own outputs: ``python docs/pictures.py``.

A picture is found by a piece of the code that draws it. Those that explain SPD are put one below
the other; thumbnails are as wide as the README shows them on a sharp screen. All are stored with
a palette, which keeps them together below 300 KB. ``--check`` only says whether the stored ones are
of the notebooks as they are.
"""

import base64
import io
import sys
from pathlib import Path

import nbformat
from PIL import Image

HERE = Path(__file__).parent
EXPLAIN = {"spd": [("01", "spd_triplet(batch"), ("02", "plots.losses(cases)")]}
THUMBNAILS = {
    "01": "plots.profiles(",
    "02": "plots.distances(",
    "03": "plots.comparison(",
    "04": "plots.curves(detectors)",
    "05": "plots.steps(",
    "06": "plots.shots(",
    "07": "plots.scatter(",
}
WIDTH, HEIGHT = 300, 180  # pixels of a thumbnail; what is taller is cut below


def picture(number: str, code: str) -> Image.Image:
    """The first picture under the first cell of a notebook that holds a piece of code."""
    (path,) = (HERE.parent / "notebooks").glob(f"{number}_*.ipynb")
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code" and code in cell.source:
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    found = io.BytesIO(base64.b64decode(output["data"]["image/png"]))
                    return Image.open(found).convert("RGB")
    raise SystemExit(f"{path.name}: no picture under a cell with {code!r}")


def below_each_other(pictures: list[Image.Image]) -> Image.Image:
    """Pictures in one column, on white, each in the middle."""
    size = max(p.width for p in pictures), sum(p.height for p in pictures)
    sheet, top = Image.new("RGB", size, "white"), 0
    for one in pictures:
        sheet.paste(one, ((size[0] - one.width) // 2, top))
        top += one.height
    return sheet


def thumbnail(one: Image.Image) -> Image.Image:
    """A picture's upper part, small."""
    small = one.resize((WIDTH, round(one.height * WIDTH / one.width)), Image.Resampling.LANCZOS)
    return small.crop((0, 0, WIDTH, min(HEIGHT, small.height)))


def main():
    made = {name: below_each_other([picture(*p) for p in parts]) for name, parts in EXPLAIN.items()}
    made |= {number: thumbnail(picture(number, code)) for number, code in THUMBNAILS.items()}
    for name, one in made.items():
        path, one = HERE / "pictures" / f"{name}.png", one.quantize(128)
        if "--check" in sys.argv:
            with Image.open(path) as stored:
                if stored.convert("RGB").tobytes() != one.convert("RGB").tobytes():
                    raise SystemExit(f"{path.name} is of an older notebook: make pictures")
            continue
        path.parent.mkdir(exist_ok=True)
        one.save(path, optimize=True)
        print(f"{path.name}: {one.width} x {one.height}, {path.stat().st_size / 1000:.0f} KB")


if __name__ == "__main__":
    main()
