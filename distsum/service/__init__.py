"""The service: one master that runs the jobs of many people on workers of many machines."""
