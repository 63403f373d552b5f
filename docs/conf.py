"""Sphinx's configuration: `make docs`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS), str(DOCS.parent)]
# Nothing is fetched in a build, and notebooks see this checkout.
# Models of tutorials are so small that a second thread costs more than it brings.
os.environ.update(
    OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", PYTHONPATH=str(DOCS.parent), HF_HUB_DISABLE_PROGRESS_BARS="1"
)

import docstrings  # noqa: E402
import site_pages  # noqa: E402
from docutils import nodes  # noqa: E402

from hf_video.base.version import __version__  # noqa: E402

site_pages.write_pages()

project = "hf_video"
author = "hf_video contributors"
project_copyright = author
release = version = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"hf_video {release}"
html_theme_options = {"navigation_with_keys": True}
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
# Pages are not run but in tests; those of `tutorials/` name a kernel, and are. A page runs again when its code changes.
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_inherit_docstrings = False
autodoc_default_options = {"exclude-members": "config_class,model_type,base_model_prefix,main_input_name"}
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_preprocess_types = False

linkcheck_timeout = 20


def external_links(app, error) -> None:
    """Lists the links that lead out of the site, since an offline build asks nobody: `make docs-links` does."""
    if error or app.builder.name != "html":
        return
    links: dict[str, set[str]] = {}
    for page in sorted(app.env.found_docs):
        for node in app.env.get_doctree(page).findall(nodes.reference):
            if node.get("refuri", "").startswith(("http:", "https:")):
                links.setdefault(node["refuri"], set()).add(page)
    lines = [f"{link}  ({', '.join(sorted(pages))})" for link, pages in sorted(links.items())]
    (Path(app.outdir).parent / "external_links.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


TARGETS = site_pages.targets()


def to_rst(app, what, name, obj, options, lines) -> None:
    lines[:] = docstrings.to_rst(lines, TARGETS)


def setup(app) -> None:
    app.connect("autodoc-process-docstring", to_rst, priority=100)  # before napoleon
    app.connect("build-finished", external_links)
