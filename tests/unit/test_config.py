"""Settings: which layer wins, what is refused, and what ``distsum config`` tells of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsum.actors.speculation import SpeculationSettings, default_settings
from distsum.actors.speculation_words import check_silence, parse_speculation, speculation_text
from distsum.brokers.address import BrokerAddress
from distsum.cli.config import origin_lines
from distsum.config import (
    ENVIRONMENT_PREFIX,
    KEYS,
    PROJECT_FILE,
    Settings,
    environment_layer,
    flag_layer,
    read_layers,
    resolve,
    toml_layer,
)
from distsum.errors import ConfigurationError
from distsum.wording import exact_byte_size, parse_byte_size
from tests.command import distsum

BROKER = "amqps://ada:s3cret@broker.example/lab"
MANAGEMENT = "https://ada:s3cret@broker.example"
VALUES = {
    "workers": [("3", 3), ("auto", None)],
    "partition": [("25", 25), ("auto", None)],
    "fan_in": [("2", 2), ("7", 7)],
    "tiles": [("4", 4), ("auto", None)],
    "max_open_files": [("1", 1), ("9", 9)],
    "memory": [("64MiB", 64 << 20), ("1000000", 1_000_000)],
    "work_dir": [("/some where", "/some where"), ("/x", "/x")],
    "keep_partials": [("yes", True), ("FALSE", False)],
    "format": [("npy", "npy"), ("text", "text")],
    "dtype": [("f4", "<f4"), (">i2", ">i2")],
    "out_dtype": [("float32", "<f4"), ("u1", "|u1")],
    "on_bad_input": [("skip", "skip"), ("fail", "fail")],
    "speculation": [
        ("none", SpeculationSettings(policy="none")),
        ("quantile=0.5,few=10", SpeculationSettings(quantile=0.5, few=10)),
    ],
    "quiet": [("on", True), ("0", False)],
    "broker": [(BROKER, BrokerAddress.parse(BROKER)), ("amqp://h", BrokerAddress(host="h", port=5672))],
    "management": [
        (MANAGEMENT, BrokerAddress.parse(MANAGEMENT, "--management")),
        ("http://h", BrokerAddress(scheme="http", host="h", port=15672)),
    ],
    "s3_deadline": [("20", 20), ("600", 600)],
    "serve": [("/a", ("/a",)), ("s3://b/c,/d e", ("s3://b/c", "/d e"))],
    "log_json": [("yes", True), ("no", False)],
    "log_level": [("debug", "debug"), ("error", "error")],
}
"""Each key with some values, as people write them and as they are meant (on a little-endian machine)."""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder within a project, beside the home of a user; whoever runs the tests has no settings."""
    for name in [name for name in os.environ if name.startswith(ENVIRONMENT_PREFIX)]:
        monkeypatch.delenv(name)
    folder = tmp_path / "project" / "deep" / "er"
    folder.mkdir(parents=True)
    (tmp_path / "home" / ".config" / "distsum").mkdir(parents=True)
    return folder


def shown(value):
    if isinstance(value, SpeculationSettings):
        return speculation_text(value)
    return str(value) if isinstance(value, BrokerAddress) else value


def user_file(place):
    return place.parents[2] / "home" / ".config" / "distsum" / "config.toml"


def project_file(place):
    return place.parents[1] / PROJECT_FILE


def settled(place, flags=None, **environment):
    """Return the settings, and where each came from, as the command would find them in a place."""
    home = {"HOME": str(place.parents[2] / "home")}
    settings, origins = resolve(read_layers(flags or {}, home | environment, str(place)))
    return settings, {origin.key: origin for origin in origins}


def refused(place, **environment):
    with pytest.raises(ConfigurationError) as caught:
        settled(place, **environment)
    return str(caught.value)


def named(key, form):
    return {"flag": f"--{key}", "variable": f"DISTSUM_{key}".upper(), "file": key}[form].replace(
        *("-", "_") if form == "variable" else ("_", "-")
    )


def test_every_setting_has_values_to_try_here():
    assert list(VALUES) == list(KEYS) == list(Settings.__struct_fields__)


