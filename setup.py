# cffi_modules has no form in pyproject.toml, and without it the build succeeds as a wheel that lacks the compiled module.
from setuptools import setup

setup(cffi_modules=["build_ext.py:ffi"], options={"bdist_wheel": {"py_limited_api": "cp311"}})
