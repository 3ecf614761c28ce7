"""What the site adds to Sphinx: formulas as MathML, and the list of modules."""

import pkgutil

from docutils import nodes
from latex2mathml.converter import convert

import spdlib


def inline(writer, node):
    """A formula within a line, as MathML, which browsers draw themselves."""
    writer.body.append(convert(node.astext()))
    raise nodes.SkipNode


def block(writer, node):
    """A formula of its own."""
    formula = convert(node.astext().strip(), display="block")
    writer.body.append(f'<div class="math">{formula}</div>')
    raise nodes.SkipNode


def modules(app, name, source):
    """Fills the API page with every module of the library, its docstring and members."""
    if name != "docs/site/api":
        return
    found = [m.name for m in pkgutil.walk_packages(spdlib.__path__, "spdlib.")]
    shown = [m for m in found if "notebooks" not in m and not m.endswith("__main__")]
    source[0] += "".join(
        f"\n## {m}\n\n```{{eval-rst}}\n.. automodule:: {m}\n```\n" for m in sorted(shown)
    )


def setup(app):
    """Registers with Sphinx."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    app.connect("source-read", modules)
    return {"parallel_read_safe": True}
