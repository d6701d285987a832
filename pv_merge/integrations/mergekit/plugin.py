"""Makes stock mergekit know the method ``preference_vector``.

mergekit looks for no plugins, but it imports PyTorch, and PyTorch calls ``activate`` (the entry
point in the group ``torch.backends``) whenever it is imported. ``activate`` only sets an import
hook on mergekit's registry of methods; nothing else is loaded until mergekit is.

Standard library only, and nothing here may raise: an exception would fail ``import torch``.
"""

import sys
from importlib.abc import Loader, MetaPathFinder

REGISTRY = "mergekit.merge_methods.registry"


def activate():  # type: ignore[no-untyped-def]
    """Register the method when mergekit's registry is imported, or now if it already is."""
    try:
        if REGISTRY in sys.modules:
            register()
        elif not any(isinstance(finder, _RegistryFinder) for finder in sys.meta_path):
            sys.meta_path.insert(0, _RegistryFinder())
    except Exception as error:
        complain(error)


def register():  # type: ignore[no-untyped-def]
    """Import the method, which registers itself; say so in one line if that fails."""
    try:
        import pv_merge.integrations.mergekit.method  # noqa: F401
    except Exception as error:
        complain(error)


def complain(error):  # type: ignore[no-untyped-def]
    """Print one line to stderr; even a closed stderr is no reason to raise."""
    try:
        reason = " ".join(str(error).split()) or "no reason given"
        sys.stderr.write(
            f"pv-merge: mergekit will not know merge_method preference_vector "
            f"({type(error).__name__}: {reason})\n"
        )
    except Exception:
        pass


class _RegistryFinder(MetaPathFinder):
    """Finds mergekit's registry as usual, and hooks on to the end of its execution."""

    def find_spec(self, fullname, path=None, target=None):  # type: ignore[no-untyped-def]
        if fullname != REGISTRY:
            return None
        try:
            for finder in sys.meta_path:
                if finder is self or not hasattr(finder, "find_spec"):
                    continue
                spec = finder.find_spec(fullname, path, target)
                if spec is not None:
                    if spec.loader is not None:
                        spec.loader = _RegisteringLoader(spec.loader)
                    return spec
        except Exception as error:
            complain(error)
        return None


class _RegisteringLoader(Loader):
    """Runs mergekit's own loader, puts it back, and registers the method."""

    def __init__(self, loader):  # type: ignore[no-untyped-def]
        self._loader = loader

    def __getattr__(self, name):  # type: ignore[no-untyped-def]
        return getattr(self._loader, name)

    def create_module(self, spec):  # type: ignore[no-untyped-def]
        return self._loader.create_module(spec)

    def exec_module(self, module):  # type: ignore[no-untyped-def]
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        register()
