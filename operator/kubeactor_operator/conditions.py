"""The conditions of an ActorNamespace: their types, every reason, what each tells, and how a user mends it.

`Ready` is about callers, `Progressing` about the way to the spec, `Degraded` about what can't be reached or has lost
its spare. `Reconciling` and `Stalled` say the same to kstatus. docs/kubernetes-spec.md is made from this module.
"""

from __future__ import annotations

from typing import Final

import msgspec

__all__ = ["DEGRADED", "PAUSED", "PROGRESSING", "READY", "REASONS", "RECONCILING", "STALLED", "TYPES", "Reason"]

READY: Final = "Ready"
PROGRESSING: Final = "Progressing"
DEGRADED: Final = "Degraded"
PAUSED: Final = "Paused"
RECONCILING: Final = "Reconciling"
STALLED: Final = "Stalled"

TYPES: Final = {
    READY: "Every host that owns shards passed a write, sync and read through an ingress within the last 60 s. "
    "False after three misses 10 s apart, Unknown while the operator reaches no ingress.",
    PROGRESSING: "The running template, replicas or table differ from the spec, and the operator is on its way.",
    DEGRADED: "The spec can't be reached, or redundancy is lost. Service may go on: `Ready` tells.",
    PAUSED: "The annotation `kubeactor.io/paused` is `true`: nothing is changed.",
    RECONCILING: "As `Progressing`, for tools that follow kstatus.",
    STALLED: "True while the user has to change something before the operator can go on; for kstatus too.",
}


class Reason(msgspec.Struct, frozen=True):
    """One reason of a condition.

    Attributes:
        type: of the condition that carries it.
        status: that the condition has with it.
        meaning: one sentence.
        mend: what the user does about it; empty when there is nothing to do.
    """

    name: str
    type: str
    status: str
    meaning: str
    mend: str = ""


def _reason(name: str, type: str, status: str, meaning: str, mend: str = "") -> str:
    REASONS[name] = Reason(name, type, status, meaning, mend)
    return name


REASONS: Final[dict[str, Reason]] = {}

# Ready ---------------------------------------------------------------------------------------------------------------
SERVING: Final = _reason("Serving", READY, "True", "Every host that owns shards passed the built-in probe.")
STARTING: Final = _reason(
    "Starting", READY, "False", "Hosts, ingresses or the table are being made for the first time."
)
HOSTS_NOT_SERVING: Final = _reason(
    "HostsNotServing",
    READY,
    "False",
    "The named hosts missed the probe three times, 10 s apart.",
    "`kubectl describe pod` of the named host tells why; calls of the other hosts go on.",
)
SHARDS_WITHOUT_OWNER: Final = _reason(
    "ShardsWithoutOwner",
    READY,
    "False",
    "Some shards have no owner; their calls get 503.",
    "See the reason of `Degraded`.",
)
HIBERNATED: Final = _reason(
    "Hibernated",
    READY,
    "False",
    "`hosts.replicas` is 0: volumes and table are kept, calls get 503.",
    "`kubectl scale actorns NAME --replicas=N` with the number of hosts that own shards.",
)
INGRESS_UNREACHABLE: Final = _reason(
    "IngressUnreachable",
    READY,
    "Unknown",
    "The operator reaches no ingress, so it can't tell whether calls are served.",
    "Look at the ingress pods, and whether a network policy keeps the operator from port 9090.",
)

# Progressing ---------------------------------------------------------------------------------------------------------
UP_TO_DATE: Final = _reason("UpToDate", PROGRESSING, "False", "Everything is as the spec wants it.")
CREATING: Final = _reason("Creating", PROGRESSING, "True", "The children are being made.")
TRYING_TEMPLATE: Final = _reason(
    "TryingTemplate",
    PROGRESSING,
    "True",
    "A pod without a volume imports the new image and code before any host changes.",
)
ROLLING_OUT: Final = _reason("RollingOut", PROGRESSING, "True", "Hosts restart on the new template, one at a time.")
SCALING: Final = _reason("Scaling", PROGRESSING, "True", "The number of hosts is being changed.")
WAITING_FOR_MOVES: Final = _reason(
    "WaitingForMoves",
    PROGRESSING,
    "True",
    "The change needs shards to move between hosts, which this release does not do yet; nothing is changed until then.",
    "Set `hosts.replicas` back to the number of hosts that run, or to 0 to hibernate.",
)
GROWING_VOLUMES: Final = _reason("GrowingVolumes", PROGRESSING, "True", "The claims ask for the new size.")
REBUILDING_PLACEMENT: Final = _reason(
    "RebuildingPlacement",
    PROGRESSING,
    "True",
    "The table is missing or behind; it is rebuilt from what the hosts report.",
)
ROTATING_CREDENTIALS: Final = _reason(
    "RotatingCredentials",
    PROGRESSING,
    "True",
    "New peer credentials wait until every host reports them, and the last ones every ingress too.",
    "If it stays: delete the pod that the message names, when it does not come back by itself.",
)
STOPPED: Final = _reason(
    "Stopped", PROGRESSING, "False", "The operator can't go on towards the spec.", "See the reason of `Degraded`."
)

