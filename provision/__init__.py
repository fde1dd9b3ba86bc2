"""A fleet of workers on other hosts, installed, started, watched and removed over SSH.

Importable as ``distsum.provision``; the command line finds it through the entry point group ``distsum.commands``.
"""
