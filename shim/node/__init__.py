"""What a DaemonSet's pod does to the node that it is on; docs/kubernetes.md tells how and why.

The pod has a Python and this package of its own, and the node's root directory mounted at ``ROOT``.
"""

ROOT = "/node"
# Where the readiness probe (deploy/kubernetes/node.py) looks: what keeps the pod from being ready,
# a line each.
STATE = "/tmp/state"  # noqa: S108 - the pod's own directory