@given(
    st.fixed_dictionaries({key: st.tuples(*[st.sampled_from([None, 0, 1])] * 4) for key in KEYS}),
)
def test_each_key_comes_from_the_highest_layer_that_has_it(drawn):
    if sys.byteorder != "little":
        pytest.skip("the expected dtypes are little-endian")

    def given_in(layer):
        return {key: VALUES[key][picks[layer]][0] for key, picks in drawn.items() if picks[layer] is not None}

    def toml(layer):
        return "".join(f"{named(key, 'file')} = {json.dumps(value)}\n" for key, value in given_in(layer).items())

    variables = {named(key, "variable"): value for key, value in given_in(1).items()}
    flags = dict.fromkeys(KEYS) | given_in(0)
    layers = [flag_layer(flags), environment_layer(variables), toml_layer(toml(2), "/p"), toml_layer(toml(3), "/u")]
    settings, origins = resolve(layers)
    sources = ["flags", "environment", "/p", "/u"]
    for key, origin in zip(KEYS, origins, strict=True):
        picks = drawn[key]
        first = next((place for place, pick in enumerate(picks) if pick is not None), None)
        wanted = getattr(Settings(), key) if first is None else VALUES[key][picks[first]][1]
        assert getattr(settings, key) == wanted
        assert origin.value == shown(wanted)
        assert origin.source == ("default" if first is None else sources[first])
        assert origin.key == named(key, "file")


def test_the_layers_are_where_they_are_documented_to_be(place):
    assert settled(place)[0] == Settings()
    user_file(place).write_text('workers = 1\ntiles = 1\nmemory = "1GiB"\nfan-in = 4\n')
    project_file(place).write_text("workers = 2\ntiles = 2\nfan-in = 3\n")
    settings, origins = settled(place, {"workers": "4", "quiet": None}, DISTSUM_WORKERS="3", DISTSUM_TILES="3")
    assert (settings.workers, settings.tiles, settings.fan_in, settings.memory) == (4, 3, 3, 1 << 30)
    assert origins["workers"].source == "flags"
    assert origins["tiles"].source == "environment"
    assert origins["fan-in"].source == str(project_file(place))
    assert origins["memory"].source == str(user_file(place))
    assert origins["quiet"].source == "default"


def test_the_nearest_project_file_upwards_counts_alone(place):
    project_file(place).write_text("workers = 2\ntiles = 2\n")
    (place.parent / PROJECT_FILE).write_text("workers = 5\n")
    settings, _ = settled(place)
    assert (settings.workers, settings.tiles) == (5, None)


def test_the_users_file_is_where_xdg_says_and_a_relative_place_does_not_count(place, tmp_path, monkeypatch):
    other = tmp_path / "elsewhere" / "distsum"
    other.mkdir(parents=True)
    (other / "config.toml").write_text("workers = 6\n")
    user_file(place).write_text("workers = 1\n")
    assert settled(place, XDG_CONFIG_HOME=str(other.parent))[0].workers == 6
    monkeypatch.chdir(tmp_path)
    assert settled(place, XDG_CONFIG_HOME="elsewhere")[0].workers == 1
    # Without a home there is no file of the user's; above all not one in the folder one happens to be in.
    (tmp_path / ".config" / "distsum").mkdir(parents=True)
    (tmp_path / ".config" / "distsum" / "config.toml").write_text("workers = 7\n")
    assert resolve(read_layers({}, {}, str(place)))[0].workers is None


def test_a_relative_work_dir_of_a_file_starts_from_that_file(place):
    project_file(place).write_text('work-dir = "partials"\n')
    assert settled(place)[0].work_dir == str(project_file(place).parent / "partials")
    assert settled(place, DISTSUM_WORK_DIR="here")[0].work_dir == "here"
    project_file(place).write_text('work-dir = "s3://bucket/work"\n')
    assert settled(place)[0].work_dir == "s3://bucket/work"


