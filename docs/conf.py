"""The manual: ``python -m sphinx -W --keep-going -n -b html docs docs/_build``.

It lives in a folder of its own, and not in examples/, because what is in examples/ are programs to
run and their results, while this is text to read; Sphinx, and those who look for a manual, expect
it here. Nothing is fetched from the network, neither to build the pages nor to read them.
"""

import os
import re
import sys

sys.path[:0] = [os.path.abspath("_ext"), os.path.abspath("..")]

project = "pythae-geometric"
author = "the authors of pythae-geometric"
with open(os.path.join(os.path.dirname(__file__), "../pythae_geometric/__init__.py")) as f:
    release = version = re.search(r'__version__ = "(.*)"', f.read())[1]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "mathml",
    "references",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"pythae-geometric {release}"
html_static_path = ["_static"]
html_css_files = ["manual.css"]
html_show_copyright = False
html_copy_source = False
html_show_sourcelink = False
html_math_renderer = "mathml"

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 4

# What torch documents of every module, and the link from a class to its config, is left out.
autodoc_default_options = {
    "members": True,
    "member-order": "bysource",
    "exclude-members": "extra_repr, config_class",
}
# The docstrings give shapes and ranges, which types do not.
autodoc_typehints = "none"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_attr_annotations = False
maximum_signature_line_length = 80

# What Python, torch and pythae document, and an inventory from the network would resolve.
_BUILTIN = r"(bool|dict|float|int|str|tuple|[A-Z]\w*(Error|Warning))"
nitpick_ignore_regex = [(r"py:.*", rf"{_BUILTIN}(, {_BUILTIN})*")]
