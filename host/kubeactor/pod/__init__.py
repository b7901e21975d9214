"""A host or ingress as a pod of an ActorNamespace.

identity.py   who this pod is, by its environment
peers.py      the secret that hosts and ingresses share, read again when it changes
view.py       what the objects of the API server add up to: a placement. Pure
follow.py     keeps a process at the newest placement, and without an API server at the last one
api.py        list and watch, over the official client
"""