def test_places_to_serve_may_be_a_list_and_start_from_the_file_that_names_them(place):
    project_file(place).write_text('serve = ["data", "s3://b/with,comma", "/x"]\n')
    folder = str(project_file(place).parent)
    assert settled(place)[0].serve == (f"{folder}/data", "s3://b/with,comma", "/x")
    assert settled(place, {"serve": ["/with,comma"]})[0].serve == ("/with,comma",)
    for nothing in ("[]", '[""]', "false", '["/x", 1]'):
        project_file(place).write_text(f"serve = {nothing}\n")
        assert refused(place).startswith("serve "), "nothing is never taken for everything"


@pytest.mark.parametrize(
    ("variable", "near"),
    [("DISTSUM_WORKER", "WORKERS"), ("DISTSUM_workers", "WORKERS"), ("DISTSUM_MAX-OPEN-FILES", "MAX_OPEN_FILES")],
)
def test_an_unknown_variable_is_refused_with_the_nearest_known_one(place, variable, near):
    message = refused(place, **{variable: "1"})
    assert variable in message
    assert f"did you mean {ENVIRONMENT_PREFIX}{near}?" in message


def test_an_unknown_variable_like_no_other_is_refused_with_all_there_are(place):
    message = refused(place, DISTSUM_QQ="1")
    assert "DISTSUM_QQ" in message
    assert all(named(key, "variable") in message for key in KEYS)
    assert settled(place, OTHER_QQ="1", DISTSUMMARY="1")[0] == Settings()


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("worker", "workers"),
        ("max_open_files", "max-open-files"),
        ("Memory", "memory"),
        ("keep-partial", "keep-partials"),
    ],
)
@pytest.mark.parametrize("file", [project_file, user_file])
def test_an_unknown_key_is_refused_with_its_file_and_the_nearest_known_one(place, file, key, near):
    file(place).write_text(f"{key} = 1\n")
    message = refused(place)
    assert str(file(place)) in message
    assert f"sets {key}," in message
    assert f"did you mean {near}?" in message


def test_a_table_is_an_unknown_key(place):
    project_file(place).write_text("[distsum]\nworkers = 1\n")
    assert "sets distsum, which is no setting" in refused(place)


BAD = {
    "workers": ["0", "-1", "many", "2.5", "", "true"],
    "partition": ["0", "x"],
    "fan_in": ["1", "auto", "two"],
    "tiles": ["0", "½"],
    "max_open_files": ["0", "auto"],
    "memory": ["0", "-5", "lots", "5 parsecs", "", "true", "1e400"],
    "work_dir": [""],
    "keep_partials": ["maybe", "2", ""],
    "format": ["csv", "NPY", ""],
    "dtype": ["f3", "object", "", "V8"],
    "out_dtype": ["i9"],
    "on_bad_input": ["ignore"],
    "quiet": ["-1"],
    "serve": ["", ",", "/a,"],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in BAD.items() for value in values])
def test_a_bad_value_is_refused_with_the_name_that_its_layer_knows_it_by(place, key, value):
    # It is so wherever it stands, also where a higher layer hides it.
    good = VALUES[key][0][0]
    shown = value or "''"
    with pytest.raises(ConfigurationError, match="must be") as caught:
        settled(place, {key: value})
    assert str(caught.value).startswith(f"{named(key, 'flag')} {shown}: must be")
    message = refused(place, **{named(key, "variable"): value})
    assert message.startswith(f"{named(key, 'variable')} {shown} (environment): must be")
    project_file(place).write_text(f"{named(key, 'file')} = {json.dumps(value)}\n")
    message = refused(place, **{named(key, "variable"): good})
    assert message.startswith(f"{named(key, 'file')} {shown} ({project_file(place)}): must be")


