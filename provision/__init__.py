"""A fleet of workers on other hosts, started and watched over SSH (to come). Importable as `distsum.provision`."""
