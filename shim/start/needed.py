"""Which calls this host's kernel lets a filter deny."""

from shim.errors import ShimError


def needed_calls(canary: int) -> "tuple[dict[str, int], dict[str, str], str]":
    """Return the calls to let through by name, the kernel's state, and why there are none.

    A ``canary`` other than 0 is one more, whatever the kernel does: the state says so, and with it
    each line of the log. ShimError: the state cannot be told.
    """
    from shim.host.cache import facts

    host = facts()
    states = {name: call["state"] for name, call in host["syscalls"].items()}
    if unknown := [name for name, state in states.items() if state == "unknown"]:
        why = "; ".join(f"{n}: {host['syscalls'][n].get('reason', '')}" for n in unknown)
        raise ShimError(f"the kernel's state is unknown: {why}")
    needed = {n: c["nr"] for n, c in host["syscalls"].items() if c["state"] == "filtered"}
    if canary:
        needed[f"canary-{canary}"] = canary
        states[f"canary-{canary}"] = "on, for a test"
    return needed, states, "this kernel does not let a filter deny any of these calls"