SPECULATION = {
    "policy": ["guarded", "none", "mapreduce"],
    "quantile": ["0", "0.9", "1"],
    "multiplier": ["0", "1.5", "1e3"],
    "min_seconds": ["0", "30"],
    "max_share": ["0", "1.0"],
    "copies": ["1", "3"],
    "gain": ["2"],
    "silence_seconds": ["1", "2.5"],
    "slow": ["1", "9"],
    "few": ["0", "100"],
    "check_seconds": ["0.05", "10"],
}
BAD_SPECULATION = [
    ("", "must be a text"),
    ("quantile", "must be none, or KEY=VALUE,...; 'quantile' is neither"),
    ("=,=", "must be none, or KEY=VALUE,...; '=' is neither"),
    ("quantile=0.5,", "must be none, or KEY=VALUE"),
    ("quantile=0.5,quantile=0.6", "quantile is given twice"),
    ("quantil=0.5", "quantil is no key of it; did you mean quantile?"),
    ("=1", "'=1' is neither"),
    ("xyz\x1b=1", "xyz\\x1b is no key of it; there are policy, quantile,"),
    ("policy=fast", "policy fast must be one of guarded, bare,"),
    ("quantile=1.5", "quantile 1.5 must be a number from 0 to 1"),
    ("quantile=-0.1", "quantile -0.1 must be a number from 0 to 1"),
    ("quantile=half", "quantile half must be a number from 0 to 1"),
    ("multiplier=nan", "multiplier nan must be a number from 0 to 1,000,000,000"),
    ("gain=inf", "gain inf must be a number from 0 to 1,000,000,000"),
    ("slow=0.5", "slow 0.5 must be a number from 1 to 1,000,000,000"),
    ("copies=0", "copies 0 must be a whole number from 1 to 1,000"),
    ("few=2.5", "few 2.5 must be a whole number from 0 to 1,000,000,000"),
    ("few=", "few '' must be a whole number"),
    ("silence_seconds=0", "silence_seconds 0 must be a number from 1 to 1,000,000,000"),
    ("policy=spark,gain=2", "gain must be left out with policy spark, which goes by quantile, multiplier, check_sec"),
    ("policy=late,multiplier=2", "multiplier must be left out with policy late, which goes by check_seconds"),
    ("policy=none,quantile=0.5", "quantile must be left out with policy none, which goes by no other key"),
    ("check_seconds=0", "check_seconds 0 must be a number from 0.05 to 1,000,000,000"),
    ("check_seconds=1e308", "check_seconds 1e308 must be a number from 0.05 to 1,000,000,000"),
    ("check_seconds=inf", "check_seconds inf must be a number from 0.05 to 1,000,000,000"),
    ("check_seconds=-inf", "check_seconds -inf must be a number from 0.05 to 1,000,000,000"),
    ("check_seconds=nan", "check_seconds nan must be a number from 0.05 to 1,000,000,000"),
    ("check_seconds=1000000001", "check_seconds 1000000001 must be a number from 0.05 to 1,000,000,000"),
    (f"few=1{'0' * 5000}", "few 1000000"),
]


def test_every_key_of_speculation_can_be_set(place):
    assert list(SPECULATION) == list(SpeculationSettings.__struct_fields__)
    for key, values in SPECULATION.items():
        for value in values:
            found = settled(place, {"speculation": f"{key}={value}"})[0].speculation
            kind = type(getattr(SpeculationSettings(), key))
            assert getattr(found, key) == kind(value)
            assert parse_speculation(speculation_text(found)) == found
            assert found == SpeculationSettings(**{key: kind(value)}), "what is not named has its default"


@pytest.mark.parametrize("policy", ["guarded", "bare", "spark", "late", "mapreduce", "none"])
def test_a_policy_has_its_own_defaults_and_is_told_with_all_keys(place, policy):
    found = settled(place, {"speculation": f"policy={policy}"})[0].speculation
    assert found == default_settings(policy)
    assert found.multiplier == (1.5 if policy == "spark" else 1.2)
    assert parse_speculation(speculation_text(found)) == found
    assert settled(place, {"speculation": "policy=spark,multiplier=1.2"})[0].speculation.multiplier == 1.2


def test_a_silence_that_heartbeats_do_not_fit_in_is_refused_and_a_short_one_remarked_upon():
    with pytest.raises(ValueError, match="silence_seconds 2: workers are heard every 2 s, so it must be longer; 4 or"):
        check_silence(SpeculationSettings(silence_seconds=2.0), 2.0)
    assert "4 or more is better" in (check_silence(SpeculationSettings(silence_seconds=3.0), 2.0) or "")
    assert check_silence(SpeculationSettings(silence_seconds=4.0), 2.0) is None
    assert check_silence(SpeculationSettings(policy="none", silence_seconds=1.0), 2.0) is None


