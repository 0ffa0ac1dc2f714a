"""Model folders: written whole, verified before use, and honest about their domain."""

import hashlib
import json
import math
from dataclasses import replace

import pytest
import torch
from slices import PROTOCOLS, maps, series_of

from asl_bids_app.errors import InputError
from asl_bids_app.estimators.ensemble import Ensemble
from asl_bids_app.estimators.noise import with_noise
from asl_bids_app.models import store
from asl_bids_app.models.build_member import build_member
from asl_bids_app.models.domain import domain_warnings
from asl_bids_app.models.run_folder import CHANNELS
from asl_bids_app.models.save import save_model
from asl_bids_app.models.spec import (
    SCHEMA_VERSION,
    Channel,
    ModelSpec,
    SchemeDomain,
    TrainingDomain,
    read_spec,
)
from asl_bids_app.models.store import find_model, load_model, model_hash
from asl_bids_app.models.uncertainty import FEATURES
from asl_bids_app.networks import build_network
from asl_bids_app.networks.posterior import PosteriorASLNet
from asl_bids_app.networks.spatial import ChannelNetwork, SpatialASLNet, Standardisation

INF = math.inf
DOMAIN = TrainingDomain(
    schemes={
        "PCASL": SchemeDomain((1, 12), (0.2, 3.5), (0.8, 4.0), (0.6, 0.95)),
        "VSASL": SchemeDomain((1, 12), (0.2, 3.6), (0.8, INF), (0.35, 0.7)),
    },
    combinations=(("PCASL",), ("VSASL",), ("PCASL", "VSASL")),
    t1_blood=(1.55, 2.15),
    t1_tissue=(1.2, 2.15),
    partition_coefficient=(0.85, 0.95),
    snr=(2.0, 25.0),
)
TABLE = {
    "total": {
        "low": [-1.0] * len(FEATURES),
        "high": [1.0] * len(FEATURES),
        "hidden_weight": [[0.5] * len(FEATURES)],
        "hidden_bias": [0.25],
        "weight": [[1.0], [-1.0]],
        "bias": [0.5, 0.125],
    }
}


def networks(count=2):
    made = []
    for seed in range(count):
        torch.manual_seed(seed)
        network = PosteriorASLNet((8, 8, 8, 8), {"points": 32})
        torch.nn.init.normal_(network.head.weight, std=0.2)
        made.append(network.eval())
    return made


def spec(**changes):
    basic = ModelSpec(
        "tiny", "1.0", "PosteriorASLNet", networks(1)[0].arguments, DOMAIN, calibration=TABLE
    )
    return replace(basic, **changes)


@pytest.fixture
def folder(tmp_path):
    return save_model(tmp_path / "tiny", spec(), networks())


def joint(**rest):
    return series_of(PROTOCOLS["joint"], *maps((2, 16, 16)), 10, **rest)


def test_round_trip(folder):
    model = load_model(folder)
    assert replace(model.spec, files={}) == spec()
    assert len(model.members) == 2
    for kept, made in zip(model.members, networks(), strict=True):
        assert kept.grid.points == 32
        assert not kept.training
        for ours, theirs in zip(kept.parameters(), made.parameters(), strict=True):
            # Half precision on disk has 11 bits.
            assert torch.allclose(ours, theirs, rtol=2**-11, atol=1e-7)
            assert ours.dtype == torch.float32
    series = joint()
    ready = store.Model(model.spec, tuple(networks()), folder, "")
    first, second = (Ensemble(each).fit(series) for each in (model, ready))
    assert torch.allclose(first.cbf, second.cbf, atol=0.2)


