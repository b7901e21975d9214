"""The control plane of kubeactor on Kubernetes."""
