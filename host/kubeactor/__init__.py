"""kubeactor: stateful actors in plain Python."""