def test_weights_are_half_precision_and_hashed(folder):
    described = json.loads((folder / "model.json").read_text())
    assert set(described["files"]) == {
        "member-0.safetensors",
        "member-1.safetensors",
        "MODEL_CARD.md",
    }
    for name, wanted in described["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == wanted
    count = sum(p.numel() for p in networks(1)[0].parameters())
    assert (folder / "member-0.safetensors").stat().st_size < 2 * count + 8000
    assert described["domain"]["schemes"]["VSASL"]["label_duration"] == [0.8, None]


def test_loaded_once_a_process(folder):
    assert load_model(folder).members is load_model(str(folder)).members


@pytest.mark.parametrize("file", ["member-0.safetensors", "member-1.safetensors"])
def test_changed_weights_are_refused(folder, file):
    content = bytearray((folder / file).read_bytes())
    content[-1] ^= 1
    (folder / file).write_bytes(bytes(content))
    with pytest.raises(InputError, match=f"{file}: sha256: .*as model.json says"):
        load_model(folder)


def test_missing_weights_are_refused(folder):
    (folder / "member-1.safetensors").unlink()
    with pytest.raises(InputError, match="no such file"):
        load_model(folder)


def change(folder, **entries):
    path = folder / "model.json"
    content = json.loads(path.read_text())
    content.update(entries)
    path.write_text(json.dumps({k: v for k, v in content.items() if v != "gone"}))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"schema_version": SCHEMA_VERSION + 1}, "schema_version: .*update asl-bids-app"),
        ({"schema_version": SCHEMA_VERSION - 1}, "schema_version: .*export the run again"),
        ({"schema_version": "gone"}, "schema_version: found None"),
        ({"colour": "red"}, "colour: found an unknown entry"),
        ({"name": "gone"}, "name: found None, expected text"),
        ({"network": "UNet"}, "network: found UNet, expected one of PosteriorASLNet"),
        ({"arguments": {"features": [8, 8, 8]}}, "weights of PosteriorASLNet"),
        ({"arguments": {"depth": 3}}, "unexpected keyword argument 'depth'"),
        ({"files": {}}, "files: found no weights"),
        ({"domain": {"schemes": {}}}, "domain, channels"),
        ({"domain": {"schemes": {"PCASL": {"delay": [1]}}}}, "domain, channels"),
    ],
)
def test_wrong_descriptions_are_refused(folder, entries, message):
    change(folder, **entries)
    with pytest.raises(InputError, match=message):
        load_model(folder)


def test_no_json_is_refused(folder):
    (folder / "model.json").write_text("{")
    with pytest.raises(InputError, match="no JSON"):
        load_model(folder)


def test_endless_ranges_survive_json(tmp_path):
    never_cut = SchemeDomain((6, 6), (0.5, 3.0), (INF, INF), (0.5, 0.6))
    domain = replace(DOMAIN, schemes={"VSASL": never_cut})
    written = spec(domain=domain, channels=(Channel("VSASL", 0.5, INF),))
    assert read_spec(written.to_json(), tmp_path) == written
    assert "Infinity" not in written.to_json()


def test_unknown_models_are_named(tmp_path):
    with pytest.raises(InputError, match="model: found nowhere, expected a model folder"):
        load_model("nowhere")
    with pytest.raises(InputError, match=r"neither model\.json nor config.yaml"):
        load_model(tmp_path)
    assert find_model("nowhere") is None


def test_hash_follows_content(folder, tmp_path):
    same = save_model(tmp_path / "same", spec(), networks())
    other = save_model(tmp_path / "other", spec(version="1.1"), networks())
    assert model_hash(folder) == model_hash(same) == load_model(same).sha256
    assert model_hash(folder) != model_hash(other)


def test_saving_replaces_models_and_nothing_else(folder, tmp_path):
    save_model(folder, spec(version="2.0"), networks(1))
    assert load_model(folder).spec.version == "2.0"
    assert not (folder / "member-1.safetensors").exists()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.md").write_text("years of work")
    with pytest.raises(InputError, match="other files"):
        save_model(tmp_path / "thesis", spec(), networks())
    assert (tmp_path / "thesis" / "chapter.md").is_file()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["thesis", "tiny"]


def test_saving_nothing_or_nonsense_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="at least one member"):
        save_model(tmp_path / "a", spec(), [])
    bad = networks(1)
    with torch.no_grad():
        bad[0].head.weight[0, 0] = 1e6
    with pytest.raises(ValueError, match=r"head\.weight: not finite in half precision"):
        save_model(tmp_path / "b", spec(), bad)
    assert not list(tmp_path.iterdir())


