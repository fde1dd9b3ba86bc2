import os
import subprocess
import sys

import pytest

from distsum.errors import InputListError
from distsum.inputs import expand


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(*names):
    for name in names:
        path = os.fsencode(name)
        os.makedirs(os.path.dirname(path) or b".", exist_ok=True)
        with open(path, "wb"):
            pass


def fails(arguments, **options):
    with pytest.raises(InputListError) as raised:
        expand(arguments, **options)
    assert raised.value.exit_code == 2
    return str(raised.value)


# ------------------------------------------------------------------------------------------------- files and order


def test_files_come_back_as_bytes_in_plain_byte_order(here):
    names = ["b.npy", "a10.npy", "a2.npy", "B.npy", "é.npy", "z.npy"]
    touch(*names)
    assert expand(names) == sorted(map(os.fsencode, names))


def test_text_bytes_and_path_objects_are_alike(here):
    touch("a.npy", "b.npy", "c.npy")
    assert expand([here / "a.npy", b"b.npy", "c.npy"]) == [os.fsencode(here / "a.npy"), b"b.npy", b"c.npy"]


def test_a_single_argument_may_stand_alone(here):
    touch("runs/a.npy")
    assert expand("runs") == expand(here.joinpath("runs").relative_to(here)) == [b"runs/a.npy"]


def test_arguments_are_put_together_before_they_are_sorted(here):
    touch("runs/b.npy", "runs/d.npy", "a.npy", "runs/c.npy", "z.npy")
    assert expand(["z.npy", "runs/[cd].npy", "runs/b.npy", "a.npy"]) == [
        b"a.npy",
        b"runs/b.npy",
        b"runs/c.npy",
        b"runs/d.npy",
        b"z.npy",
    ]


@pytest.mark.parametrize(
    "name",
    [
        b"with space.npy",
        b"br[ack]et.npy",
        b"star*.npy",
        b"who?.npy",
        b"new\nline.npy",
        b"\x1b[31mred.npy",
        b"not-utf8-\xff\xfe.npy",
        b"-dash.npy",
        b"#hash.npy",
        b" leading.npy",
        b"back\\slash.npy",
    ],
)
def test_any_name_works_as_a_file_in_a_folder_and_by_a_pattern(here, name):
    touch(b"runs/" + name, b"runs/b.npy")
    path = b"runs/" + name
    both = sorted([path, b"runs/b.npy"])
    assert expand([path]) == expand([os.fsdecode(path)]) == [path]
    assert expand(["runs"]) == both
    assert expand(["runs/*.npy"]) == both


def test_a_name_that_exists_is_itself_even_with_the_characters_of_a_pattern(here):
    touch("a[12].npy", "a1.npy", "a2.npy", "d[12]/x.npy", "d1/y.npy")
    assert expand(["a[12].npy"]) == [b"a[12].npy"]
    assert expand(["d[12]"]) == [b"d[12]/x.npy"]


def test_a_link_to_a_file_is_a_file_of_its_own(here):
    touch("a.npy")
    os.symlink("a.npy", "b.npy")
    assert expand(["a.npy", "b.npy"]) == [b"a.npy", b"b.npy"]


# ---------------------------------------------------------------------------------------------------------- folders


def test_a_folder_stands_for_its_visible_files_of_a_known_suffix(here):
    touch("runs/b.npy", "runs/a.txt", "runs/c.raw", "runs/README", "runs/notes.md", "runs/.d.npy", "runs/deeper/e.npy")
    os.symlink("b.npy", "runs/linked.npy")
    os.symlink("deeper", "runs/folder.npy")
    assert expand(["runs"]) == [b"runs/a.txt", b"runs/b.npy", b"runs/c.raw", b"runs/linked.npy"]


def test_with_a_named_format_a_folder_stands_for_all_its_visible_files(here):
    touch("runs/b.npy", "runs/README", "runs/.d.npy", "runs/deeper/e.npy")
    assert expand(["runs"], format="raw") == [b"runs/README", b"runs/b.npy"]


def test_a_dangling_link_is_not_passed_over(here):
    touch("runs/a.npy")
    os.symlink("gone", "runs/b.npy")
    os.symlink("c.npy", "runs/c.npy")
    assert expand(["runs"]) == [b"runs/a.npy", b"runs/b.npy", b"runs/c.npy"]


def test_special_files_in_a_folder_are_not_inputs(here):
    touch("runs/a.npy")
    os.mkfifo("runs/pipe.npy")
    assert expand(["runs"]) == [b"runs/a.npy"]


