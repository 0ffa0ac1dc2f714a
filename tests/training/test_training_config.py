"""Configurations of a training: strict, told in one line, the same after a round trip."""

import pickle
from dataclasses import FrozenInstanceError, fields, is_dataclass

import pytest
import yaml

from asl_bids_app.errors import InputError
from asl_bids_app.training.config.declaration import get_declared, walk_settings
from asl_bids_app.training.config.reading import build, plain
from asl_bids_app.training.config.run_config import CRITICAL, RunConfig, load, presets
from asl_bids_app.training.config.sections import TrainingConfig
from asl_bids_app.training.fit.run_members import build_member
from asl_bids_app.training.fit.training_run import NormStats

PRESETS = {
    "laptop",
    "laptop_arteries",
    "production_any",
    "production_dual_encoder",
    "laptop_spatial",
    "laptop_dual_encoder",
    "production_quick",
    "production_v1",
    "smoke",
}


def test_presets_are_those_of_the_guide():
    assert set(presets()) == PRESETS


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_load_and_survive_a_file(name, tmp_path):
    config = load(name)
    assert config.name == name
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml())
    again = load(path)
    assert again.to_dict() == config.to_dict()
    assert again.digest() == config.digest()
    assert pickle.loads(pickle.dumps(config)).digest() == config.digest()


def test_presets_have_the_published_sizes():
    v1, quick = load("production_v1"), load("production_quick")
    assert (v1.data.phantoms, v1.training.epochs, v1.training.members) == (500_000, 200, 5)
    assert (quick.data.phantoms, quick.training.epochs, quick.training.members) == (100_000, 50, 3)
    assert v1.network.name == quick.network.name == "SpatialASLNet"
    assert load("production_dual_encoder").network.name == "DualEncoderSpatialASLNet"
    assert load("production_any").network.name == load("laptop").network.name == "PosteriorASLNet"
    assert load("laptop").training.members == 5


def test_epochs_become_steps():
    changes = ["data.phantoms=1000", "training.epochs=8", "training.batch_size=16"]
    assert load("production_any", changes).steps == 500
    assert load("production_any", [*changes, "training.steps=7"]).steps == 7


def test_times_are_milliseconds_in_files_and_seconds_inside():
    config = load("laptop", ["training.att_unit_ms=650", "domain.t1_blood_ms=[1600, 1700.5]"])
    assert config.training.att_unit == pytest.approx(0.65)
    assert config.domain.t1_blood == pytest.approx((1.6, 1.7005))
    values = config.to_dict()
    assert values["training"]["att_unit_ms"] == 650
    assert values["domain"]["t1_blood_ms"] == [1600, 1700.5]


def test_every_time_has_its_unit_in_the_key():
    """No setting in seconds may hide behind a key without a unit."""

    def walk(value, content, path):
        for item in fields(value):
            child = getattr(value, item.name)
            if is_dataclass(child):
                walk(child, content[item.name], f"{path}.{item.name}")
            elif item.metadata.get("unit", "").startswith("s"):
                key = next(k for k in content if k.startswith(item.name) and "_ms" in k)
                first = child[-1] if isinstance(child, tuple) else child
                inside = content[key][-1] if isinstance(content[key], list) else content[key]
                assert inside == pytest.approx(1000 * first), f"{path}.{key}"
                found.append(key)

    found = []
    config = load("laptop")
    walk(config, config.to_dict(), "")
    assert {"t1_blood_ms", "att_unit_ms", "t1_tissue_low_ms", "att_ms"} <= set(found)


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ("trainng.members=3", "trainng", "did you mean training"),
        ("training.batchsize=3", "training.batchsize", "did you mean training.batch_size"),
        ("training.members=2.5", "training.members", "whole number"),
        ("training.members=true", "training.members", "whole number"),
        ("training.members=0", "training.members", "1 to 100"),
        ("training.learning_rate=fast", "training.learning_rate", "a number"),
        ("training.learning_rate=.nan", "training.learning_rate", "nan"),
        ("training.precision=half", "training.precision", "one of auto, float32, bfloat16"),
        ("training.att_unit_ms=0.5", "training.att_unit_ms", "at least 1"),
        ("training=3", "training", "mapping"),
        ("domain.t1_blood_ms=[1600]", "domain.t1_blood_ms", "list of 2"),
        ("domain.t1_blood_ms=[1.6, 1.7]", "domain.t1_blood_ms[0]", "500 to 4000"),
        ("domain.t1_blood_ms=[1700, 1600]", "domain", "t1_blood"),
        ("validation.snr=[3, high]", "validation.snr[1]", "a number"),
        ("network.name=ASLNet", "network.name", "SpatialASLNet"),
        ("logging.tensorboard=1", "logging.tensorboard", "true or false"),
    ],
)
def test_mistakes_are_told_with_their_path(change, field, words):
    with pytest.raises(InputError) as caught:
        load("laptop", [change])
    assert caught.value.field == field
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", ["training.members", "=3", ".a=1", "a..b=1"])
def test_overrides_need_a_path_and_a_value(change):
    with pytest.raises(InputError, match="--set"):
        load("laptop", [change])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("signal.normalization_mode", "per_slice"),
        ("signal.global_scale_factor", 5.0),
        ("noise.noise_type", "gaussian"),
        ("training.dc_weight", 0.5),
        ("training.loss_type", "l2"),
    ],
)
def test_critical_settings_are_guarded(path, value):
    assert path in CRITICAL
    with pytest.raises(InputError, match="--allow-noncritical") as caught:
        load("production_v1", [f"{path}={value}"])
    assert caught.value.field == path
    config = load("production_v1", [f"{path}={value}"], allow_noncritical=True)
    assert config.noncritical() == {path: value}