def test_card_and_extras(tmp_path):
    table = tmp_path / "table.md"
    table.write_text("| a |")
    described = spec(
        licence="Apache-2.0",
        intended_use="Research.",
        metrics={"joint": {"cbf_mae": 2.5}},
        training={"config_sha256": "abc"},
    )
    made = save_model(tmp_path / "m", described, networks(1), {"validation/table.md": table})
    card = (made / "MODEL_CARD.md").read_text()
    for words in ("# tiny 1.0", "Research.", "Apache-2.0", "PCASL", "no cut", "cbf_mae: 2.5"):
        assert words in card
    assert (made / "validation" / "table.md").read_text() == "| a |"
    assert load_model(made).facts()["Members"] == 1


def test_inside_the_domain_nothing_is_said():
    assert domain_warnings(spec(), with_noise(joint())) == ()


@pytest.mark.parametrize(
    ("domain", "words"),
    [
        (replace(DOMAIN, t1_blood=(1.8, 2.1)), "T1 of blood 1.65 s, trained with 1.8 to 2.1 s"),
        (replace(DOMAIN, t1_tissue=(1.0, 1.4)), "T1 of tissue 1.65 s"),
        (replace(DOMAIN, partition_coefficient=(0.98, 1.0)), "partition coefficient 0.9 mL/g"),
        (replace(DOMAIN, snr=(30.0, 50.0)), "signal-to-noise ratio about"),
        (replace(DOMAIN, combinations=(("PCASL",), ("VSASL",))), "PCASL with VSASL in one series"),
        (
            replace(DOMAIN, schemes={"PCASL": DOMAIN.schemes["PCASL"]}),
            "VSASL was not trained",
        ),
    ],
)
def test_outside_the_domain(domain, words):
    (found,) = domain_warnings(spec(domain=domain), with_noise(joint()))
    assert words in found
    assert found.startswith("outside the training domain of model tiny: ")


@pytest.mark.parametrize(
    ("field", "limits", "words"),
    [
        ("measurements", (7, 12), "PCASL measurements 6, trained with 7 to 12"),
        ("delay", (1.0, 3.5), "PCASL delays 0.5 to 3 s, trained with 1 to 3.5 s"),
        ("delay", (0.2, 2.0), "PCASL delays 0.5 to 3 s, trained with 0.2 to 2 s"),
        ("label_duration", (0.8, 1.5), "PCASL label durations 1.8 s"),
        ("efficiency", (0.5, 0.7), "PCASL labelling efficiency 0.85"),
    ],
)
def test_outside_the_domain_of_a_scheme(field, limits, words):
    pcasl = replace(DOMAIN.schemes["PCASL"], **{field: limits})
    domain = replace(DOMAIN, schemes={**DOMAIN.schemes, "PCASL": pcasl})
    (found,) = domain_warnings(spec(domain=domain), with_noise(joint()))
    assert words in found


def test_uncut_bolus_outside_a_finite_range():
    vsasl = replace(DOMAIN.schemes["VSASL"], label_duration=(0.8, 2.2))
    domain = replace(DOMAIN, schemes={**DOMAIN.schemes, "VSASL": vsasl})
    (found,) = domain_warnings(spec(domain=domain), with_noise(joint()))
    assert "VSASL label durations no cut, trained with 0.8 to 2.2 s" in found


def test_late_slices_count_as_late_delays():
    found = domain_warnings(spec(), with_noise(joint(slice_step=1.0)))
    assert [each.partition("model tiny: ")[2] for each in found] == [
        "PCASL delays 0.5 to 4 s, trained with 0.2 to 3.5 s",
        "VSASL delays 0.5 to 4 s, trained with 0.2 to 3.6 s",
    ]


def test_unrecorded_domain_is_told():
    (found,) = domain_warnings(spec(domain=None), with_noise(joint()))
    assert "isn't recorded" in found


STATS = {"y_mean_cbf": 40.0, "y_std_cbf": 22.0, "y_mean_att": 1400.0, "y_std_att": 500.0}


