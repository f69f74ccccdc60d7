"""Who runs us where it is not this host's root: another user, by name or in a user namespace.

Rootless engines run runtimes and hooks as uid 0 of a namespace in which the files of the host's
root show as those of nobody. In a container with all ids of its own, root is root.
"""

from shim import lightos as os


def rootless() -> bool:
    """Tell whether we lack the rights of whoever this system's files belong to."""
    return os.geteuid() != 0 or (os.stat("/etc").st_uid != 0 and user() != 0)


def user() -> int:
    """Return the uid that we have outside of our user namespace."""
    euid = os.geteuid()
    with open("/proc/self/uid_map", encoding="ascii") as file:
        for line in file:
            inside, outside, count = map(int, line.split())
            if inside <= euid < inside + count:
                return outside + euid - inside
    return euid


def log() -> str:
    """Return the user's own audit log; its directory is made if need be. OSError: it cannot be.

    The home is the one of the user database: hooks have no environment.
    """
    import pwd

    try:
        home = pwd.getpwuid(user()).pw_dir
    except KeyError:
        raise FileNotFoundError(f"uid {user()} has no home") from None
    directory = f"{home}/.local/state/seccomp-shim"
    os.makedirs(directory, mode=0o700, exist_ok=True)
    return f"{directory}/audit.jsonl"
