"""Whether a built site is whole: ``python docs/site/check.py build/site/_build/html``.

Every link to a page, a place in it or a file, and every picture, must be there; and nothing may be
loaded from elsewhere, so that the site can be read offline. Prints what is wrong.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}
OF_NO_READER = {"canonical", "preconnect", "search"}


class Page(HTMLParser):
    """What a page links to, what it loads, and the places that can be linked to."""

    def __init__(self, path: Path):
        super().__init__()
        self.links, self.loaded, self.places = [], [], {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.places |= {given.get("id"), given.get("name") if tag == "a" else None}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        elif (address := given.get(LOADED.get(tag, ""))) and given.get("rel") not in OF_NO_READER:
            self.loaded.append(address)


def problems(folder: Path) -> list[str]:
    """One line for each link, picture or script that does not hold."""
    own = (
        path for path in folder.rglob("*.html") if "_static" not in path.parts
    )  # a theme's parts
    pages = {path.resolve(): Page(path) for path in own}
    found = [] if pages else [f"{folder}: no pages"]
    for path, page in pages.items():
        name = path.relative_to(folder.resolve())
        for address in page.loaded + page.links:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                if address in page.loaded and parts.scheme != "data":
                    found.append(f"{name}: loads {address}")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                found.append(f"{name}: no {address}")
            elif target in pages and unquote(parts.fragment) not in pages[target].places:
                found.append(f"{name}: no place {address}")
    return sorted(set(found))


if __name__ == "__main__":
    wrong = problems(Path(sys.argv[1]))
    print("\n".join(wrong) or "every link and picture is there, nothing comes from elsewhere")
    sys.exit(bool(wrong))
