{{/* What the operator may do, in a Role for each served namespace or in one ClusterRole. Each verb says what it is for;
     tests/chart/ tries each of them, and the ones that are left out, on a real API server.

     No `escalate`, `bind` or `impersonate`: the Roles that it makes hold nothing that it does not hold itself. No verb on
     any `finalizers`: there is no finalizer of ours. Nothing that is cluster-scoped. */}}
{{- define "kubeactor.rules" -}}
- apiGroups: [kubeactor.io]
  resources: [actornamespaces]
  verbs:
    - get # looks at the newest version before it decides
    - list # finds all of them at its start
    - watch # hears of a change at once
- apiGroups: [kubeactor.io]
  resources: [actornamespaces/status]
  verbs:
    - patch # conditions, and the figures that kubectl prints
- apiGroups: [kubeactor.io]
  resources: [actorplacements]
  verbs:
    - get # the table over which it writes; and hosts get this verb by a Role of ours, so it must have it
    - list # finds the tables that are there; the same
    - watch # hears when somebody edits or deletes one; the same
    - create # the first table, or one rebuilt from what the volumes hold
    - update # plain update over the version that it read, so a stale leader is refused
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: # the operator itself reads none: hosts and ingresses get these by a Role of ours, so it must have them
    - get # a pod's address
    - list # the pods' addresses at a start
    - watch # a pod's new address after a restart
- apiGroups: [apps]
  resources: [statefulsets, deployments]
  verbs:
    - get # compares what runs with what is wanted
    - list # finds them by label
    - watch # hears of drift and of pods that became ready
    - create # the hosts and the ingresses
    - patch # a new template, other replicas, drift mended
    - delete # a StatefulSet whose claims grow is made anew around its running pods
- apiGroups: [""]
  resources: [pods]
  verbs:
    - get # looks once more before it deletes one
    - list # readiness, addresses and back-off of hosts and ingresses
    - watch # hears of a crash
    - create # the preflight that tries a changed template
    - patch # the preflight is written by apply, like every child
    - delete # restarts a host for its new template, heals one in back-off, clears a preflight
- apiGroups: [""]
  resources: [pods/log]
  verbs:
    - get # the last lines of a pod that failed go into the condition
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs:
    - get # its size and the class's answer
    - list # volumes that were there before decide whether a shard may begin empty
    - watch # hears when a volume has grown
    - patch # asks for more room; sets the owner that `reclaim: Delete` means
    - delete # the volume of a host scaled in, when it holds no shard and `reclaim` is `Delete`
- apiGroups: [""]
  resources: [services, serviceaccounts]
  verbs:
    - get # compares with what is wanted
    - list # finds them by label
    - watch # hears of drift
    - create # the public and the headless Service; accounts of hosts and ingresses
    - patch # drift mended, another type or port
    - delete # what the spec no longer asks for, such as the Service of the actor API
- apiGroups: [""]
  resources: [configmaps]
  verbs:
    - get # polls the user's code by its name
    - list # finds its copies by label
    - watch # hears when a copy goes
    - create # the immutable copy that a template names
    - patch # the copy is written by apply, like every child
    - delete # copies beyond the last three
- apiGroups: [""]
  resources: [secrets]
  verbs: # no list and no watch: it reads the peer credentials by their name and no other Secret
    - get # the peer credentials with which it asks hosts and ingresses
    - create # the first ones
    - patch # their rotation
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs:
    - get # compares with what is wanted
    - list # finds them by label
    - watch # hears of drift
    - create # hosts and ingresses may read their table and addresses
    - patch # drift mended
    - delete # when the user names a service account of their own
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs:
    - get # compares with what is wanted
    - list # finds them by label
    - watch # hears of drift
    - create # one pod of a kind away at a time
    - patch # drift mended
    - delete # none with one replica
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs:
    - get # compares with what is wanted
    - list # finds them by label
    - watch # hears of drift
    - create # who may reach the hosts
    - patch # drift mended
    - delete # switched off by the user
- apiGroups: [""]
  resources: [events]
  verbs:
    - create # what happened, for kubectl describe
    - patch # the same again counts up
{{- end }}

{{- define "kubeactor.leaseRules" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs:
    - create # the first leader's; RBAC can't tie this verb to a name
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [{{ include "kubeactor.fullname" . }}]
  verbs:
    - get # who leads, and since when
    - update # takes it over or renews it
    - patch # the same, for only the fields that change
{{- end }}
