"""``python -m pyoci.ociruntime`` is the command ``pyoci-runtime``."""

import sys

from pyoci.ociruntime import main

if __name__ == "__main__":
    sys.exit(main())
