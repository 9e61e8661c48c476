"""What an exception that nothing expected means: the machine's own troubles, or a fault of Atelier, of which
the details go to a file.
"""

from __future__ import annotations

import errno
import os
import platform
import re
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from library.secrets import hide_tokens, shown_command

EXIT_CODE = 70  # EX_SOFTWARE of sysexits.h
LONGEST_REASON = 200  # characters
_LIBRARIES = ("torch", "accelerate", "diffusers", "transformers", "safetensors", "bitsandbytes")
_OURS = ("library", "networks", "tools", "finetune")
_FIXES = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room",
    errno.EACCES: "change its permissions",
    errno.EPERM: "change its permissions",
    errno.EROFS: "use another drive",
    errno.ENAMETOOLONG: "use a shorter name",
    errno.EMFILE: "raise the limit (ulimit -n)",
    errno.ENFILE: "close other programs",
    errno.EIO: "check the drive",
    errno.ESTALE: "check the network drive",
    errno.ENODEV: "check the drive",
    errno.ENOTCONN: "check the network drive",
    errno.ENOMEM: "close other programs, or ask for less at once",
}
_NETWORK_MODULES = ("huggingface_hub", "requests", "urllib3", "httpx", "httpcore")
_FIX_MEMORY = (
    "use a smaller batch or resolution, --gradient_checkpointing or --mixed_precision bf16 (--dry_run tells)"
)
_FIX_LIMITED = (
    f"{_FIX_MEMORY}; the rest of the card is left to Windows, as a run that spills into main memory is many "
    "times slower (--allow_shared_memory lets it)"
)
_FIX_SHARED = "use fewer --max_data_loader_n_workers, or give the container more shared memory (--shm-size)"
# (what libraries write, where, cause, fix), for errors without a type of their own; ".": the reason itself.
_SIGNS = (
    (r"No space left on device|Disk quota exceeded", "disk", ".", "make room"),
    # With a limit on its share of the card, torch says how much that is.
    (r"(CUDA|HIP)\b.*out of memory[\s\S]*\d [KMGi]+B allowed", "device", ".", _FIX_LIMITED),
    (r"(CUDA|HIP|MPS|XPU)\b.*out of memory|CUBLAS_STATUS_ALLOC_FAILED", "device", ".", _FIX_MEMORY),
    (r"can't allocate memory|not enough memory|Unable to allocate|[Cc]annot allocate memory|bad_alloc",
     "memory", ".", "close other programs, or use a smaller batch or resolution"),
    (r"shared memory|bus error", "shared memory", "loading pictures needs more", _FIX_SHARED),
    (r"DataLoader worker \(pid.*(killed|exited)", "a process that loads pictures", "was ended from outside",
     f"where memory ran out, {_FIX_SHARED}"),
    (r"[Cc]onnection (closed by peer|reset by peer|refused)|NCCL.*(remote|peer|timeout)|Timed out waiting",
     "another process of this run", "has ended or does not answer", "see what it said"),
    (r"no NVIDIA driver|driver .*(too old|insufficient)|no kernel image|device-side assert|CUDA error",
     "device", ".", "check the driver and that PyTorch was built for this device"),
)  # fmt: skip


def explain(error: BaseException) -> tuple[str, str, str] | None:
    """Where, cause and fix, when the machine, its drives or its network failed; None for a fault of ours."""
    if isinstance(error, ImportError) and (error.name or "").split(".")[0] not in _OURS:
        cause = f"cannot be imported ({reason_of(error)})"
        return error.name or "a library", cause, "install it: pip install -r requirements.txt"
    if isinstance(error, OSError) and not _is_of_network(error):
        fix = _FIXES.get(error.errno or 0)
        if fix is not None:
            return str(error.filename or "disk"), error.strerror or reason_of(error), fix
    for pattern, where, cause, fix in _SIGNS:
        if isinstance(error, (OSError, RuntimeError, MemoryError)) and re.search(pattern, str(error)):
            return where, reason_of(error) if cause == "." else cause, fix
    if isinstance(error, MemoryError):
        return "memory", "there is not enough", "close other programs, or use a smaller batch or resolution"
    if _is_of_network(error):
        fix = "check the connection and try again, or use files on this machine (HF_HUB_OFFLINE=1)"
        return "network", reason_of(error), fix
    return None


def reason_of(error: BaseException) -> str:
    """The type and the telling line of its message, shortened and without tokens."""
    try:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    except Exception:  # its own __str__ fails
        lines = []
    if lines and lines[0].startswith("Caught "):  # in a loader's worker, whose traceback follows
        return _shortened(lines[-1])
    name = type(error).__name__
    return _shortened(f"{name}: {lines[0]}" if lines else name)


def write_details(error: BaseException) -> Path | None:
    """Write the traceback, the command and the versions to a new file of ours among the system's temporary
    files or, without room there, in the current folder. Returns its path; None where neither takes it.
    """
    text = details_of(error)
    name = time.strftime("atelier-fault-%Y%m%d-%H%M%S-")
    for folder in (None, "."):
        with suppress(OSError):
            descriptor, path = tempfile.mkstemp(".txt", name, folder)  # readable by the user alone
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
                    file.write(text)
            except OSError:
                Path(path).unlink(missing_ok=True)
                raise
            return Path(path).absolute()
    return None


def details_of(error: BaseException) -> str:
    """What a bug report should hold, without tokens."""
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    found = [f"Python {platform.python_version()} on {platform.platform()}"]
    for name in _LIBRARIES:
        with suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    return f"command: {shown_command(sys.argv)}\n{', '.join(found)}\n\n{hide_tokens(trace)}"


def stop_behind(error: BaseException) -> KeyboardInterrupt | None:
    """The Ctrl-C or signal that a library turned into an exception of its own, as imports of compiled modules
    do; None if there was none.
    """
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        if isinstance(link, KeyboardInterrupt):
            return link
        seen.add(id(link))
        link = link.__cause__ or link.__context__
    return None


@contextmanager
def threads_tell(tell: Callable[[BaseException], None]) -> Iterator[None]:
    """Context manager: inside, exceptions that end a thread go to `tell`, and no traceback is printed."""
    old = threading.excepthook

    def take(ended: threading.ExceptHookArgs) -> None:
        if ended.exc_value is not None:
            tell(ended.exc_value)

    threading.excepthook = take
    try:
        yield
    finally:
        threading.excepthook = old


def _is_of_network(error: BaseException) -> bool:
    modules = {kind.__module__.split(".")[0] for kind in type(error).__mro__}
    return isinstance(error, (ConnectionError, TimeoutError)) or not modules.isdisjoint(_NETWORK_MODULES)


def _shortened(line: str) -> str:
    line = hide_tokens(line)
    return line if len(line) <= LONGEST_REASON else f"{line[:LONGEST_REASON]}..."
