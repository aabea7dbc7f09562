"""Checks the built documentation site: every link and anchor inside it leads somewhere, and nothing is fetched from elsewhere.

python tests/links.py build/site
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# What a browser fetches by itself; an `a` is only followed by people.
_FETCHED = {"img": "src", "script": "src", "link": "href", "iframe": "src", "source": "src"}


class Page(HTMLParser):
    """One page: the anchors it has, the links it shows, and what it makes a browser fetch."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = {""}
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attributes}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if (name := _FETCHED.get(tag)) and name in found:
            self.fetched.append(found[name])


def faults(site: Path) -> list[str]:
    """A line for each link that leads nowhere and each thing that is fetched from elsewhere."""
    pages = {path.resolve(): Page(path) for path in sorted(site.rglob("*.html")) if path.name != "404.html"}
    wrong: list[str] = []
    for path, page in pages.items():
        wrong += [f"{path.name} fetches {url}" for url in page.fetched if urlsplit(url).netloc]
        for link in [*page.links, *page.fetched]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                wrong.append(f"{path.name} links to {link}, which is not there")
            elif target in pages and unquote(parts.fragment) not in pages[target].anchors:
                wrong.append(f"{path.name} links to {link}, and there is no such anchor")
    if not pages:
        wrong.append(f"there is no page in {site}")
    return wrong


def main() -> int:
    wrong = faults(Path(sys.argv[1]))
    print("\n".join(wrong) if wrong else "every link and anchor leads somewhere")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
