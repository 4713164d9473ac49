"""How the documentation is built: ``nox -s docs``."""

from importlib.metadata import version as version_of

project = "antflow"
author = "The antflow developers"
copyright = "2026, the antflow developers"  # noqa: A001
release = version = version_of("antflow")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "antflow"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = True
napoleon_use_ivar = True
nitpicky = False
