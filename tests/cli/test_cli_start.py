"""What is refused before any work: options, files of options, devices, images."""

import pytest
from fake_bids import FakeDataset

from asl_bids_app.cli.app import main
from asl_bids_app.cli.parser import parse
from asl_bids_app.docker.wrapper import build_parser


def places(folder):
    (folder / "bids").mkdir()
    return [str(folder / "bids"), str(folder / "out")]


@pytest.mark.parametrize(
    "content",
    [
        *(b"t1-blood: [1.6, 1.7]", b"t1-blood:", b"t1-blood: {a: 1}", b"t1-blood: true"),
        *(b"participant-label: []", b"participant-label: [null]", b"device: [cpu]", b"- a", b""),
        *(b"t1-blood: 1.6\nt1-blood: 1.7", b"t1-blood: 1.6\nt1_blood: 1.7", b"\0", b"mem: 0"),
        *("t1-blood: 1.6".encode("utf-16"), b"a: &x [*x]", b"random-seed: -1", b"no-hmc: 1"),
    ],
)
def test_an_odd_file_of_options_is_one_line(content, tmp_path, capsys):
    file = tmp_path / "options.yaml"
    file.write_bytes(content)
    with pytest.raises(SystemExit) as ended:
        parse([*places(tmp_path), "participant", "--config-file", str(file)])
    assert ended.value.code == 2
    (line,) = [
        text for text in capsys.readouterr().err.splitlines() if text.startswith("asl-app: error")
    ]
    assert str(file) in line


@pytest.mark.parametrize(
    "words",
    [
        *("--random-seed -1", "--random-seed 4294967296", "--random-seed 1.5", "--mem 0"),
        *("--mem-gb 0", "--mem 100", "--nprocs 0", "--nprocs 999999999", "--device tpu"),
    ],
)
def test_a_value_that_cannot_be_is_refused_at_the_start(words, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        parse([*places(tmp_path), "participant", *words.split()])
    assert ended.value.code == 2
    assert f"found '{words.split()[1]}'" in capsys.readouterr().err


def test_ends_of_ranges_are_taken(tmp_path):
    words = ["--random-seed", "4294967295", "--mem-gb", "0.5", "--nprocs", "4096"]
    options = parse([*places(tmp_path), "participant", *words])
    assert (options.random_seed, options.mem_gb, options.nprocs) == (4294967295, 0.5, 4096)


@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["run", "dry run"])
@pytest.mark.parametrize("words", ["--device cuda:99", "--model nowhere", "--participant-label x"])
def test_what_is_not_there_ends_with_2_before_any_work(words, dry, tmp_path, capsys):
    dataset = FakeDataset(tmp_path / "bids")
    dataset.add("01")
    out, work = tmp_path / "out", tmp_path / "work"
    call = [
        str(dataset.root),
        str(out),
        "participant",
        "-w",
        str(work),
        "-q",
        *words.split(),
        *dry,
    ]
    assert main(call) == 2
    assert words.split()[1] in capsys.readouterr().err
    assert not out.exists()
    assert not work.exists()


@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["run", "dry run"])
@pytest.mark.parametrize("fault", ["text", "volumes"])
def test_a_mask_that_is_none_ends_with_2_before_any_work(fault, dry, tmp_path, capsys):
    dataset = FakeDataset(tmp_path / "bids")
    run = dataset.add("01")
    mask = run.asl
    if fault == "text":
        mask = tmp_path / "mask.nii.gz"
        mask.write_text("t1-blood: 1.7")
    out = tmp_path / "out"
    assert main([str(dataset.root), str(out), "participant", "--brain-mask", str(mask), *dry]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert told[0].startswith(f"error: command line: --brain-mask: found {mask}: ")
    assert not out.exists()


@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["run", "dry run"])
@pytest.mark.parametrize("option", ["--model", "--use-plugin"])
def test_a_damaged_file_of_an_option_ends_a_dry_run_as_a_run(option, dry, tmp_path, capsys):
    dataset = FakeDataset(tmp_path / "bids")
    dataset.add("01")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").write_text("{}")
    (tmp_path / "plugin.yaml").write_text("plugin: Nowhere")
    given = {"--model": "model", "--use-plugin": "plugin.yaml"}[option]
    call = [str(dataset.root), str(tmp_path / "out"), "participant", option, str(tmp_path / given)]
    assert main([*call, *dry]) == 1
    assert f"error: {tmp_path / given}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("image", ["--privileged", "-v", "", "a b", "$(x)", "a\nb"])
def test_an_option_is_no_name_of_an_image(image, monkeypatch):
    with pytest.raises(SystemExit):
        build_parser().parse_known_args([f"--image={image}"])
    monkeypatch.setenv("ASL_APP_IMAGE", image)
    with pytest.raises(SystemExit):
        build_parser().parse_known_args([])


@pytest.mark.parametrize("image", ["asl-app:0.1.0", "localhost:5000/a/b@sha256:0f", "a_b.c-d"])
def test_names_of_images_are_taken(image):
    assert build_parser().parse_known_args([f"--image={image}"])[0].image == image
