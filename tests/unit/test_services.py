import os

from tests.services import no_service_starts


def test_a_policy_against_starting_services_is_there_meanwhile_only(tmp_path):
    policy = tmp_path / "policy-rc.d"
    with no_service_starts(policy):
        assert os.access(policy, os.X_OK)
        assert os.waitstatus_to_exitcode(os.system(f"'{policy}' rabbitmq-server start")) == 101
    assert not policy.exists()


def test_a_policy_that_is_there_stands(tmp_path):
    policy = tmp_path / "policy-rc.d"
    policy.write_text("theirs")
    with no_service_starts(policy):
        assert policy.read_text() == "theirs"
    assert policy.read_text() == "theirs"
