"""Profiles of hypothesis: the same examples on every run, no deadline on a shared machine."""

from hypothesis import settings

settings.register_profile("gradlab", deadline=None, derandomize=True, database=None, print_blob=True)
settings.load_profile("gradlab")