def test_a_folder_with_a_slash_gives_the_same_paths(here):
    touch("runs/a.npy")
    assert expand(["runs/"]) == expand(["runs"]) == [b"runs/a.npy"]


def test_the_folder_one_is_in_can_be_named(here):
    touch("a.npy")
    assert expand(["."]) == expand(["./"]) == [b"./a.npy"]


# --------------------------------------------------------------------------------------------------------- patterns


def test_a_pattern_matches_as_the_shell_does(here):
    touch("runs/a1.npy", "runs/a2.npy", "runs/b1.npy", "runs/.a3.npy", "other/a1.npy", ".hidden/a1.npy")
    for pattern in [
        "runs/a?.npy",
        "runs/*1.npy",
        "*/a1.npy",
        "runs/[!b]*.npy",
        "runs/[^b]*",
        "runs/.a*",
        "*/*[12].npy",
    ]:
        shell = subprocess.run(["bash", "-c", f"printf '%s\\0' {pattern}"], capture_output=True, check=True).stdout
        assert expand([pattern]) == sorted(shell.split(b"\0")[:-1]), pattern


def test_a_pattern_from_the_root_gives_absolute_paths(here):
    touch("runs/a.npy")
    assert expand([f"{here}/*/a.npy"]) == [os.fsencode(here / "runs/a.npy")]


def test_two_stars_reach_any_depth_but_no_hidden_folder_and_no_linked_one(here):
    touch("a.npy", "x/b.npy", "x/y/c.npy", "x/y/d.txt", "x/.hidden/e.npy", ".f.npy")
    os.symlink("y", "x/link")
    assert expand(["**/*.npy"]) == [b"a.npy", b"x/b.npy", b"x/y/c.npy"]
    assert expand(["x/**/*.npy"]) == [b"x/b.npy", b"x/y/c.npy"]
    assert expand(["x/**"]) == [b"x/b.npy", b"x/y/c.npy", b"x/y/d.txt"]
    assert expand(["**/y/*"]) == [b"x/y/c.npy", b"x/y/d.txt"]


def test_several_deep_parts_give_a_file_once(here):
    touch("a/x/x/y/f.npy")
    assert expand(["**/x/**/*.npy"]) == [b"a/x/x/y/f.npy"]


def test_a_folder_that_a_pattern_matches_stands_for_its_files(here):
    touch("runs/m1/a.npy", "runs/m2/b.npy", "runs/m2/c.md", "runs/d.npy")
    assert expand(["runs/*"]) == [b"runs/d.npy", b"runs/m1/a.npy", b"runs/m2/b.npy"]
    assert expand(["runs/*/"]) == [b"runs/m1/a.npy", b"runs/m2/b.npy"]


def test_with_two_stars_a_folder_stands_for_nothing_as_its_files_are_reached_anyway(here):
    touch("runs/m1/a.npy", "runs/m1/m3.npy", "runs/m2.npy")
    assert expand(["runs/**/m*"]) == [b"runs/m1/m3.npy", b"runs/m2.npy"]


# -------------------------------------------------------------------------------------------------------- manifests


def manifest(name, content):
    with open(name, "wb") as file:
        file.write(content)


def test_a_manifest_keeps_its_order_and_follows_the_sorted_part(here):
    touch("z.npy", "a.npy")
    manifest("one.txt", b"b.npy\na.npy\n")
    manifest("two.txt", b"c.npy")
    assert expand(["@two.txt", "z.npy", "@one.txt", "a.npy"]) == [
        b"a.npy",
        b"z.npy",
        b"c.npy",
        b"b.npy",
        b"a.npy",
    ]


def test_a_manifest_may_list_a_file_twice(here):
    manifest("list.txt", b"a.npy\na.npy\n")
    assert expand(["@list.txt"]) == [b"a.npy", b"a.npy"]


def test_relative_lines_start_from_the_manifest_and_absolute_ones_stand(here):
    os.mkdir("lists")
    manifest("lists/list.txt", b"a.npy\n../b.npy\n/data/c.npy\n")
    assert expand(["@lists/list.txt"]) == [b"lists/a.npy", b"lists/../b.npy", b"/data/c.npy"]
    absolute = os.fsencode(here)
    assert expand([b"@" + absolute + b"/lists/list.txt"])[0] == absolute + b"/lists/a.npy"


