"""A namespace of a Kubernetes cluster: its API, and what pods and events say about a workload."""
