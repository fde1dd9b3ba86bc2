"""Runs the benchmarks named on the command line, or all of them."""

import importlib
import pkgutil
import sys

import benchmarks

_NOT_ONES = {"__main__", "cluster_bare", "cluster_hosts", "cluster_tasks", "fleet_hosts", "measure", "plot"}


def main() -> None:
    """Run the benchmarks, in alphabetical order unless they are named."""
    known = [module.name for module in pkgutil.iter_modules(benchmarks.__path__) if module.name not in _NOT_ONES]
    wanted = sys.argv[1:] or known
    unknown = [name for name in wanted if name not in known]
    if unknown:
        sys.exit(f"there is no benchmark {unknown[0]}; there are {', '.join(known)}")
    for name in wanted:
        print(f"\n{name}: {(importlib.import_module(f'benchmarks.{name}').__doc__ or '').splitlines()[0]}")
        importlib.import_module(f"benchmarks.{name}").main()


if __name__ == "__main__":
    main()
