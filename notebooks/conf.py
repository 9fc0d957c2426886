"""The documentation site: `python -m sphinx -W -j auto notebooks OUT`, with the extra `docs` installed.

Every block of code on it runs as it is built. Nothing is fetched, by the build or by the pages.
"""

import sys
from pathlib import Path

import matplotlib
import pandas  # noqa: F401  (imported once here, pages find it there)

sys.path[:0] = [str(Path(__file__).parent / "_extensions"), str(Path(__file__).parents[1])]

import lrgls_dask  # noqa: E402

matplotlib.use("agg")

project = "lrgls_dask"
author = "lrgls_dask developers"
copyright = f"{author}, MIT licence"
version = release = lrgls_dask.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc"]
extensions += ["docstrings", "mathml", "signatures"]  # of the folder _extensions
exclude_patterns = ["_*"]
templates_path = ["_templates"]
nitpicky = False

myst_enable_extensions = ["dollarmath", "deflist", "colon_fence", "attrs_inline"]
myst_heading_anchors = 3
nb_custom_formats = {".md": "executed.read"}
nb_execution_mode = "off"  # `executed.read` has run the page already
nb_merge_streams = True
nb_mime_priority_overrides = [("html", "image/svg+xml", 1)]

autosummary_generate = False
autodoc_member_order = "groupwise"
autodoc_typehints = "none"
autodoc_preserve_defaults = True
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
add_module_names = False
maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"

html_theme = "pydata_sphinx_theme"
html_title = "lrgls_dask"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_show_sourcelink = False
html_copy_source = False
html_sidebars = {name: [] for name in ("index", "mathematics", "performance", "promises", "when_not")}
html_theme_options = {
    "navbar_start": ["navbar-logo"],
    "navbar_end": ["theme-switcher"],
    "navbar_persistent": ["search-button"],
    "header_links_before_dropdown": 6,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
    "show_toc_level": 2,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_context = {"default_mode": "auto"}
