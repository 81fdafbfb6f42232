"""``python -m pyoci.cli``."""

import sys

from pyoci.cli import main

sys.exit(main())
