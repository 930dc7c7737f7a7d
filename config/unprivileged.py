"""Runs a program under another account, for root only; this file is also the launcher itself.

PostgreSQL refuses to run as root. The launcher (`python -I -S unprivileged.py …`) gives up root for
good and then becomes the program, so that the process keeps its number. It exists because the
alternatives do not: `preexec_fn` is unsafe with threads, and `subprocess(user=…)` cannot keep the
one capability that is needed where the account may not enter a parent folder (``/root``, say).
"""

import ctypes
import json
import os
import pwd
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

EXIT_CANNOT_SWITCH = 78

# From linux/prctl.h and linux/capability.h.
_PR_SET_KEEPCAPS = 8
_PR_CAPBSET_DROP = 24
_PR_SET_SECUREBITS = 28
_SECBIT_NO_SETUID_FIXUP = 1 << 2
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_DAC_OVERRIDE = 1
_CAP_DAC_READ_SEARCH = 2
_CAP_SETPCAP = 8
_LAST_CAPABILITY = 63
# Reading suffices; containers often lack it and have only the wider one.
_CANDIDATES = (_CAP_DAC_READ_SEARCH, _CAP_DAC_OVERRIDE)


class _Order(TypedDict):
    name: str
    uid: int
    gid: int
    groups: list[int]
    paths: list[str]
    command: list[str]


def command_as(
    account: pwd.struct_passwd, command: Sequence[str], *, paths: Sequence[Path]
) -> list[str]:
    """Return the command line that runs `command` as the account.

    paths: files and folders that the program must be able to reach. Where the account cannot reach
    one of them, the program keeps the capability to look into any folder, and no other.
    """
    order: _Order = {
        "name": account.pw_name,
        "uid": account.pw_uid,
        "gid": account.pw_gid,
        "groups": os.getgrouplist(account.pw_name, account.pw_gid),
        "paths": [str(path) for path in paths],
        "command": list(command),
    }
    return [sys.executable, "-I", "-S", str(Path(__file__).resolve()), json.dumps(order)]


class _CapabilityHeader(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _CapabilitySet(ctypes.Structure):
    _fields_ = [
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    ]


def _checked(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


class _Kernel:
    """The system calls that Python has no function for."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)

    def prctl(self, *arguments: int) -> None:
        padded = [ctypes.c_ulong(number) for number in (*arguments, 0, 0, 0, 0)[:5]]
        _checked(self._libc.prctl(*padded), "prctl")

    def permitted_capabilities(self) -> set[int]:
        header = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
        sets = (_CapabilitySet * 2)()
        _checked(self._libc.capget(ctypes.byref(header), sets), "capget")
        mask = sets[0].permitted | sets[1].permitted << 32
        return {number for number in range(_LAST_CAPABILITY + 1) if mask >> number & 1}

    def keep_only(self, *capabilities: int) -> None:
        header = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
        mask = sum(1 << capability for capability in capabilities)
        sets = (_CapabilitySet * 2)()
        sets[0] = _CapabilitySet(mask, mask, mask)
        _checked(self._libc.capset(ctypes.byref(header), sets), "capset")

    def drop_bounding_set(self) -> None:
        """Make the loss final for everything that is executed later, where that is allowed."""
        # What is not in the bounding set cannot be handed on either, so the two candidates stay.
        for number in set(range(_LAST_CAPABILITY + 1)) - {*_CANDIDATES, _CAP_SETPCAP}:
            try:
                self.prctl(_PR_CAPBSET_DROP, number)
            except OSError:
                return


def _unreachable(paths: Sequence[str]) -> list[str]:
    # access(2) asks for the real account and leaves capabilities out, unlike open or stat.
    return [path for path in paths if not os.access(path, os.R_OK | os.X_OK)]


def _become(order: _Order) -> None:
    """Switch to the account and replace this process by the program."""
    kernel = _Kernel()
    kernel.prctl(_PR_SET_KEEPCAPS, 1)
    permitted = kernel.permitted_capabilities()
    kernel.drop_bounding_set()
    os.setgroups(order["groups"])
    os.setresgid(order["gid"], order["gid"], order["gid"])
    os.setresuid(order["uid"], order["uid"], order["uid"])
    blocked = _unreachable(order["paths"])
    wanted = None
    if blocked:
        wanted = next((one for one in _CANDIDATES if one in permitted), None)
        if wanted is None:
            raise PermissionError(
                f"the account {order['name']!r} cannot reach {blocked[0]}, and this system does not"
                " let root lend it the right to. Choose a folder whose parents others may enter"
                " (ARMARIUM_DATA_DIR), name an account that can reach it"
                " (ARMARIUM_DATABASE_SYSTEM_USER), or do not run as root."
            )
    if wanted is None:
        kernel.keep_only()
    else:
        kernel.keep_only(wanted, *permitted & {_CAP_SETPCAP})
        if _CAP_SETPCAP in permitted:
            # PostgreSQL looks at its own programs with access(2), which would say no.
            kernel.prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP)
            kernel.prctl(_PR_CAPBSET_DROP, _CAP_SETPCAP)
        kernel.keep_only(wanted)
        kernel.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, wanted)
    kernel.prctl(_PR_SET_NO_NEW_PRIVS, 1)
    os.execv(order["command"][0], order["command"])  # noqa: S606


if __name__ == "__main__":
    try:
        _become(json.loads(sys.argv[1]))
    except OSError as error:
        sys.stderr.write(f"Cannot switch from root to another account: {error}\n")
        sys.exit(EXIT_CANNOT_SWITCH)