def test_all_critical_settings_are_tested_and_default_to_their_value():
    assert len(CRITICAL) == 5
    assert RunConfig().noncritical() == {}


def test_a_file_says_only_what_differs_from_its_base(tmp_path):
    (tmp_path / "base.yaml").write_text("base: smoke\ntraining: {members: 7}\n")
    path = tmp_path / "mine.yaml"
    path.write_text("base: base.yaml\nname: mine\ntraining: {batch_size: 4}\n")
    config = load(path)
    assert (config.name, config.training.members, config.training.batch_size) == ("mine", 7, 4)
    assert config.data.phantoms == load("smoke").data.phantoms


def test_files_of_before_are_read_by_their_old_keys(tmp_path):
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    old.write_text(
        "base: laptop\nnoise: {told_error: 0.2, told_flat: 0.4}\n"
        "network: {arguments: {cbf_doubt: 0.03}}\n"
    )
    new.write_text(
        "base: laptop\nnoise: {reported_error: 0.2, reported_flat: 0.4}\n"
        "network: {arguments: {cbf_uncertainty: 0.03}}\n"
    )
    assert load(old).to_dict() == load(new).to_dict() != load("laptop").to_dict()
    # What stands above outranks, by whichever key.
    assert load(old, ["noise.reported_error=0.3"]).noise.reported_error == 0.3
    assert load(new, ["noise.told_error=0.3"]).noise.reported_error == 0.3
    old.write_text("base: laptop\nnoise: {told_error: 0.2, reported_error: 0.2}\n")
    with pytest.raises(InputError, match=r"told_error: found noise.reported_error beside it"):
        load(old)


def test_arguments_of_one_network_are_not_handed_on_to_another(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("base: laptop\nnetwork: {name: SpatialASLNet, arguments: {n_plds: 4}}\n")
    assert load("laptop").network.arguments["cbf_uncertainty"] == 0.015
    assert load(path).network.arguments == {"n_plds": 4}
    path.write_text("base: laptop\nnetwork: {arguments: {window: 5}}\n")
    assert load(path).network.arguments == {**load("laptop").network.arguments, "window": 5}
    changed = load("laptop", ["network.name=SpatialASLNet", "network.arguments.n_plds=3"])
    assert changed.network.arguments == {"n_plds": 3}


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_the_network_of_every_preset_can_be_built(name):
    network = build_member(load(name), NormStats(40.0, 20.0, 1300.0, 400.0))
    assert sum(p.numel() for p in network.parameters()) > 10_000


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("training: [1, 2", "YAML"),
        ("- 1\n- 2\n", "no mapping"),
        ("base: smok\n", "did you mean smoke"),
        ("base: other.yaml\n", "no such file"),
        ("base: 3\n", "preset's name"),
    ],
)
def test_bad_files(tmp_path, text, words):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        load(path)


def test_bases_in_a_circle(tmp_path):
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    with pytest.raises(InputError, match="circle"):
        load(tmp_path / "a.yaml")


def test_defaults_are_the_dataclasses(tmp_path):
    path = tmp_path / "empty.yaml"
    path.write_text("")
    assert load(path).to_dict() == RunConfig().to_dict()
    assert build(RunConfig, {}, "nowhere").digest() == RunConfig().digest()
    assert yaml.safe_load(RunConfig().to_yaml()) == plain(RunConfig())


def test_every_default_is_what_its_declaration_expects():
    values = RunConfig().to_dict()
    assert build(RunConfig, values, "nowhere") == RunConfig()
    for key, cls, item in walk_settings(RunConfig):
        declared = get_declared(item)
        if declared.low is None and declared.high is None:
            continue
        held = item.default
        assert all(map(declared.accepts, held if isinstance(held, tuple) else [held])), key
        assert declared.text, f"{key}: no line of explanation"
        assert cls.plain_hints[item.name] in (int, float, bool) or isinstance(held, tuple), key


def test_messages_name_the_unit_of_the_file():
    with pytest.raises(InputError, match=r"domain.t1_blood_ms\[1\]: found 9000.*4000 ms"):
        load("laptop", ["domain.t1_blood_ms=[1600, 9000]"])
    with pytest.raises(InputError, match=r"phantoms.voxel_size\[0\]: found 0.1.*1 to 12 mm"):
        load("laptop", ["phantoms.voxel_size=[0.1, 4]"])


def test_sections_refuse_wrong_arguments_in_one_line():
    for wrong, words in (
        ({"members": 0}, "members: found 0, expected 1 to 100"),
        ({"loss_type": "l3"}, "loss_type: found 'l3', expected one of l1, l2, huber"),
        ({"membrs": 3}, "membrs"),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            TrainingConfig(**wrong)
        assert "\n" not in str(caught.value)
    with pytest.raises(FrozenInstanceError):
        TrainingConfig().members = 3
