"""Python imports this at its start, where PYTHONPATH has this folder."""

import os

if os.environ.get("EGRESS_PORTABLE") == "1":
    import portable  # type: ignore[import-not-found]  # beside this file

    portable.install()
