"""How a public name goes: after two minor releases of this warning."""

from __future__ import annotations

__all__ = ["KubeactorDeprecationWarning"]


class KubeactorDeprecationWarning(DeprecationWarning):
    """Told where a public name is used that two minor releases later is gone; the text names its successor.

    Nothing is deprecated so far. A test suite that wants to hear of it first has
    `filterwarnings = ["error::kubeactor.KubeactorDeprecationWarning"]` in its pytest options.
    """
