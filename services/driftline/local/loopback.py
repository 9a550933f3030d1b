"""Start a server that listens on every interface so that it listens on loopback only.

    python -m driftline.local.loopback COMMAND...

Milvus 2.3 binds nine ports to the wildcard address, and no setting changes that. Here the kernel tells a small
helper of every bind() that the server is about to make (a seccomp filter with user notification: Linux 5.5, no
privilege, no namespace, nothing on the path of the data), the helper writes the loopback address over the wildcard
in the server's memory, and the call goes on. This process becomes the server, so that its id is the server's, and
the helper ends with it. It keeps honest software off the network; it is no sandbox for a hostile one.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import socket
import struct
import sys
from typing import NoReturn

_PR_SET_NO_NEW_PRIVS, _PR_SET_PTRACER = 38, 0x59616D61
_SET_MODE_FILTER, _FLAG_NEW_LISTENER = 1, 1 << 3
_NOTIFY, _ALLOW = 0x7FC00000, 0x7FFF0000
_CONTINUE = 1
# Of the kernel's interface: (audit architecture, number of seccomp, number of bind).
_MACHINES = {"x86_64": (0xC000003E, 317, 49), "aarch64": (0xC00000B7, 277, 200)}
# struct seccomp_notif: id, pid, flags, then seccomp_data: nr, arch, instruction pointer, six arguments.
_NOTICE = struct.Struct("=QIIiIQ6Q")
_ANSWER = struct.Struct("=QqiI")


def _ioctl(direction: int, number: int, size: int) -> int:
    return direction << 30 | size << 16 | ord("!") << 8 | number


_RECEIVE, _SEND = _ioctl(3, 0, _NOTICE.size), _ioctl(3, 1, _ANSWER.size)
_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def _filter(architecture: int, bind: int) -> bytes:
    """BPF: tell of bind() of this architecture, allow everything else."""
    load, equal, give = 0x20, 0x15, 0x06
    steps = [
        (load, 0, 0, 4),  # seccomp_data.arch
        (equal, 0, 3, architecture),
        (load, 0, 0, 0),  # seccomp_data.nr
        (equal, 0, 1, bind),
        (give, 0, 0, _NOTIFY),
        (give, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def _install() -> int:
    """The filter on this process and all that it becomes; returns the descriptor on which notices arrive."""
    machine = platform.machine()
    if machine not in _MACHINES:
        raise OSError(f"not known how on {machine}")
    architecture, seccomp, bind = _MACHINES[machine]
    code = _filter(architecture, bind)
    program = _Program(len(code) // 8, code)
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    listener = int(_libc.syscall(seccomp, _SET_MODE_FILTER, _FLAG_NEW_LISTENER, ctypes.byref(program)))
    if listener < 0:
        raise OSError(ctypes.get_errno(), "this kernel, or the container's seccomp profile, has no user notification")
    return listener


def loopback_address(address: bytes) -> bytes | None:
    """The socket address that is to be bound instead; None when it may be bound as it is."""
    (family,) = struct.unpack_from("=H", address) if len(address) >= 2 else (0,)
    if family == socket.AF_INET and address[4:8] == bytes(4):
        return address[:4] + socket.inet_aton("127.0.0.1") + address[8:]
    if family == socket.AF_INET6 and address[8:24] == bytes(16):
        # The wildcard of a socket for both protocols becomes IPv4's loopback in IPv6 notation, since clients connect
        # to 127.0.0.1.
        return address[:8] + socket.inet_pton(socket.AF_INET6, "::ffff:127.0.0.1") + address[24:]
    return None


def _serve(listener: int) -> None:
    """Answer the kernel's notices until the server and all of its threads have ended."""
    import fcntl
    import select

    poll = select.poll()
    poll.register(listener, select.POLLIN)
    while True:
        events = poll.poll()
        if events and not events[0][1] & select.POLLIN:
            return  # hung up: nobody is left who could bind
        notice = bytearray(_NOTICE.size)
        try:
            fcntl.ioctl(listener, _RECEIVE, notice)
            number, pid, _, _, _, _, _, where, length, *_ = _NOTICE.unpack(notice)
            _redirect(pid, where, min(length, 128))
            fcntl.ioctl(listener, _SEND, bytearray(_ANSWER.pack(number, 0, 0, _CONTINUE)))
        except FileNotFoundError:
            continue  # the thread that asked has ended


def _redirect(pid: int, where: int, length: int) -> None:
    memory = os.open(f"/proc/{pid}/mem", os.O_RDWR)
    try:
        instead = loopback_address(os.pread(memory, length, where))
        if instead is not None:
            os.pwrite(memory, instead, where)
    finally:
        os.close(memory)


def _help(channel: socket.socket) -> None:
    """The helper: ends when the server has."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # sent to the whole session; it lives exactly as long as the server
    _, listeners, _, _ = socket.recv_fds(channel, 1, 1)
    channel.close()
    for listener in listeners:  # none where the filter could not be installed
        _serve(listener)


def main(command: list[str]) -> NoReturn:
    ours, theirs = socket.socketpair()
    helper = os.fork()
    if helper == 0:
        ours.close()
        _help(theirs)
        os._exit(0)
    theirs.close()
    # Where only ancestors may look into a process' memory (Yama), the helper is allowed by its number; elsewhere this
    # fails and is not needed.
    _libc.prctl(_PR_SET_PTRACER, helper, 0, 0, 0)
    try:
        listener = _install()
    except OSError as error:
        raise SystemExit(
            f"{command[0]} cannot be kept on loopback: {error}. "
            "DRIFTLINE_LISTEN_EVERYWHERE=1 starts it nevertheless, open to the network."
        ) from error
    socket.send_fds(ours, [b"."], [listener])
    os.close(listener)
    ours.close()
    os.execv(command[0], command)  # noqa: S606 - an argument list, no shell


if __name__ == "__main__":
    main(sys.argv[1:])
