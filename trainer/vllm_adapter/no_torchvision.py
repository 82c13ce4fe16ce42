"""Lets vLLM import its vision models on a machine without torchvision.

They import it, through transformers, for an image processor that is never asked anything here:
images reach vLLM as patches that the renderer made. So an empty package will do. It is put in
place in a server's processes only, and only if there is no real one.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_NAME = "torchvision"
_VIDEO = {
    "VIDEO_PROCESSOR_MAPPING": "models.auto.video_processing_auto",
    "AutoVideoProcessor": "models.auto.video_processing_auto",
    "BaseVideoProcessor": "video_processing_utils",
    "VideoProcessorMixin": "video_processing_utils",
}


class _Absent:
    """Any attribute of the package. Using it is an error that says why."""

    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, name: str) -> _Absent:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Absent(f"{self._name}.{name}")

    def __or__(self, other: Any) -> Any:  # in annotations
        return self

    __ror__ = __or__

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError(f"{self._name} was called, and torchvision is not installed")


class _Package(ModuleType):
    __version__ = "0.0"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Absent(f"{self.__name__}.{name}")


class _Finder(MetaPathFinder, Loader):
    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname.partition(".")[0] != _NAME:
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Package(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


def pretend() -> None:
    """From now on transformers finds the package too."""
    if importlib.util.find_spec(_NAME) is not None:
        return
    import transformers
    from transformers.utils import import_utils

    sys.meta_path.append(_Finder())
    import_utils.is_torchvision_available.cache_clear()
    import_utils.is_torchvision_v2_available.cache_clear()
    # What transformers made of its video classes when it looked for the package and found none.
    for name in ("auto_mappings", "video_processing_auto"):
        importlib.reload(importlib.import_module(f"transformers.models.auto.{name}"))
    for name, home in _VIDEO.items():
        module = importlib.import_module(f"transformers.{home}")
        setattr(transformers, name, getattr(module, name))
