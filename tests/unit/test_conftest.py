import pytest


def test_a_missing_service_skips_a_test_locally(missing_service, monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="install it"):
        missing_service("no broker; install it")


def test_a_missing_service_fails_a_test_under_ci(missing_service, monkeypatch):
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="install it"):
        missing_service("no broker; install it")