# Degraded ------------------------------------------------------------------------------------------------------------
AS_EXPECTED: Final = _reason("AsExpected", DEGRADED, "False", "Nothing is wrong.")
INVALID_SPEC: Final = _reason(
    "InvalidSpec",
    DEGRADED,
    "True",
    "The stored object does not fit this release of the operator.",
    "Change the field that the message names; apply the CRDs of the operator's release first.",
)
NAME_CONFLICT: Final = _reason(
    "NameConflict",
    DEGRADED,
    "True",
    "An object of a child's name exists and does not belong to this namespace; it is not taken over.",
    "Delete or rename the object that the message names, or give the ActorNamespace another name.",
)
INVALID_POD_SETTINGS: Final = _reason(
    "InvalidPodSettings",
    DEGRADED,
    "True",
    "The API server refuses a child made from the pod settings, in a dry run; what runs goes on.",
    "Change the field that the message quotes (tolerations, affinity, volumes, resources, env ...).",
)
CODE_MISSING: Final = _reason(
    "CodeMissing",
    DEGRADED,
    "True",
    "The ConfigMap that `code.configMap` names does not exist or is empty; what runs goes on.",
    "`kubectl create configmap NAME --from-file=bank.py`.",
)
PREFLIGHT_FAILED: Final = _reason(
    "PreflightFailed",
    DEGRADED,
    "True",
    "`kubeactor check` refused the image and code: a class or front door can't be imported or served, or a setting of "
    "the Env is missing. What runs goes on with the old template.",
    "Mend what the message says, in `actors`, `frontDoor`, `env` or the code, and apply again.",
)
IMAGE_PULL_FAILED: Final = _reason(
    "ImagePullFailed",
    DEGRADED,
    "True",
    "The image can't be pulled; what runs goes on with the old one.",
    "Mend `image`, or give `imagePullSecrets`; the message has what kubelet says.",
)
UNSUPPORTED_VERSION: Final = _reason(
    "UnsupportedVersion",
    DEGRADED,
    "True",
    "The image's kubeactor is outside of the last three minor releases that this operator speaks; it goes on serving.",
    "Rebuild the image from a supported host image, or upgrade the operator.",
)
ROLLOUT_STOPPED: Final = _reason(
    "RolloutStopped",
    DEGRADED,
    "True",
    "The first host on the new template did not come back; it was put back on the old one, no other was touched.",
    "The message has the host's last lines; mend the image, code or settings, and apply again.",
)
VOLUMES_OF_ANOTHER_NAMESPACE: Final = _reason(
    "VolumesOfAnotherNamespace",
    DEGRADED,
    "True",
    "Volumes of an earlier namespace of this name exist; they are never taken over, nor overwritten, unasked.",
    "Set `hosts.storage.adopt: true` to serve their data, or delete the claims `data-NAME-host-N` to start empty.",
)
PLACEMENT_INCOMPLETE: Final = _reason(
    "PlacementIncomplete",
    DEGRADED,
    "True",
    "No volume holds some shards that were placed once, or two hosts claim one; such shards stay without an owner.",
    "Bring the volumes back; lost ones restore from a backup, or `kubeactor forget NAME host-N --accept-data-loss`.",
)
PLACEMENT_TOO_NEW: Final = _reason(
    "PlacementTooNew",
    DEGRADED,
    "True",
    "The table has a format of a newer operator; this one changes nothing.",
    "Upgrade the operator.",
)
VOLUME_LOST: Final = _reason(
    "VolumeLost",
    DEGRADED,
    "True",
    "A host came up with another volume than the recorded one; it gets no shard, its shards answer 503, others go on.",
    "Restore the volume from a backup, or `kubeactor forget NAME host-N --accept-data-loss`.",
)
VOLUME_UNREACHABLE: Final = _reason(
    "VolumeUnreachable",
    DEGRADED,
    "True",
    "A claim is bound to a node that no longer exists.",
    "Bring the node back, or delete claim and pod and `kubeactor forget NAME host-N --accept-data-loss`.",
)
EXPANSION_UNSUPPORTED: Final = _reason(
    "ExpansionUnsupported",
    DEGRADED,
    "True",
    "The storage class can't expand volumes; the hosts go on with the old size.",
    "Set `allowVolumeExpansion: true` in the class if its driver can; otherwise nothing is lost but the growth.",
)
DISK_FULL: Final = _reason(
    "DiskFull",
    DEGRADED,
    "True",
    "A host's volume has too little free space: turns that grow the data fail with 507, reads and deletes go on.",
    "Raise `hosts.storage.size`, or delete data; the message has used and free bytes.",
)
HOST_CRASH_LOOPING: Final = _reason(
    "HostCrashLooping",
    DEGRADED,
    "True",
    "A host ended again after its pod was deleted three times in ten minutes; it is left to kubelet.",
    "The message has its exit code and last lines.",
)
HOST_UNSCHEDULABLE: Final = _reason(
    "HostUnschedulable",
    DEGRADED,
    "True",
    "No node takes a host or ingress pod.",
    "The message quotes the scheduler: nodeSelector, tolerations, resources, or the node of its volume.",
)
OPERATOR_CANNOT_REACH_HOSTS: Final = _reason(
    "OperatorCannotReachHosts",
    DEGRADED,
    "True",
    "More than one host looks bad to the operator at once, so the fault may be its own: no pod is deleted.",
    "Look whether a network policy or a partition keeps the operator from port 9090 of the hosts.",
)
HOST_DOWN: Final = _reason(
    "HostDown",
    DEGRADED,
    "True",
    "A host does not answer; its shards wait for it, the others go on.",
    "Nothing if it comes back by itself; `kubectl describe pod` of the named host tells why it does not.",
)
REFUSED_BY_CLUSTER: Final = _reason(
    "RefusedByCluster",
    DEGRADED,
    "True",
    "The API server refuses to create a child: a quota, a missing right or an admission webhook.",
    "The message quotes the refusal; raise the quota or mend the policy.",
)

# Paused --------------------------------------------------------------------------------------------------------------
PAUSED_BY_ANNOTATION: Final = _reason(
    "PausedByAnnotation",
    PAUSED,
    "True",
    "The operator leaves this namespace alone.",
    "`kubectl annotate actorns NAME kubeactor.io/paused-`.",
)
NOT_PAUSED: Final = _reason("NotPaused", PAUSED, "False", "The operator follows the spec.")
