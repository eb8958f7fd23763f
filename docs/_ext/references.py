"""What docstrings write, and Sphinx reads otherwise.

References name the module that defines an object, the manual the module that users import it from:
``:func:`~.geodesics.geodesic``` finds ``pythae_geometric.geometry.geodesic``. Something that is
documented nowhere is shown as code if it is there at all, and is an error otherwise.
"""

import importlib
import inspect
import pkgutil
import re

from sphinx.util.nodes import make_refnode

PACKAGE = "pythae_geometric"


def resolve(app, env, node, contnode):
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"].lstrip(".")
    name = target.rpartition(".")[2]
    domain = env.get_domain("py")
    for known, entry in domain.objects.items():
        if known.rpartition(".")[2] == name and known.startswith(PACKAGE):
            page = node.get("refdoc", env.docname)
            return make_refnode(app.builder, page, entry.docname, entry.node_id, contnode, known)
    return contnode if name in _names() else None


def _names(cache=[]):  # noqa: B006  (filled once)
    """What the package defines, public or not, and what the classes hold."""
    if not cache:
        package = importlib.import_module(PACKAGE)
        names = set()
        for info in pkgutil.walk_packages(package.__path__, PACKAGE + "."):
            names.add(info.name.rpartition(".")[2])
            module = importlib.import_module(info.name)
            for name, value in vars(module).items():
                names.add(name)
                if inspect.isclass(value) and value.__module__.startswith(PACKAGE):
                    names.update(dir(value))
        cache.append(names)
    return cache[0]


def skip(app, what, name, obj, skipped, options):
    """Fields of named tuples are in the docstrings of the tuples."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def initials(app, what, name, obj, options, lines):
    """A letter with a full stop, an author's initial or "latent_dim: d.", begins no list."""
    lines[:] = [re.sub(r"^( *)([A-Z]\. )|(: )([a-z]\.)$", _escaped, line) for line in lines]


def _escaped(match):
    before, letter = match.group(1, 2) if match[2] else match.group(3, 4)
    return rf"{before}\{letter}"


def setup(app):
    app.connect("autodoc-process-docstring", initials, priority=400)  # before napoleon
    app.connect("missing-reference", resolve)
    app.connect("autodoc-skip-member", skip)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
