# What one does here: `just` lists it; without just, `uv run just` does.
# Recipes go through `uv run`, so they use the project's environment wherever just itself comes from.

_list:
    @just --list --unsorted

# Generate files, add them, verify the result, and show where the time went
demo:
    uv run distsum demo

# Start a private RabbitMQ and S3 server in the background, and print what to set; again to see it again
stack:
    @uv run python -m tests.stack up

# End what `just stack` has started, and remove all of it
stack-down:
    @uv run python -m tests.stack down

# Run a demo with a master and two workers over RabbitMQ and S3, those of `just stack` or its own
demo-cluster:
    @uv run python -m tests.stack demo

# Run the tests: every one, the examples in docstrings and in docs (as root with apt, installs RabbitMQ if it is missing)
[positional-arguments]
test *arguments:
    uv run python -m tests.services
    uv run pytest --numprocesses 2 --dist loadfile "$@"

# Run the linters: style, format, types, who imports whom
lint:
    uv run ruff check
    uv run ruff format --check
    uv run mypy
    uv run lint-imports --no-logo

# Run everything that CI runs
check: lint test

# Put imports and format in order
format:
    uv run ruff check --select I --fix
    uv run ruff format

# Compare with peers and limits, as ratios of the same run
[positional-arguments]
bench *arguments:
    uv run --group bench python -m benchmarks "$@"

# Run the actors under faults, many seeds (--seeds N) or one again (--seed N)
[positional-arguments]
simulate *arguments:
    uv run python -m tests.simulation "$@"

# Draw the README's pictures, from a run that was recorded once (--record records another); needs chromium
[positional-arguments]
pictures *arguments:
    uv run python -m tests.pictures "$@"

# Check the docs: links lead somewhere, examples are true
docs:
    uv run pytest tests/integration/test_docs.py docs README.md

# Take the newest versions of all dependencies, and pin them
constraints:
    uv lock --upgrade
    uv export --quiet --all-extras --all-groups --no-emit-project --no-hashes --no-header --no-annotate --output-file constraints.txt

# Remove what tools leave behind, but for the environment
clean:
    rm -rf build dist *.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
    find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