@pytest.fixture
def run_folder(tmp_path):
    """A run folder of a network of the published protocol, as training leaves it."""
    run = tmp_path / "run"
    (run / "trained_models").mkdir(parents=True)
    (run / "config.yaml").write_text(
        "name: published\ndomain: {protocol: joint 6+6}\n"
        "signal: {normalization_mode: global_scale, global_scale_factor: 10.0}\n"
        "network: {name: SpatialASLNet, arguments: {n_plds: 6, features: [8, 8, 8, 8]}}\n"
    )
    (run / "norm_stats.json").write_text(json.dumps(STATS))
    (run / "research_config.json").write_text('{"run": {"seed": 1}}')
    for number in range(2):
        torch.manual_seed(number)
        network = SpatialASLNet(6, (8, 8, 8, 8))
        torch.nn.init.normal_(network.head.weight, std=0.1)
        path = run / "trained_models" / f"ensemble_model_{number}.pt"
        torch.save({"model_state_dict": network.state_dict()}, path)
    return run


def test_run_folder_is_a_model(run_folder):
    model = load_model(run_folder)
    assert model.spec.name == "published"
    assert model.spec.training == {"run": {"seed": 1}}
    assert len(model.members) == 2
    series = joint()
    found = Ensemble(model, tta=False).fit(series)
    # The contract of the run folder, spelt out.
    expected = []
    for number in range(2):
        state = torch.load(
            run_folder / f"trained_models/ensemble_model_{number}.pt", weights_only=True
        )
        network = SpatialASLNet(n_plds=6, features=(8, 8, 8, 8))
        network.load_state_dict(state["model_state_dict"])
        with torch.no_grad():
            cbf_norm, att_norm, *_ = network(series.delta_m * 100 * 10)
        expected.append((40 + 22 * cbf_norm[:, 0], (1400 + 500 * att_norm[:, 0]) / 1000))
    inside = series.mask
    for k, got in enumerate((found.cbf, found.att)):
        mean = (expected[0][k] + expected[1][k]) / 2
        assert torch.allclose(got[inside], mean[inside], atol=1e-2)


def test_run_folder_refuses_data_that_do_not_fit(run_folder):
    series = series_of(PROTOCOLS["pcasl"], *maps((2, 16, 16)), 10)
    with pytest.raises(InputError, match="model published: channels: found PCASL"):
        Ensemble(load_model(run_folder)).fit(series)


def test_run_folder_of_any_protocol(run_folder):
    (run_folder / "config.yaml").write_text(
        "network: {name: PosteriorASLNet, arguments: {features: [8, 8, 8, 8]}}\n"
    )
    for number in range(2):
        state = {"model_state_dict": PosteriorASLNet((8, 8, 8, 8)).state_dict()}
        torch.save(state, run_folder / "trained_models" / f"ensemble_model_{number}.pt")
    series = series_of(PROTOCOLS["pasl"], *maps((2, 16, 16)), 10)
    assert bool(Ensemble(load_model(run_folder)).fit(series).cbf.any())


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.yaml", "network: 3", "network: found no name"),
        ("config.yaml", "a: [", "not readable"),
        (
            "config.yaml",
            "network: {name: SpatialASLNet}\ndomain: {protocol: random}",
            "domain.protocol: found 'random', expected one of joint 6",
        ),
        (
            "config.yaml",
            "network: {name: SpatialASLNet, arguments: {n_plds: 5}}\n"
            "domain: {protocol: joint 6+6}",
            "n_plds: found 5",
        ),
        ("norm_stats.json", "{}", "y_mean_cbf"),
        ("trained_models/ensemble_model_1.pt", "nonsense", "model_state_dict"),
    ],
)
def test_broken_run_folders_are_refused(run_folder, file, content, message):
    (run_folder / file).write_text(content)
    with pytest.raises(InputError, match=message):
        load_model(run_folder)


def test_hash_of_a_run_folder_follows_its_weights(run_folder):
    first = model_hash(run_folder)
    torch.save({"model_state_dict": {}}, run_folder / "trained_models/ensemble_model_1.pt")
    assert model_hash(run_folder) != first


