"""The full numbers of docs/faults.md where the normal suite runs fewer."""

import os

LONG = bool(os.environ.get("PYOCI_TESTS_LONG"))
