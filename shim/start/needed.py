"""Which calls this host's kernel lets a filter deny."""

from shim.errors import ShimError


def needed_calls(canary: int) -> "tuple[dict[str, int], object, str]":
    """Give the calls to let through by name, the kernel's state, and why there are none.

    A ``canary`` other than 0 stands in for all of them. ShimError: the state cannot be told.
    """
    if canary:
        return {f"canary-{canary}": canary}, "canary", ""
    from shim.host.cache import facts

    host = facts()
    states = {name: call["state"] for name, call in host["syscalls"].items()}
    if unknown := [name for name, state in states.items() if state == "unknown"]:
        why = "; ".join(f"{n}: {host['syscalls'][n].get('reason', '')}" for n in unknown)
        raise ShimError(f"the kernel's state is unknown: {why}")
    needed = {n: c["nr"] for n, c in host["syscalls"].items() if c["state"] == "filtered"}
    return needed, states, "this kernel does not let a filter deny any of these calls"