def test_channels_are_the_protocol_that_training_simulates():
    from asl_bids_app.training.simulate.schedules import PROTOCOLS as TRAINED

    for name, channels in CHANNELS.items():
        trained = TRAINED[name]
        assert tuple(each.scheme for each in channels) == trained.schemes
        assert [c.post_labeling_delay for c in channels] == pytest.approx(
            trained.post_labeling_delay.tolist()
        )
        assert [c.label_duration for c in channels] == pytest.approx(
            trained.label_duration.tolist()
        )


def test_saved_network_of_a_fixed_protocol(tmp_path):
    scale = {"scale": 10.0, "cbf_mean": 40.0, "cbf_sd": 20.0, "att_mean": 1.4, "att_sd": 0.5}
    network = ChannelNetwork(SpatialASLNet(6, (8, 8, 8, 8)), Standardisation(**scale))
    described = ModelSpec(
        "published",
        "1",
        "SpatialASLNet",
        network.network.arguments,
        channels=CHANNELS["joint 6+6"],
        standardisation=scale,
    )
    model = load_model(save_model(tmp_path / "m", described, [network]))
    assert isinstance(model.members[0], ChannelNetwork)
    assert model.members[0].standardisation == network.standardisation
    assert "| VSASL | 3 | no cut |" in (tmp_path / "m" / "MODEL_CARD.md").read_text()


def test_wrong_weights_name_the_file(tmp_path):
    with pytest.raises(InputError, match=r"some\.pt.*weights of PosteriorASLNet"):
        build_member(spec(), {"a": torch.ones(1)}, tmp_path / "some.pt")


ODD = (None, True, -1.5, "x", [None], {"a": None})
"""Values that stand where they shouldn't."""


def places(content, above=()):
    """Paths of all entries of a description but the hashes and the schema's version."""
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in list(items):
        if key in {"metrics", "training", "schema_version"}:
            continue
        yield (*above, key)
        if isinstance(value, dict) or (isinstance(value, list) and value and len(value) < 6):
            yield from places(value, (*above, key))


def test_wrong_types_anywhere_in_a_description_are_told_in_one_line(folder):
    """Whatever stands where: an `InputError`, or a model that a computation can use."""
    file = folder / "model.json"
    whole = json.loads(file.read_text())
    used, told = 0, []
    for place in places(whole):
        for odd in ODD:
            content = json.loads(json.dumps(whole))
            inner = content
            for key in place[:-1]:
                inner = inner[key]
            if inner[place[-1]] == odd:
                continue
            inner[place[-1]] = odd
            try:
                read_spec(json.dumps(content), file)
                used += 1
            except InputError as error:
                told.append(str(error))
    assert len(told) > 150
    assert used > 5
    assert not [text for text in told if "\n" in text]


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("files", {"../../etc/passwd.safetensors": "x"}, "files"),
        ("files", {"/etc/passwd": "x"}, "files"),
        ("files", ["member-0.safetensors"], "files"),
        ("arguments", [1], "arguments"),
        ("calibration", {"total": 5}, "calibration"),
        ("calibration", {"total": {**TABLE["total"], "bias": [2000.0, 0.1]}}, "calibration"),
        ("channels", {"scheme": "PCASL"}, "channels"),
        ("domain", {"schemes": []}, "domain"),
    ],
)
def test_an_entry_of_a_wrong_type_is_named(folder, key, value, word):
    file = folder / "model.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    with pytest.raises(InputError, match=word) as told:
        load_model(folder)
    assert str(file) in str(told.value)


def test_arguments_of_before_are_read_by_their_old_names():
    old = build_network("PosteriorASLNet", {"features": [4, 4, 4, 4], "cbf_doubt": 0.03})
    assert old.arguments["cbf_uncertainty"] == 0.03


def test_arguments_that_build_no_network_are_told(folder):
    file = folder / "model.json"
    for arguments in ({"features": "x"}, {"features": []}, {"features": [1]}, {"grid": [1]}):
        file.write_text(json.dumps({**json.loads(file.read_text()), "arguments": arguments}))
        with pytest.raises(InputError):
            load_model(folder)
