"""Labels and events of cameras and streams while they run, on the terminal and on a page."""

from __future__ import annotations

import lazy_loader

# The names and where they live are in `__init__.pyi`, which type checkers read too.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
