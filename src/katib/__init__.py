"""Katib: Experiments checked and run without a cluster, and sent to one."""
