r"""Formulas as MathML, which browsers draw without any script: no network and no bundle is needed.

latex2mathml does the translation, and what it leaves out of LaTeX's spacing is added here. What it
does not know comes out of it as text with a backslash; that is a warning, which the build takes for
an error.
"""

import html
import re
import xml.etree.ElementTree as ET

import latex2mathml.converter
from docutils import nodes
from sphinx.util import logging

logger = logging.getLogger(__name__)

FUNCTIONS = {"arg", "cos", "det", "dim", "exp", "inf", "log", "max", "min", "sin", "tr"}
OPENING = set("([{⟨")
RELATIONS = set("=≈∝∼⪰≥≤<>⊂→↦,;")
THIN, THICK = "0.1667em", "0.2778em"


def mathml(latex: str, display: bool) -> str:
    """A formula as a ``math`` element.

    Raises:
        ValueError: if a part of it is not understood.
    """
    latex = _paired(latex.replace(r"\arg", r"\operatorname{arg}"))
    if display and r"\\" in latex and r"\begin" not in latex:
        latex = rf"\begin{{split}}{latex}\end{{split}}"
    text = latex2mathml.converter.convert(latex, display="block" if display else "inline")
    try:
        math = ET.fromstring(text)
    except ET.ParseError as error:
        raise ValueError(f"latex2mathml writes XML that is not valid for {latex!r}.") from error
    for element in math.iter():
        element.tag = element.tag.rpartition("}")[2]
    leftovers = [e.text for e in math.iter() if e.text and "\\" in e.text]
    if leftovers:
        raise ValueError(f"latex2mathml does not know {', '.join(leftovers)} in {latex!r}.")
    for parent in math.iter():
        if parent.tag == "mover" and _text(parent[1]) == "―":  # no font stretches this one
            parent.tag = "mrow"
            parent.set("class", "overline")
            parent.remove(parent[1])
        for i, child in enumerate(parent):
            before = _text(parent[i - 1]) if i else ""
            after = _text(parent[i + 1]) if i + 1 < len(parent) else ""
            _space(child, before, after)
    return ET.tostring(math, encoding="unicode")


def _paired(latex: str) -> str:
    r"""Brackets of a given size as pairs of ``\left`` and ``\right``, which browsers can stretch
    also where the closing one has an exponent."""
    opened = False

    def pair(match):
        nonlocal opened
        side, bracket = match[1], match[2]
        opened = side == "l" or bracket in OPENING or (side == "" and bracket == "|" and not opened)
        return rf"\left{bracket}" if opened else rf"\right{bracket}"

    return re.sub(r"\\[bB]ig([lr]?)([()\[\]|])", pair, latex)


def _text(element: ET.Element) -> str:
    """The first text in an element: that of the operator which an exponent stands at."""
    return next((e.text.strip() for e in element.iter() if e.text and e.text.strip()), "")


def _space(element: ET.Element, before: str, after: str) -> None:
    """Make operators of what LaTeX takes for such, with its spaces."""
    if element.tag not in ("mi", "mo"):
        return
    text = "∼" if element.text == "~" else element.text
    if text in FUNCTIONS:
        left = THIN if before and before not in OPENING else "0"
        right = "0" if after in OPENING or after in FUNCTIONS else THIN
        spaces = left, right
    elif text in RELATIONS:
        spaces = ("0", THIN) if text in ",;" else (THICK, THICK)
    elif text == "−" and (not before or before in OPENING or before in RELATIONS):
        spaces = "0", "0"
    elif text in ("|", "/", "⟨", "⟩"):
        spaces = "0", "0"
    else:
        return
    element.tag, element.text = "mo", text
    element.set("lspace", spaces[0])
    element.set("rspace", spaces[1])
    if text in ("⟨", "⟩"):
        element.set("stretchy", "false")


def _write(self, node, display):
    try:
        formula = mathml(node.astext(), display)
    except ValueError as error:
        logger.warning(str(error), location=node)
        formula = f"<code>{html.escape(node.astext())}</code>"
    self.body.append(f'<div class="formula">{formula}</div>' if display else formula)
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer(
        "mathml",
        inline_renderers=(lambda self, node: _write(self, node, False), None),
        block_renderers=(lambda self, node: _write(self, node, True), None),
    )
    return {"parallel_read_safe": True, "parallel_write_safe": True}
