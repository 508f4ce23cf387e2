from __future__ import annotations

import pytest

from bulkformer_tl.train import Masking, Optimizer, PretrainConfig


def test_survives_a_file(tmp_path):
    config = PretrainConfig(
        family="g2",
        network={"dim": 32},
        masking=Masking((0.1, 0.2), final=0.9, kinds={"entry": 1, "panel": 2}, panels={"a": ("ENSG1", "ENSG2")}),
        optimizer=Optimizer(learning_rate=3e-4, betas=(0.9, 0.95), clip=None),
        validation=("b", "a"),
    )
    config.write(tmp_path / "config.yaml")
    assert PretrainConfig.read(tmp_path / "config.yaml") == config
    assert PretrainConfig.from_dict(config.to_dict()) == config


def test_a_family_of_bins_survives_a_file(tmp_path):
    config = PretrainConfig(
        family="bioformer", network={"decoder": True}, binning={"rna": {"bin_size": 0.5}}, external="tissue"
    )
    assert (config.objective, config.external) == ("cross_entropy", ("tissue",))
    config.write(tmp_path / "config.yaml")
    assert PretrainConfig.read(tmp_path / "config.yaml") == config


def test_files_say_only_what_differs(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("epochs: 3\nvalidation: mine\noptimizer:\n  learning_rate: 1e-3\nmasking: {fraction: [0.1, 0.3]}\n")
    config = PretrainConfig.read(path)
    assert (config.epochs, config.validation, config.optimizer.learning_rate) == (3, ("mine",), 1e-3)
    assert config.masking == Masking((0.1, 0.3))
    path.write_text('{"epochs": 3}')
    assert PretrainConfig.read(path) == PretrainConfig(epochs=3)


@pytest.mark.parametrize("decay", ["cosine", "linear"])
def test_schedule(decay):
    optimizer = Optimizer(warmup=0.1, decay=decay, floor=0.1)
    factors = [optimizer.factor(step, 100) for step in range(101)]
    assert factors[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert factors[10] == 1
    assert factors[55] == pytest.approx(0.55)
    assert factors[100] == pytest.approx(0.1)
    assert sorted(factors[10:], reverse=True) == factors[10:]
    assert Optimizer(warmup=0).factor(0, 100) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"family": "g1"},
            r"family must be one of \['g2', 'g3', 'bioformer', 'geneformer'\] to be pretrained, found 'g1'",
        ),
        ({"objective": "mae"}, "objective must be one of"),
        ({"precision": "16"}, "precision must be"),
        ({"compile": True}, "torch compiles the network's own modules.*pass fast=False"),
        ({"epochs": 0}, "epochs must be above 0"),
        ({"batch_size": 0}, "batch_size must be a whole number above 0"),
        ({"patience": 1.5}, "patience must be a whole number"),
        ({"validation": 1.0}, "validation is a share"),
        ({"validation": []}, "names no study"),
        ({"optimizer": {"learning_rate": 0}}, "learning_rate must be above 0"),
        ({"optimizer": {"weight_decay": -1}}, "weight_decay must not be negative"),
        ({"optimizer": {"betas": [0.9]}}, "betas are two numbers"),
        ({"optimizer": {"warmup": 1}}, "warmup is a share"),
        ({"optimizer": {"decay": "step"}}, "decay must be"),
        ({"optimizer": {"floor": 2}}, "floor is a share"),
        ({"optimizer": {"clip": 0}}, "clip must be above 0"),
        ({"optimiser": {}}, r"unknown fields \['optimiser'\]; PretrainConfig has \['family'"),
        ({"masking": {"share": 0.1}}, r"unknown fields \['share'\]; Masking has"),
        ({"epochs": "many"}, "could not convert"),
        ({"epochs": [1]}, "a value of PretrainConfig is of the wrong kind"),
    ],
)
def test_impossible_values(given, message):
    with pytest.raises(ValueError, match=message):
        PretrainConfig.from_dict(given)


@pytest.mark.parametrize(("text", "message"), [("- 1\n", "should hold fields"), ("a: [", "is not YAML")])
def test_other_files(tmp_path, text, message):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        PretrainConfig.read(tmp_path / "config.yaml")
    with pytest.raises(FileNotFoundError):
        PretrainConfig.read(tmp_path / "absent.yaml")
