"""The desired children of an ActorNamespace: one pure function each, from the spec to the whole manifest.

`manifest.py` has what all share, `pods.py` what both pod templates share. Nothing here talks to the API server; the
operator's plan decides which of them it applies, and when.
"""
