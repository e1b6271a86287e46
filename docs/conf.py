"""Settings of Sphinx for `make docs`. docs/index.md has the table of contents."""

project = "Kirazuri Server"
author = "the authors of Kirazuri Server"
html_title = project
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
extensions = ["myst_parser"]
exclude_patterns = ["images"]
myst_heading_anchors = 4
nitpicky = True