@pytest.mark.parametrize(("value", "words"), BAD_SPECULATION)
def test_bad_speculation_is_refused_by_key_value_and_what_is_accepted(place, value, words):
    words = words.replace("...;", "... such as quantile=0.75,multiplier=1.2;")
    for message in (refused(place, DISTSUM_SPECULATION=value), _refused_flag(place, value)):
        assert words in message
        assert "\x1b" not in message
    assert _refused_flag(place, value).startswith("--speculation ")


def _refused_flag(place, value):
    with pytest.raises(ConfigurationError) as caught:
        settled(place, {"speculation": value})
    return str(caught.value)


def test_a_brokers_password_is_never_shown(place):
    for wrong in ("amqp://ada:s3cret@h:x/", "http://ada:s3cret@h", "amqp://ada:s3cret@/v", "ada:s3cret@h"):
        assert "s3cret" not in refused(place, DISTSUM_BROKER=wrong)
        project_file(place).write_text(f"broker = {json.dumps(wrong)}\n")
        message = refused(place)
        assert "s3cret" not in message
        assert message.startswith(f"broker ({project_file(place)}): ")
        project_file(place).unlink()
    origins = settled(place, DISTSUM_BROKER=BROKER)[1]
    assert origins["broker"].words() == "amqps://ada@broker.example:5671/lab"


@pytest.mark.parametrize("value", ["1.5", "[1]", "{a = 1}", "1979-05-27", "nan"])
@pytest.mark.parametrize("key", KEYS)
def test_a_value_of_another_type_in_a_file_is_refused(place, key, value):
    user_file(place).write_text(f"{named(key, 'file')} = {value}\n")
    assert refused(place).startswith(named(key, "file"))


@pytest.mark.parametrize("key", ["workers", "partition", "fan_in", "tiles", "max_open_files", "memory", "work_dir"])
def test_true_is_no_number_and_no_text(place, key):
    project_file(place).write_text(f"{named(key, 'file')} = true\n")
    assert "must be" in refused(place)


def test_numbers_and_switches_need_no_quotes_in_a_file(place):
    project_file(place).write_text("workers = 3\nmemory = 65536\nquiet = true\nkeep-partials = false\n")
    settings, _ = settled(place)
    assert (settings.workers, settings.memory, settings.quiet, settings.keep_partials) == (3, 65536, True, False)


@pytest.mark.parametrize(
    ("content", "words"), [(b"workers = ", "is not TOML"), (b'work-dir = "\xff"', "UTF-8"), (None, "cannot be read")]
)
def test_a_file_that_cannot_be_understood_is_named(place, content, words):
    if content is None:
        project_file(place).mkdir()
    else:
        project_file(place).write_bytes(content)
    message = refused(place)
    assert str(project_file(place)) in message
    assert words in message


def test_hostile_names_and_values_are_shown_harmlessly(place):
    for environment in ({"DISTSUM_\x1b[31m": "1"}, {"DISTSUM_WORKERS": "\x1b[31m" + "9" * 5000}):
        message = refused(place, **environment)
        assert "\x1b" not in message
        assert "\\x1b[31m" in message
        assert len(message) < 1000
    project_file(place).write_text('"\\u001b[31m" = 1\n')
    assert "\x1b" not in refused(place)


@given(st.integers(1, 1 << 60))
def test_a_size_is_shown_so_that_it_can_be_given_back(size):
    assert parse_byte_size(exact_byte_size(size)) == size
    assert exact_byte_size(size << 20).endswith(("MiB", "GiB", "TiB", "PiB"))


# The command ----------------------------------------------------------------------------------------------------------


def alone(place):
    """Return the environment of a user who has no other settings than the test's."""
    return {"HOME": str(place.parents[2] / "home"), "XDG_CONFIG_HOME": ""}


