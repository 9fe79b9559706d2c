"""A mistake in a config is one sentence that names the file, the key and what is near it."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import ase.io
import pytest
import yaml
from ase.build import molecule

from surefoot.cli.commented import write_template
from surefoot.cli.config import Config, load_config
from surefoot.cli.recipes import RECIPES
from surefoot.cli.screen import UserError
from surefoot.cli.tasks import TASKS
from surefoot.data.load import load_splits
from surefoot.data.read import Frame
from surefoot.heads import HEADS
from surefoot.models import MODELS
from surefoot.posteriors import METHODS
from surefoot.posteriors.ensemble import EnsembleSettings, unseen_frames
from surefoot.wording import counted

ROOT = Path(__file__).parents[2]


def write(folder: Path, text: str) -> Path:
    path = folder / "c.yaml"
    path.write_text(text)
    return path


def test_template_is_the_defaults(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, write_template(["a.xyz"], head="scalar")))
    assert config == Config.model_validate({"data": {"train": ["a.xyz"]}})


@pytest.mark.parametrize("name", sorted(MODELS))
def test_template_of_every_model_is_its_recipe(surefoot, tmp_path: Path, name: str) -> None:
    """Everything else is at its default."""
    text = surefoot("template", "--model", name, "--head", "scalar").stdout
    config = load_config(write(tmp_path, text))
    recipe = {section: dict(values) for section, values in RECIPES.get(name, {}).items()}
    recipe["model"] = {"name": name, **recipe.get("model", {})}
    assert config == Config.model_validate({"data": {"train": ["train.xyz"]}, **recipe})
    wrong = write(tmp_path, f"data: {{train: [a]}}\nmodel: {{name: {name}, cutof: 3}}")
    with pytest.raises(UserError, match=r"model\.cutof.* cutoff"):
        load_config(wrong)


def test_template_of_an_unknown_model(surefoot) -> None:
    done = surefoot("template", "--model", "schnett", check=False)
    assert done.returncode == 1
    assert "--model schnett: not known; there is" in done.stderr


def test_every_default_is_in_the_template() -> None:
    content = yaml.safe_load(write_template(["a.xyz"]))
    assert set(content) == set(Config.model_fields)
    assert set(content["train"]) == set(Config.model_fields["train"].annotation.model_fields)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("data: {train: [a]}\nmodel: {featurs: 3}", ["model.featurs", "features"]),
        ("data: {train: [a]}\ntrian: {epochs: 3}", ["'trian'", "train"]),
        ("data: {train: [a]}\ntrain: {schedule: {nam: cosine}}", ["train.schedule.nam", "name"]),
        ("data: {train: [a]}\nconditioning: {name: charge}", ["conditioning.name", "charge_spin"]),
        ("data: {train: [a], units: {spin: 2S}}", ["data.units.spin", "2S", "unpaired"]),
        ("data: {train: [a]}\ntrain: {epochs: -3}", ["train.epochs", "-3", "greater"]),
        ("data: {train: [a]}\nmodel: {name: schnett}", ["schnett", "schnet"]),
        ("data: {train: [a]}\nmodel: {name: race, max_ell: 7}", ["more than 6 is not built", "7"]),
        (
            "data: {train: [a]}\nmodel: {name: mace, correlation: 5}",
            ["model.correlation: more than 4 is not built (found 5)."],
        ),
        ("data: {train: [a]}\nmodel: {name: allegro, lmax: 4}", ["more than 3 is not built"]),
        ("model: {features: 3}", ["data", "missing"]),
        ("data: {train: [a]}\nposterior: {members: 4, left_out: 1}", ["left_out", "two members"]),
        ("data: {train: [a]}\ntrain: {learning_rate: .nan}", ["learning_rate", "finite"]),
        ("data: {train: [a]}\nmodel: {name: [a]}", ["model", "'['a']' is not known", "schnet"]),
        ("data: {train: [a]}\nmodel: {1: 2}", ["model", "1"]),
        ("- 1", ["section"]),
        ("a: [", ["YAML"]),
    ],
)
def test_mistakes_are_sentences(tmp_path: Path, text: str, parts: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        load_config(write(tmp_path, text))
    assert "c.yaml" in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


def test_flags_override_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "data: {train: [a]}\ntrain: {epochs: 3}")
    config = load_config(path, ["train.epochs=7", "model.cutoff=4.5", "data.train=[b, c]"])
    assert (config.train.epochs, config.model.cutoff) == (7, 4.5)
    assert config.data.train == ["b", "c"]


def test_override_without_value_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"section\.key=value"):
        load_config(write(tmp_path, "data: {train: [a]}"), ["train.epochs"])


@pytest.mark.parametrize("override", ["train.epochs=[1", "model={name: [a]}"])
def test_wrong_values_of_overrides_are_sentences(tmp_path: Path, override: str) -> None:
    with pytest.raises(UserError, match=r"not YAML|is not known"):
        load_config(write(tmp_path, "data: {train: [a]}"), [override])


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("train.epoch=7", "--set train.epoch=7: there is no key 'train.epoch'; near it .* epochs"),
        ("train.epochs=-7", "--set train.epochs=-7: train.epochs: Input should be greater than"),
        ("model.name=schnett", "--set model.name=schnett: model: 'schnett' is not known"),
        (
            "traine.epochs=3",
            "--set traine.epochs=3: there is no key 'traine'; near it there is train",
        ),
        ("train.epochs=5", "c.yaml: there is no key 'model.cutof'"),
        ("posterior.left_out=1", "c.yaml with --set posterior.left_out=1: posterior: left_out is"),
        (
            "posterior=4",
            r"--set posterior=4: posterior: a section of keys is needed, such as \{name",
        ),
        ("train=4", r"--set train=4: train: a section of keys is needed \(found 4\)"),
    ],
)
def test_a_mistake_in_an_override_is_not_blamed_on_the_file(
    tmp_path: Path, override: str, sentence: str
) -> None:
    wrong = ", cutof: 3" if "cutof" in sentence else ""
    # `train:` without a key in it is no mistake
    text = f"data: {{train: [a]}}\ntrain:\nmodel: {{name: schnet{wrong}}}\n"
    path = write(tmp_path, text + "posterior: {members: 4, left_out: 2}")
    with pytest.raises(UserError, match=sentence):
        load_config(path, [override])


def test_missing_file_names_template(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="template"):
        load_config(tmp_path / "none.yaml")


def test_folder_in_place_of_a_config(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"this is a folder; `surefoot template"):
        load_config(tmp_path)


def test_template_does_not_overwrite(surefoot, tmp_path: Path) -> None:
    target = tmp_path / "c.yaml"
    surefoot("template", "-o", target)
    again = surefoot("template", "-o", target, check=False)
    assert again.returncode == 1
    assert "is there already" in again.stderr


def test_template_refuses_a_missing_file(surefoot, tmp_path: Path) -> None:
    done = surefoot("template", tmp_path / "x.xyz", "-o", tmp_path / "c.yaml", check=False)
    assert done.returncode == 1
    assert "no such file" in done.stderr
    assert not (tmp_path / "c.yaml").exists()


@pytest.mark.parametrize(
    ("groups", "members", "left_out", "valid"),
    [(1, 4, 0, 0.1), (3, 4, 0, 0.1), (4, 4, 2, 0), (7, 7, 2, 0), (8, 8, 2, 0), (10, 8, 2, 0)],
)
def test_template_fits_the_groups_of_the_files(
    surefoot, folder: Path, tmp_path: Path, groups: int, members: int, left_out: int, valid: float
) -> None:
    images = ase.io.read(folder / "train.xyz", ":")
    for number, atoms in enumerate(images):
        atoms.info["group"] = f"g{number % groups}"
    free = ase.Atoms("Cu", info={"config_type": "IsolatedAtom", "group": "free"})
    ase.io.write(tmp_path / "t.xyz", [*images, free])
    text = surefoot("template", tmp_path / "t.xyz").stdout
    assert f"# Found 41 frames in {counted(groups, 'group')}" in text
    config = load_config(write(tmp_path, text))
    assert (config.posterior.members, config.posterior.left_out) == (members, left_out)
    assert config.data.valid == valid
    # What the template says is what training needs.
    splits = load_splits(config.data, config.train.seed)
    unseen = unseen_frames([frame.group for frame in splits.train], config.posterior, 0)
    assert unseen.any() or len(splits.valid) == 4


def test_template_tells_two_states_apart(surefoot, folder: Path, tmp_path: Path) -> None:
    images = ase.io.read(folder / "train.xyz", ":")
    for number, atoms in enumerate(images):
        atoms.info["charge"] = number % 2
    ase.io.write(tmp_path / "t.xyz", images)
    text = surefoot("template", tmp_path / "t.xyz").stdout
    assert "# A composition is labelled in two states of charge or spin" in text
    assert load_config(write(tmp_path, text)).conditioning.name == "charge_spin"
    plain = surefoot("template", folder / "train.xyz").stdout
    assert load_config(write(tmp_path, plain)).conditioning.name == "none"


@pytest.fixture(scope="module")
def mistakes(surefoot) -> Callable[[str, str], list[str]]:
    """What an editor says of a text, by the schema that a verb prints."""
    jsonschema = pytest.importorskip("jsonschema")
    validators = {}
    for verb in ("template", "learn", "hat build"):
        schema = json.loads(surefoot(*verb.split(), "--schema").stdout)
        jsonschema.Draft7Validator.check_schema(schema)
        validators[verb] = jsonschema.Draft7Validator(schema)

    def find(verb: str, text: str) -> list[str]:
        return [error.message for error in validators[verb].iter_errors(yaml.safe_load(text))]

    return find


def test_the_schema_accepts_every_template(mistakes, surefoot) -> None:
    chosen = [("--model", name) for name in MODELS] + [("--head", name) for name in HEADS]
    chosen += [("--posterior", name) for name in METHODS] + [("--task", name) for name in TASKS]
    for options in chosen:
        assert mistakes("template", surefoot("template", *options).stdout) == [], options
    assert mistakes("learn", surefoot("learn", "--template").stdout) == []
    assert mistakes("hat build", surefoot("hat", "build", "--template").stdout) == []
    for file in (ROOT / "examples/demo.yaml", *(ROOT / "benchmarks/accuracy").glob("*.yaml")):
        assert mistakes("template", file.read_text()) == [], file


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("model: {featurs: 3}", "featurs"),
        ("model: {name: mace, features: 3}", "features"),
        ("model: {irreps: 8x0e}", "irreps"),  # of MACE, and it is not named
        ("model: {name: schnett}", "schnett"),
        ("head: {energy: scalar, width: 3}", "width"),
        ("posterior: {name: swag, members: 3}", "members"),
        ("train: {epochs: -3}", "-3"),
        ("training: {epochs: 3}", "training"),
    ],
)
def test_the_schema_tells_mistakes_as_the_reader_does(
    mistakes, tmp_path: Path, text: str, word: str
) -> None:
    """One of each, about the class that is named, and not that none of all fits."""
    whole = f"data: {{train: [a]}}\n{text}"
    (message,) = mistakes("template", whole)
    assert word in message
    with pytest.raises(UserError, match=re.escape(word)):
        load_config(write(tmp_path, whole))


def test_a_schema_says_how_a_config_names_it(surefoot, tmp_path: Path) -> None:
    done = surefoot("template", "--schema", "-o", tmp_path / "schema.json")
    assert f"# yaml-language-server: $schema={tmp_path / 'schema.json'}" in done.stderr
    assert "next:" not in done.stderr


@pytest.mark.parametrize("posterior", METHODS)
@pytest.mark.parametrize("groups", [1, 30])
def test_template_of_every_posterior_is_a_config(posterior: str, groups: int, tmp_path) -> None:
    """With its keys, and frames set aside where members leave out none."""
    frames = [
        Frame(atoms=molecule("H2O"), energy=0.0, forces=None, group=f"{index % groups}",
              config_type="c", file="f", index=index)
        for index in range(30)
    ]  # fmt: skip
    path = tmp_path / "config.yaml"
    path.write_text(write_template(["a.xyz"], frames, posterior=posterior))
    config = load_config(path)
    assert config.posterior.name == posterior
    for name in METHODS[posterior].model_fields:
        assert f"  {name}: " in path.read_text()
    assert (config.data.valid > 0) == (posterior != "ensemble" or groups == 1)
    assert config.data.split == ("random" if groups == 1 else "group")


@pytest.mark.parametrize(
    ("count", "groups", "members", "left_out"),
    [(200, 100, 3, 0), (200, 99, 8, 2), (199, 199, 8, 2), (400, 5, 5, 2)],
)
def test_few_members_where_enough_can_be_set_aside(
    count: int, groups: int, members: int, left_out: int
) -> None:
    """Of frames and groups; elsewhere members leave out folds, and all frames calibrate."""
    water = molecule("H2O")
    frames = [
        Frame(atoms=water, energy=0.0, forces=None, group=f"{index % groups}", config_type="c",
              file="f", index=index)
        for index in range(count)
    ]  # fmt: skip
    config = Config.model_validate(yaml.safe_load(write_template(["a.xyz"], frames)))
    assert isinstance(config.posterior, EnsembleSettings)
    assert (config.posterior.members, config.posterior.left_out) == (members, left_out)
    assert config.data.valid == (0.1 if left_out == 0 else 0.0)
    assert config.head.energy == ("mean_variance" if left_out == 0 else "scalar")
    variances = write_template(["a.xyz"], frames, head="mean_variance")
    assert yaml.safe_load(variances)["posterior"]["members"] == members
    scalar = write_template(["a.xyz"], frames, head="scalar")
    assert yaml.safe_load(scalar)["posterior"]["left_out"] == 2


def test_recipe_and_frames_are_merged_key_by_key(tmp_path) -> None:
    """A recipe that has a section does not throw away what the frames ask for in it."""
    frames = [
        Frame(atoms=molecule("H2O"), energy=0.0, forces=None, group="one", config_type="c",
              file="f", index=index)
        for index in range(30)
    ]  # fmt: skip
    path = tmp_path / "config.yaml"
    path.write_text(write_template(["a.xyz"], frames, head="histogram"))
    config = load_config(path)
    assert (config.data.valid, config.data.split) == (0.2, "random")
    assert (config.posterior.members, config.posterior.left_out) == (1, 0)
    assert "frames drawn at random calibrate" in path.read_text()


def test_template_of_an_unknown_posterior(surefoot) -> None:
    done = surefoot("template", "--posterior", "dropout", check=False)
    assert done.returncode == 1
    assert "--posterior dropout: not known; there is ensemble, shallow" in done.stderr


def swelling(way: str) -> str:
    """A short text that stands for more values than there is memory."""
    if way == "aliases":
        lines = ["x0: &x0 [1, 1, 1, 1, 1, 1, 1, 1]"]
        lines += [f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 8)}]" for n in range(1, 30)]
    else:
        lines = ["x0: &x0 {k: 1}"]
        lines += [f"x{n}: &x{n} {{<<: [*x{n - 1}, *x{n - 1}]}}" for n in range(1, 40)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (swelling("aliases"), "its aliases stand for more than 100000 values"),
        (swelling("merged keys"), "its aliases stand for more than 100000 values"),
        ("data: &a {train: [*a]}", "an alias contains itself"),
        ("data: " + "[" * 5000, "nested too deeply"),
        ("train: {epochs: !!bool much}", "not of the kind it is marked as"),
        ("train: {epochs: 2001-99-99}", "not of the kind it is marked as"),
        ("train: {epochs: %s}" % ("9" * 5000), "not of the kind it is marked as"),
        ('data: {train: ["\\ud800"]}', "a character that is none"),
        ("\n".join(f"k{n}: 1" for n in range(3000)), "and 2993 more"),
        ("data: {train: [a]}\nmodel: {name: mace, irreps: %s}" % ("9x0e + " * 2000), "…"),
    ],
)
def test_what_swells_or_is_none_of_its_kind_is_refused(
    tmp_path: Path, text: str, words: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UserError) as caught:
        load_config(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 3000


def test_aliases_that_do_not_swell_are_values(tmp_path: Path) -> None:
    text = "data: &d {train: [a.xyz]}\ntrain: {batch: &b {graphs: 3}}"
    assert load_config(write(tmp_path, text)).train.batch.graphs == 3
    text = "data: {train: &files [a.xyz, b.xyz], valid: *files}"
    assert load_config(write(tmp_path, text)).data.valid == ["a.xyz", "b.xyz"]
