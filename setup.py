# cffi_modules has no form in pyproject.toml, and without it the build succeeds as a wheel that lacks the compiled module.
import os
import sys

from setuptools import setup

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # an isolated build has it not
from build_ext import Build

setup(cffi_modules=["build_ext.py:ffi"], cmdclass={"build_ext": Build}, options={"bdist_wheel": {"py_limited_api": "cp311"}})
