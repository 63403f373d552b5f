"""Steps and optimisers: fine-tuning with `VideoTrainer`, recipes of the papers, the plan before and the summary after.

Names are imported when they are first used: `transformers.Trainer` is slow to import.
"""

from __future__ import annotations

import lazy_loader

# The names and where they live are in `__init__.pyi`, which type checkers read too.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
