"""Calls of NVML whose every outcome is an answer: a value, or why there is none."""

from __future__ import annotations

from typing import Any, Final

import pynvml

from monitoring.samples import Missing

NOT_HERE: Final = frozenset({
    pynvml.NVML_ERROR_NOT_SUPPORTED,
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
    pynvml.NVML_ERROR_DEPRECATED,
    pynvml.NVML_ERROR_INVALID_ARGUMENT,
    pynvml.NVML_ERROR_VGPU_ECC_NOT_SUPPORTED,
})  # fmt: skip
"""This board or driver does not have the function: an older form of it may do, and asking again soon is idle."""
GONE: Final = frozenset({
    pynvml.NVML_ERROR_UNINITIALIZED,
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
    pynvml.NVML_ERROR_GPU_IS_LOST,
    pynvml.NVML_ERROR_RESET_REQUIRED,
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
    pynvml.NVML_ERROR_GPU_NOT_FOUND,
})  # fmt: skip
"""The device, or the driver under it, has left."""

Call = tuple[str, tuple[Any, ...]]
"""A function of pynvml, and its arguments after the handle."""


def ask(function: str, *arguments: Any) -> Any:
    """What NVML answers, or a `Missing`."""
    try:
        return getattr(pynvml, function)(*arguments)
    except pynvml.NVMLError as error:
        return Missing(str(error), error.value)
    except pynvml.NVMLLibraryMismatchError:
        return Missing("the driver does not know this function", pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
    except AttributeError:
        return Missing(f"the installed nvidia-ml-py has no {function}", pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
    except UnicodeDecodeError:
        return Missing("the driver gave a placeholder (no text)")


def ask_first(calls: tuple[Call, ...], handle: Any) -> Any:
    """The answer of the first call that this board and driver have."""
    answer: Any = Missing("nothing was asked")
    for function, arguments in calls:
        answer = ask(function, handle, *arguments)
        if not (isinstance(answer, Missing) and answer.code in NOT_HERE):
            break
    return answer
