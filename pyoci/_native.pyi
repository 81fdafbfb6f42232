# The compiled module has no types of its own: pyoci/_ffi.py gives them.
from typing import Any

ffi: Any
lib: Any
