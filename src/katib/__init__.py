"""Katib Experiments: check and run them without a cluster, or send them to one."""
