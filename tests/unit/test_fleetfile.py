from pathlib import Path

import pytest
from distsum.provision.fleetfile import Host, parse_fleet
from distsum.provision.ranges import MOST_HOSTS, expand

from distsum.errors import ConfigurationError
from distsum.request import DEFAULT_MEMORY_BYTES


def fault(text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse_fleet(text, "fleet.toml")
    return str(caught.value)


def test_what_the_file_sets_counts_for_every_host_and_a_host_for_itself():
    fleet = parse_fleet(
        'name = "lab"\nbroker = "amqp://ada:secret@broker/x"\nstore = "s3://bucket/work"\nuser = "ada"\nworkers = 3\n'
        'memory = "1GiB"\nlabels = ["big"]\n'
        '[[hosts]]\nname = "node[08-09].lab"\n'
        '[[hosts]]\nname = "odd"\nuser = "bob"\nport = 2222\nworkers = "cpus"\nmemory = 4096\nlabels = []\n'
        'keys = ["~/.ssh/odd"]\njump = "gate"\npython = "/opt/python3"\ntunnel = true\n',
        "fleet.toml",
    )
    assert (fleet.name, fleet.store, str(fleet.broker)) == ("lab", "s3://bucket/work", "amqp://ada@broker:5672/x")
    node = Host(name="node08.lab", user="ada", workers=3, memory_bytes=1 << 30, labels=("big",))
    odd = Host(
        name="odd",
        user="bob",
        port=2222,
        keys=("~/.ssh/odd",),
        jump="gate",
        workers=None,
        memory_bytes=4096,
        python="/opt/python3",
        tunnel=True,
    )
    assert [fleet.hosts[0], fleet.hosts[2]] == [node, odd]
    assert fleet.hosts[1].name == "node09.lab"


def test_the_example_of_the_docs_is_a_fleet():
    text = Path(__file__).parents[2].joinpath("docs", "fleet.md").read_text()
    fleet = parse_fleet(text.partition("```toml\n")[2].partition("```")[0], "fleet.toml")
    assert len(fleet.hosts) == 17
    assert fleet.hosts[0].name == "node01.lab"


def test_a_name_is_all_that_a_host_must_have():
    (host,) = parse_fleet('[[hosts]]\nname = "a"\n', "fleet.toml").hosts
    assert host == Host(name="a", memory_bytes=DEFAULT_MEMORY_BYTES)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('nme = "lab"\n[[hosts]]\nname = "a"', 1, "nme is no key of a fleet; there are user, port"),
        ('[[hosts]]\nname = "a"\n\n[[hosts]]\nname = "b"\nusr = "x"', 6, "usr is no key of a fleet"),
        ('[[hosts]]\nname = "a"\n[more]\nx = 1', 3, "more is no key"),
        ('hosts = [{name = "a"},\n {name = "b", usr = 3}]', 2, "usr is no key"),
        ('[[hosts]]\nname = "a"\n[[hosts]]\nname = "b"\nport = "ssh"', 5, "port expected `int | null`, got `str`"),
        ("[[hosts]]\nport = 3", 1, "name is missing"),
        ('name = "lab"', 1, "hosts is missing"),
        ("hosts = []", 1, "hosts must hold"),
        ('[[hosts]]\nname = "a"\n[[hosts]]\nname = "a"', 4, "name a is named twice"),
        ('[[hosts]]\nname = "a[3-1]"', 2, "ends before it begins"),
        ('workers = "many"\n[[hosts]]\nname = "a"', 1, 'workers many must be "cpus" or a number'),
        ('workers = -1\n[[hosts]]\nname = "a"', 1, "workers -1 must be"),
        ('[[hosts]]\nname = "a"\nport = 70000', 3, "port 70000 must be from 1 to 65535"),
        ('memory = "much"\n[[hosts]]\nname = "a"', 1, "memory 'much' is not a size"),
        ('user = ""\n[[hosts]]\nname = "a"', 1, "user must not be empty"),
        ('user = "x"\njump = "gate:ssh"\n[[hosts]]\nname = "a"', 2, "jump gate:ssh must be [USER@]HOST[:PORT]"),
        ('[[hosts]]\nname = "a"\njump = "x@gate, y@-o"', 3, "jump x@gate, y@-o must be"),
        ('store = "shared/sums"\n[[hosts]]\nname = "a"', 1, "store shared/sums must be a URI like s3://"),
        ('store = "s4://bucket"\n[[hosts]]\nname = "a"', 1, "store s4://bucket must be"),
        ('store = "s3:///distsum"\n[[hosts]]\nname = "a"', 1, "store s3:///distsum must be"),
        ('store = ""\n[[hosts]]\nname = "a"', 1, "store  must be"),
        ('name = "My Lab"\n[[hosts]]\nname = "a"', 1, "name My Lab must be 1 to 31"),
    ],
)
def test_what_is_not_acceptable_is_told_with_its_line(text, line, words):
    said = fault(text)
    assert said.startswith(f"fleet.toml, line {line}: ")
    assert words in said


def test_what_is_no_toml_is_told_with_its_line():
    assert fault("x = [\n").startswith("fleet.toml is not TOML: ")
    assert "line 2" in fault("a = 1\nb = = 2\n")


def test_a_broker_that_is_no_address_is_told_without_its_password():
    said = fault('broker = "amqp://ada:s3cret@h/x@y"\n[[hosts]]\nname = "a"')
    assert said.startswith("fleet.toml, line 1: broker ")
    assert "s3cret" not in said


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("node7", ("node7",)),
        ("10.0.0.[9-11]", ("10.0.0.9", "10.0.0.10", "10.0.0.11")),
        ("n[1,3-4]", ("n1", "n3", "n4")),
        ("n[01-02]-[a]", None),
        ("n[]", None),
        ("n[1", None),
        ("", None),
        ("-oProxyCommand=x", None),
        ("a b", None),
        ("n[1-2000000000]", None),
        (f"n[1-{MOST_HOSTS}]x[1-2]", None),
    ],
)
def test_a_range_stands_for_hosts_in_order_or_is_refused(pattern, names):
    if names is None:
        with pytest.raises(ValueError):  # noqa: PT011 - the words are the file's
            expand(pattern)
    else:
        assert expand(pattern) == names
