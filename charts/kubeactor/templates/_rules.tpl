{{/* What the operator may do, in a Role for each served namespace or in one ClusterRole. Each verb says what it is for;
     tests/chart/ tries each of them, and what is left out, on a real API server.

     No `escalate`, `bind` or `impersonate`: the Roles that it makes hold nothing that it does not hold itself. No verb on
     any `finalizers`: there is no finalizer of ours. Children are read by their names, so most kinds have no list or watch. */}}
{{- define "kubeactor.rules" -}}
- apiGroups: [kubeactor.io]
  resources: [actornamespaces]
  verbs:
    - get # looks at the newest version before it decides
    - list # finds all of them at its start, and again every few seconds
    - watch # hears of a change at once
    - patch # notes that its shards were granted, in an annotation that outlives table, status and volumes
- apiGroups: [kubeactor.io]
  resources: [actornamespaces/status]
  verbs:
    - patch # conditions, and the figures that kubectl prints
- apiGroups: [kubeactor.io]
  resources: [actorplacements]
  verbs:
    - get # the table over which it writes; hosts get this verb by a Role of ours, so it must have it
    - list # for the hosts' Role only
    - watch # for the hosts' Role only
    - create # the first table, or one rebuilt from what the volumes hold
    - update # plain update over the version that it read, so a stale leader is refused
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs:
    - get # for the Role of hosts and ingresses only: a pod's address
    - list # the same: all addresses at a start
    - watch # the same: a new address after a restart
- apiGroups: [apps]
  resources: [statefulsets, deployments]
  verbs:
    - get # compares what runs with what is wanted
    - create # the hosts and the ingresses
    - patch # a new template, other replicas, drift mended
    - delete # a StatefulSet whose claims grew is made anew around its running pods
- apiGroups: [""]
  resources: [pods]
  verbs:
    - list # readiness, addresses and back-off of hosts and ingresses
    - watch # hears of a crash
    - create # the preflight that tries a changed template
    - delete # restarts a host for its new template, heals one in back-off, clears a preflight
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs:
    - list # volumes that were there before decide whether a shard may begin empty
    - patch # asks for more room; sets the owner that `reclaim: Delete` means
    - delete # the volume of a host scaled in, when it holds no shard and `reclaim` is `Delete`
- apiGroups: [""]
  resources: [services, serviceaccounts]
  verbs:
    - get # compares with what is wanted
    - create # the public and the headless Service; accounts of hosts and ingresses
    - patch # drift mended, another type or port
    - delete # what the spec no longer asks for, such as the Service of the actor API
- apiGroups: [""]
  resources: [configmaps]
  verbs:
    - get # polls the user's code by its name
    - list # finds its copies by label
    - create # the immutable copy that a template names
    - patch # labels and owner of a copy, mended
    - delete # copies beyond the last three
- apiGroups: [""]
  resources: [secrets]
  verbs:
    - get # the peer credentials, by name, with which it asks hosts and ingresses
    - create # the first ones
    - patch # their rotation
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs:
    - get # compares with what is wanted
    - create # hosts and ingresses may read their table and addresses
    - patch # drift mended
    - delete # what the spec no longer asks for
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs:
    - get # compares with what is wanted
    - create # one pod of a kind away at a time
    - patch # drift mended
    - delete # none with one replica
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs:
    - get # compares with what is wanted
    - create # who may reach the hosts
    - patch # drift mended
    - delete # switched off by the user
- apiGroups: [""]
  resources: [events]
  verbs:
    - create # what happened and why, for kubectl describe
{{- end }}

{{/* Beside these for the whole cluster. Without them, in a namespaced install, claims ask for ReadWriteOnce, and an
     operator that was started before the CRDs were there does not notice them. */}}
{{- define "kubeactor.clusterRules" -}}
- apiGroups: [storage.k8s.io]
  resources: [storageclasses]
  verbs:
    - list # whether the class of the volumes knows ReadWriteOncePod
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  verbs:
    - list # whether the CRDs are there
    - watch # hears when they are installed or change
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
    - update # takes it over, renews it, gives it back
{{- end }}
