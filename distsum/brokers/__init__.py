"""Brokers: the channels between the deciding process and its workers."""
