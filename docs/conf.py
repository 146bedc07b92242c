"""Configuration of the site: python -m sphinx -W -b html docs build/site."""

from __future__ import annotations

import importlib.util
import inspect
import re
from pathlib import Path

import quadgate
from sphinx import addnodes

ROOT = Path(__file__).parents[1]

project = "quadgate"
author = "quadgate developers"
copyright = "2026, quadgate developers"
version = release = quadgate.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_static"]

myst_heading_anchors = 3
highlight_language = "python"
smartquotes_action = "D"  # dashes; quotation marks stay as they are written

default_role = "py:obj"
# A short name in a docstring that several classes have, such as h0.
suppress_warnings = ["ref.python"]
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "inherited-members": True, "undoc-members": False}
# Stands in where torch is not installed: the site has the modules' arguments in any case.
autodoc_mock_imports = [] if importlib.util.find_spec("torch") else ["torch"]
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = "quadgate"
html_static_path = ["_static"]
html_css_files = ["quadgate.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1f5fa8", "color-brand-content": "#1f5fa8"},
    "dark_css_variables": {"color-brand-primary": "#7db7f5", "color-brand-content": "#7db7f5"},
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# A link to a file of the repository that is no page of the site, as [text](../path).
OUTSIDE = re.compile(r"(?<!!)\[([^\]]+)\]\(\.\./([^)#]+)[^)]*\)")


# A pattern in the toctree of index.md.
PATTERN = re.compile(r"^([\w-]+\*)\n", re.M)


def prepare(_app, _page, source):
    """Turn links to other files of the repository into their names, and drop patterns that no page matches.

    Only the pages of docs are on the site, and the programs, for download. Sphinx has no name for its warning about an
    empty pattern.
    """

    def replace(link):
        path = link.group(2)
        if path.startswith("examples/") and path.endswith(".py"):
            return f"{{download}}`{link.group(1)} <../{path}>`"
        # A link to nothing stays, and Sphinx reports it.
        return f"`{path}`" if (ROOT / path).exists() else link.group(0)

    pages = Path(__file__).parent
    source[0] = OUTSIDE.sub(replace, source[0])
    source[0] = PATTERN.sub(lambda line: line.group(0) if any(pages.glob(f"{line.group(1)}.md")) else "", source[0])


def sign(_app, what, _name, thing, _options, signature, annotation):
    """Show the constructor's arguments: networks have a __new__ too, which only looks for misspelt ones."""
    if what != "class" or not thing.__module__.startswith("quadgate") or "__init__" not in vars(thing):
        return signature, annotation
    arguments = list(inspect.signature(thing.__init__).parameters.values())[1:]
    plain = [a.replace(annotation=inspect.Parameter.empty) for a in arguments]
    return str(inspect.Signature(plain)).replace("<class 'numpy.float32'>", "numpy.float32"), None


def begin_with_blank(_app, what, _name, _thing, _options, lines):
    """Keep napoleon from taking a property's first words, up to a colon, for its type."""
    if what in ("attribute", "property"):
        lines.insert(0, "")


def drop_stray_links(_app, page):
    """Keep words of a parameter's type, such as B or gates, from being links to attributes of that name."""
    for link in list(page.findall(addnodes.pending_xref)):
        target = link["reftarget"].rpartition(".")[2]
        if link.get("reftype") == "class" and (len(target) == 1 or not target[:1].isupper()):
            link.replace_self(link.children)


def setup(app):
    app.connect("source-read", prepare)
    app.connect("doctree-read", drop_stray_links)
    app.connect("autodoc-process-signature", sign)
    app.connect("autodoc-process-docstring", begin_with_blank, priority=400)  # before napoleon