def test_config_shows_each_value_and_where_it_came_from(place):
    user_file(place).write_text('out-dtype = "f4"\n')
    project_file(place).write_text("memory = 1000000\nkeep-partials = true\n")
    environment = alone(place) | {"DISTSUM_WORKERS": "3", "DISTSUM_WORK_DIR": "a\x1b[31mb"}
    done = distsum("config", cwd=place, env=environment)
    assert done.returncode == 0, done.stderr
    rows = {line.split("  ")[0]: line for line in done.stdout.splitlines()}
    assert list(rows) == [named(key, "file") for key in KEYS]
    assert rows["workers"].split() == ["workers", "3", "environment"]
    assert rows["memory"].split() == ["memory", "1000000", str(project_file(place))]
    assert rows["out-dtype"].split() == ["out-dtype", "<f4", str(user_file(place))]
    assert rows["fan-in"].split() == ["fan-in", "5", "default"]
    assert "a\\x1b[31mb" in rows["work-dir"]
    assert "\x1b" not in done.stdout
    # Columns stand under each other.
    assert (
        len({line.index(source) for line, source in ((rows["workers"], "environment"), (rows["tiles"], "default"))})
        == 1
    )

    done = distsum("config", "--json", cwd=place, env=environment)
    told = json.loads(done.stdout)
    assert told["memory"] == {"value": 1_000_000, "source": str(project_file(place))}
    assert told["keep-partials"] == {"value": True, "source": str(project_file(place))}
    assert told["work-dir"]["value"] == "a\x1b[31mb"
    assert told["tiles"] == {"value": None, "source": "default"}


def test_what_config_shows_in_words_can_be_written_into_a_file(place):
    user_file(place).write_text('memory = "3GiB"\nquiet = true\nworkers = 2\nformat = "npy"\nfan-in = 3\n')
    settings, origins = settled(place)
    lines = origin_lines(list(origins.values()))
    written = [line.split()[:2] for line in lines if not line.endswith("default")]
    user_file(place).write_text("".join(f'{key} = "{value}"\n' for key, value in written))
    assert settled(place)[0] == settings


def test_the_command_line_wins_over_all_also_to_switch_something_off(place):
    project_file(place).write_text('quiet = true\nkeep-partials = true\nmemory = "1KiB"\n')
    (place / "a.txt").write_text("1 2 3\n")
    done = distsum("mean", "a.txt", "-o", "out.npy", cwd=place, env=alone(place))
    assert done.returncode == 2
    assert "--memory 1.0 KiB is too little" in done.stderr
    arguments = ["mean", "a.txt", "-o", "out.npy", "--memory", "64MiB", "--no-quiet", "--no-keep-partials"]
    done = distsum(*arguments, cwd=place, env=alone(place))
    assert done.returncode == 0, done.stderr
    assert "written to" in done.stderr
    assert sorted(os.listdir(place)) == ["a.txt", "out.npy"]


@pytest.mark.parametrize("arguments", [["config"], ["mean", "a.npy", "-o", "b.npy"], ["plan", "a.npy"]])
def test_a_bad_setting_ends_any_command_in_one_line(place, arguments):
    project_file(place).write_text("wrokers = 3\n")
    done = distsum(*arguments, cwd=place, env=alone(place))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "did you mean workers?" in done.stderr
    assert done.stdout == ""


def test_a_folder_that_is_gone_is_said_in_one_line(place):
    gone = place / "gone"
    gone.mkdir()
    code = f"cd {gone} && rmdir {gone} && exec {sys.executable} -P -m distsum config"
    done = subprocess.run(["sh", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("distsum: the current folder cannot be found")


def test_the_toml_parser_is_imported_only_where_there_is_a_file(place):
    code = (
        "import os, sys; from distsum.cli.options import settings_of; settings_of(); "
        "print(sorted({'tomllib', 'difflib'} & set(sys.modules)))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | alone(place)

    def imported():
        command = [sys.executable, "-c", code]
        return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=True).stdout

    assert imported() == "[]\n"
    project_file(place).write_text("workers = 3\n")
    assert imported() == "['tomllib']\n"


def test_generate_takes_its_workers_from_the_settings_too(place):
    done = distsum("generate", "out", "--files", "1", "--count", "1", cwd=place, env={"DISTSUM_WORKERS": "0"})
    assert done.returncode == 2
    assert "DISTSUM_WORKERS 0 (environment): must be" in done.stderr
    done = distsum("generate", "out", "--files", "1", "--count", "1", "-w", "x", cwd=place)
    assert "--workers x: must be" in done.stderr
    assert os.listdir(place) == []
