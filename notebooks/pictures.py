"""Pictures of the notebooks as they are kept, for the documentation: docs/pictures/notebook-NAME.png.

python notebooks/pictures.py              CHROMIUM names the browser, which must be installed
"""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path

import nbconvert
import nbformat
from PIL import Image
from playwright.sync_api import Page, sync_playwright

HERE = Path(__file__).parent
PICTURES = HERE.parent / "docs" / "pictures"
# Each notebook, the picture's name, and the heading that it begins with: "" is the notebook's beginning.
SHOWN = {
    "1_plan_my_cards": ("plan", ""),
    "2_route_and_fail_over": ("route", ""),
    "3_local_engine": ("engine", ""),
    "4_does_a_draft_pay": ("draft", ""),
    "5_bench_two_servers": ("bench", ""),
    "6_fleet": ("fleet", "What fits, and what evicts what"),
    "7_migrate": ("migrate", ""),
}
WIDTH, HEIGHT = 940, 1010  # pixels
SHADES = 128  # a picture is some 60 kB with a palette, and three times that without
# As root, as in a container, Chromium runs only without its sandbox; the rest keeps it from calling home.
FLAGS = "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync --no-first-run"
# Narrower than the template's own, code on the paler grey, and words left whole.
QUIET = """
body { padding: 12px !important } .jp-Cell { padding: 2px 0 !important } .jp-InputArea-editor { background: #f7f7f7 !important }
.jp-InputPrompt, .jp-OutputPrompt { min-width: 62px !important; flex-basis: 62px !important }
pre { word-break: normal !important; overflow-wrap: break-word !important; white-space: pre-wrap !important }
"""
# Takes away what comes after the last cell of code that is wholly within the height, and says where the picture ends.
WHOLE = """height => {
    const cells = [...document.querySelectorAll(".jp-Cell")], end = cell => cell.getBoundingClientRect().bottom;
    const last = cells.findLastIndex(cell => cell.classList.contains("jp-CodeCell") && end(cell) <= height);
    cells.slice(last + 1).forEach(cell => cell.remove());
    return end(cells[last]);
}"""


def page_of(notebook: Path, heading: str) -> str:
    """The notebook as HTML, from the cell with that heading on."""
    read = nbformat.read(notebook, as_version=4)
    first = next(place for place, cell in enumerate(read.cells) if heading in cell.source)
    read.cells = read.cells[first:]
    html, _ = nbconvert.HTMLExporter(template_name="lab").from_notebook_node(read)
    return str(html).replace("</head>", f"<style>{QUIET}</style></head>")


def picture_of(page: Page) -> Image.Image:
    ends = page.evaluate(WHOLE, HEIGHT)
    shot = page.screenshot(clip={"x": 0, "y": 0, "width": WIDTH, "height": round(ends) + 12})
    return Image.open(io.BytesIO(shot)).convert("RGB").quantize(SHADES, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)


def main() -> None:
    with sync_playwright() as playwright:
        chromium = shutil.which(os.environ.get("CHROMIUM", "chromium"))
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS.split())
        # What the template would fetch from elsewhere (a script for formulas) is not for a picture.
        context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}, offline=True)
        for notebook, (name, heading) in SHOWN.items():
            page = context.new_page()
            page.set_content(page_of(HERE / f"{notebook}.ipynb", heading), wait_until="domcontentloaded")
            picture = picture_of(page)
            file = PICTURES / f"notebook-{name}.png"
            picture.save(file, optimize=True)
            print(f"{file.name:24} {picture.width} x {picture.height}, {file.stat().st_size // 1024} kB")
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