def test_a_manifest_may_have_a_byte_order_mark_crlf_blank_lines_and_comments(here):
    manifest("list.txt", b"\xef\xbb\xbf# made by hand\r\na.npy\r\n\r\n  \r\n b b.npy \r\n#c.npy\r\n./#d.npy")
    assert expand(["@list.txt"]) == [b"a.npy", b" b b.npy ", b"./#d.npy"]
    manifest("list.txt", b"\xef\xbb\xbfa.npy\n")
    assert expand(["@list.txt"]) == [b"a.npy"]


def test_lines_of_a_manifest_are_paths_and_not_patterns(here):
    touch("a1.npy", "@x")
    manifest("list.txt", b"a*.npy\n@x\n\xff.npy\n")
    assert expand(["@list.txt"]) == [b"a*.npy", b"@x", b"\xff.npy"]


def test_a_file_whose_name_begins_with_at_is_named_with_its_folder(here):
    touch("@a.npy")
    assert expand(["./@a.npy"]) == [b"./@a.npy"]
    assert expand(["*.npy"]) == [b"@a.npy"]
    assert "./@a.npy" in fails(["@a.npy"])


# ----------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("gone.npy", ["gone.npy", "no such file"]),
        ("gone/deeper.npy", ["gone/deeper.npy", "no such file"]),
        ("plain.npy/x", ["plain.npy/x", "no such file"]),
        ("gone*.npy", ["gone*.npy", "matches no file"]),
        ("nowhere/*.npy", ["nowhere/*.npy", "matches no file"]),
        ("**/gone.npy", ["**/gone.npy", "matches no file"]),
        ("empty", ["empty", "holds no file"]),
        ("empt[y]", ["empt[y]", "only folders without inputs"]),
        ("words", ["words", "known suffix", "--format"]),
        ("pipe", ["pipe", "not a regular file"]),
        ("", ["empty name"]),
        ("a\0*", ["a\\x00*", "NUL"]),
        ("n" * 300, ["File name too long"]),
        ("@gone.txt", ["gone.txt", "no such file"]),
        ("@empty", ["empty", "directory"]),
        ("@", ["@ names no manifest"]),
        ("@a\0", ["@a\\x00 names no manifest"]),
        ("@blank.txt", ["blank.txt", "lists no file"]),
        ("@nul.txt", ["nul.txt", "line 2", "NUL"]),
    ],
)
def test_what_names_no_file_is_refused_by_name(here, argument, words):
    os.mkdir("empty")
    touch("words/notes.md", "plain.npy")
    os.mkfifo("pipe")
    manifest("blank.txt", b"\n# nothing\n")
    manifest("nul.txt", b"a.npy\nb\0.npy\n")
    message = fails([argument])
    assert all(word in message for word in words), message


def test_an_empty_folder_is_refused_with_a_named_format_too(here):
    os.mkdir("empty")
    assert "read as raw" in fails(["empty"], format="raw")


def test_nothing_at_all_is_refused():
    assert "no inputs" in fails([])


def test_a_name_in_a_message_cannot_disturb_the_terminal(here):
    assert "\x1b" not in fails(["\x1b[31mred\n"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_cannot_be_listed_is_named(here):
    touch("locked/a.npy")
    os.chmod("locked", 0)
    try:
        assert "locked" in fails(["locked"])
        assert "locked" in fails(["**/*.npy"])
    finally:
        os.chmod("locked", 0o755)


def test_a_file_named_twice_is_refused_and_the_way_out_is_told(here):
    touch("runs/a.npy", "runs/b.npy")
    for arguments in [
        ["runs/a.npy", "runs/b.npy", "runs/a.npy"],
        ["runs", "runs/b.npy"],
        ["runs/*.npy", "runs"],
        ["runs/a.npy", "./runs/a.npy"],
        ["runs", "runs//b.npy"],
        ["runs", here / "runs/b.npy"],
        ["runs/../runs/a.npy", "runs/a.npy"],
        ["*/../runs/a.npy", "runs/b.npy", "runs/a.npy"],
    ]:
        message = fails(arguments)
        assert "named twice" in message, arguments
        assert "manifest" in message


def test_the_message_names_both_arguments_that_name_a_file(here):
    touch("runs/a.npy", "runs/b.npy")
    message = fails(["runs", "./runs/b.npy"])
    assert "'runs' and './runs/b.npy'" in message


def test_one_pattern_that_goes_up_and_down_cannot_count_a_file_twice(here):
    touch("m1/a.npy", "m2/b.npy")
    assert "named twice" in fails(["*/../m1/a.npy"])


def test_expanding_a_folder_needs_no_numpy(here):
    touch("runs/a.npy")
    code = "import sys; from distsum.inputs import expand; expand(['runs']); print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout == b"False\n"
