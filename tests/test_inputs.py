"""Whatever holds the numbers, every public function takes the same and refuses the same."""

import numpy as np
import pytest
import torch
from pythae.data.datasets import BaseDataset, DatasetOutput, collate_dataset_output
from pythae.models import AE, VAE, AEConfig, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from pythae_geometric import (
    BrownianMotionSampler,
    BrownianMotionSamplerConfig,
    MetricUniformHMCSampler,
    MetricUniformHMCSamplerConfig,
    evaluation,
    interpolate,
    plotting,
)
from pythae_geometric._inputs import as_data, as_images, as_labels, as_tensor, batches, like
from pythae_geometric.data.burgers import solve_burgers
from pythae_geometric.data.symmetric import rotate
from pythae_geometric.geometry import PullbackMetric

pytest.importorskip("matplotlib").use("Agg")

# Sixteenths, which every type of number holds exactly.
X = torch.randint(0, 16, (20, 1, 2, 2), generator=torch.Generator().manual_seed(0)) / 16
A = X.numpy()


class Stream(IterableDataset):
    """As many items as there are, and not as many as it says."""

    def __iter__(self):
        return (DatasetOutput(data=x) for x in X)

    def __len__(self):
        return 1000


class Rows:
    """Items by number, of a class of its own, as data sets of Hugging Face are."""

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return {"data": A[i].tolist(), "label": "cat"}


class Bare(torch.utils.data.Dataset):
    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return X[i]


def read_only():
    array = A.copy()
    array.setflags(write=False)
    return array


LABELS = torch.zeros(20)
SAME = {
    "array": lambda: A,
    "read-only": read_only,
    "flipped": lambda: A[::-1].copy()[::-1],
    "columns first": lambda: np.asfortranarray(A),
    "big-endian": lambda: A.astype(">f4"),
    "float64": lambda: A.astype(np.float64),
    "long double": lambda: A.astype(np.longdouble),
    "half": lambda: A.astype(np.float16),
    "bfloat16": lambda: X.bfloat16(),
    "tensor": lambda: X,
    "with gradients": lambda: X.clone().requires_grad_(),
    "list": A.tolist,
    "list of tensors": lambda: list(X),
    "list of arrays": lambda: list(A),
    "pythae's": lambda: BaseDataset(X, LABELS),
    "pairs": lambda: TensorDataset(X, LABELS),
    "bare tensors": Bare,
    "a class of its own": Rows,
    "stream": Stream,
    "generator": lambda: (x for x in X),
    "dictionary": lambda: {"data": A},
    "loader": lambda: DataLoader(
        BaseDataset(X, LABELS), 7, collate_fn=collate_dataset_output
    ),
    "loader of pairs": lambda: DataLoader(TensorDataset(X, LABELS), 7),
    "loader of bare tensors": lambda: DataLoader(Bare(), 7),
    "loader of a stream": lambda: DataLoader(list(X), 7),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Length of IterableDataset")
@pytest.mark.parametrize("make", SAME.values(), ids=SAME.keys())
def test_the_same_numbers_whatever_holds_them(make):
    torch.testing.assert_close(as_data(make(), "x").float(), X, rtol=0, atol=0)
    read = list(batches(make(), "x", 6))
    assert max(map(len, read)) <= 6
    torch.testing.assert_close(torch.cat(read).float(), X, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["uint8", "int64", ">i2", "uint16", "uint32", "uint64", "bool"])
def test_whole_numbers(kind):
    array = np.arange(6).astype(kind)
    expected = torch.tensor(array.astype(np.float64))
    torch.testing.assert_close(as_tensor(array, "x").double(), expected, rtol=0, atol=0)


def test_data_frames():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"a": [1, 2], "b": [0.5, 1.5]})
    assert as_data(table, "x").tolist() == [[1, 0.5], [2, 1.5]]
    assert as_tensor(table["a"].astype("Int64"), "x").tolist() == [1, 2]
    assert as_labels(table["a"], "labels", 2).tolist() == [1, 2]
    words = pandas.Series(["cat", "dog"], dtype="category")
    assert as_labels(words, "labels", 2).tolist() == ["cat", "dog"]
    with pytest.raises(TypeError, match=r"x must hold real numbers.*an array of"):
        as_data(words, "x")


def test_an_array_is_copied_only_if_torch_cannot_share_it():
    assert as_tensor(A, "x").data_ptr() == A.ctypes.data
    assert as_data(X, "x").data_ptr() == X.data_ptr()


class Halves(BaseEncoder):
    def forward(self, x):
        x = x.flatten(1)
        return ModelOutput(embedding=x[:, :2] + x[:, 2:], log_covariance=-x[:, :2])


class Repeated(BaseDecoder):
    """A dropout, so that the mode matters, and pixels without the axis of the channel."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.5), nn.Tanh())

    def forward(self, z):
        return ModelOutput(reconstruction=self.layers(z).view(-1, 2, 2))


@pytest.fixture
def vae():
    torch.manual_seed(0)
    config = VAEConfig(input_dim=(1, 2, 2), latent_dim=2)
    return VAE(config, encoder=Halves(), decoder=Repeated())


def hmc(model, **fields):
    fields = {"num_centroids": 5, "seed": 0, **fields}
    return MetricUniformHMCSampler(model, MetricUniformHMCSamplerConfig(**fields))


def motion(model, **fields):
    fields = {"metric": "pullback", "time": 1e-3, "steps": 2, "seed": 0, **fields}
    return BrownianMotionSampler(model, BrownianMotionSamplerConfig(**fields))


DOORS = {
    "hmc": lambda model, x: fitted(hmc(model), x),
    "motion": lambda model, x: fitted(motion(model), x),
    "start": lambda model, x: motion(model).fit(start=x),
    "interpolate": lambda model, x: interpolate(model, x, x, "line").latent,
    "reconstruction_error": lambda model, x: seeded(evaluation.reconstruction_error, model, x),
    "negative_log_likelihood": lambda model, x: seeded(
        evaluation.negative_log_likelihood, model, x, 3
    ),
    "frechet_distance": lambda model, x: evaluation.frechet_distance(x, X),
    "density_and_coverage": lambda model, x: evaluation.density_and_coverage(X, x),
    "nearest_distances": lambda model, x: evaluation.nearest_distances(X, x)[0],
    "prd_scores": lambda model, x: evaluation.prd_scores(X, x, 0, clusters=3, repeats=1),
    "class_f1": lambda model, x: evaluation.class_f1(x, np.arange(20) % 2, X, LABELS, 0, 1),
    "prd_curve_of_histograms": lambda model, x: evaluation.prd_curve_of_histograms(x, x)[0],
    "inception_features": lambda model, x: evaluation.inception_features(x),
    "train_feature_network": lambda model, x: (
        evaluation.train_feature_network(x, np.arange(20) % 2, 0, 1).head.weight
    ),
    "image_grid": lambda model, x: plotting.image_grid(x).images[0].get_array(),
    "latent_map": lambda model, x: plotting.latent_map(PullbackMetric(nn.Linear(2, 3)), x),
    "draw_curves": lambda model, x: plotting.draw_curves(None, x),
    "rotate": lambda model, x: rotate(x, np.ones(20), 4),
    "solve_burgers": lambda model, x: solve_burgers(x),
}
FOR_IMAGES = [
    "hmc", "motion", "interpolate", "reconstruction_error", "negative_log_likelihood",
    "frechet_distance", "density_and_coverage", "nearest_distances", "prd_scores", "class_f1",
    "train_feature_network", "image_grid", "rotate",
]  # fmt: skip


def fitted(sampler, x):
    sampler.fit(x)
    return sampler.sample(3)


def seeded(function, *arguments):
    torch.manual_seed(0)
    return function(*arguments)


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    pytest.importorskip("matplotlib.pyplot").close("all")


@pytest.mark.filterwarnings("ignore:Length of IterableDataset")
@pytest.mark.parametrize("name", FOR_IMAGES)
def test_every_door_takes_them_all(name, vae):
    expected = DOORS[name](vae, X)
    kinds = ["flipped", "big-endian", "float64", "half", "list", "pairs", "stream"]
    if name not in ("reconstruction_error", "negative_log_likelihood"):
        kinds.append("loader")  # which draws from torch's generator, as these two do
    for kind in kinds:
        found = DOORS[name](vae, SAME[kind]())
        torch.testing.assert_close(
            torch.as_tensor(found), torch.as_tensor(expected), rtol=1e-5, atol=1e-6, msg=kind,
            check_dtype=False,
        )  # fmt: skip


REFUSED = {
    "complex array": A.astype(complex),
    "complex tensor": X + 0j,
    "objects": A.astype(object),
    "words": np.array(["a", "b"]),
    "a word": "data",
    "dates": np.array(["2020-01-01"], dtype="M8[D]"),
    "nothing": None,
    "ragged": [[1.0], [1.0, 2.0]],
    "tensors of two shapes": [torch.zeros(2), torch.zeros(3)],
    "a function": len,
    "a model": nn.Linear(2, 2),
    "a set": {1.0, 2.0},
    "sparse": torch.eye(3).to_sparse(),
    "without values": torch.zeros(3, 2, device="meta"),
    "masked": np.ma.masked_less(A, 0.5),
    "a number": 3.0,
    "no rows": A[:0],
    "an empty list": [],
    "an empty data set": TensorDataset(X[:0]),
    "another key": {"image": A},
    "NaN": np.full((20, 1, 2, 2), np.nan),
    "infinity": np.full((20, 2), np.inf),
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS.keys())
def test_every_door_refuses_them_all_in_a_sentence(door, data, vae, refused):
    with pytest.raises((TypeError, ValueError)) as raised:
        door(vae, data)
    message = str(raised.value)
    assert "\n" not in message and message.endswith(".") and len(message.split()) >= 5, message
    refused((TypeError, ValueError), "", lambda: door(vae, data))


def test_images_of_bytes_are_those_of_floats():
    bytes_ = np.round(255 * A).astype(np.uint8)
    for values in (bytes_, bytes_.astype(np.int64)):
        torch.testing.assert_close(as_images(values), X, rtol=0, atol=0.51 / 255)
    torch.testing.assert_close(as_images(A > 0.5), (X > 0.5).float())
    torch.testing.assert_close(as_images((A > 0.5).astype(np.int64)), (X > 0.5).float())


def test_labels():
    one_hot = np.eye(3)[[2, 0, 1]]
    for labels in (one_hot, torch.tensor(one_hot), one_hot.astype(bool), [[2], [0], [1]]):
        assert as_labels(labels, "labels", 3).tolist() == [2, 0, 1]
    assert as_labels(["a", "b"], "labels", 2).tolist() == ["a", "b"]
    for labels, error in (
        ([0, 1], ValueError), (None, TypeError), ([0, np.nan, 1], ValueError),
        ([0, 1j, 1], TypeError), (np.ones((3, 3)), ValueError), (["a", None, "b"], TypeError),
    ):  # fmt: skip
        with pytest.raises(error, match="labels"):
            as_labels(labels, "labels", 3)


def test_numbers_of_numpy_are_counts(vae):
    sampler = hmc(vae)
    sampler.fit(X, batch_size=np.int64(7))
    assert sampler.sample(np.int32(3), batch_size=np.int64(2)).shape == (3, 1, 2, 2)
    strips = interpolate(vae, X[:2], X[2:4], "line", granularity=np.int64(4))
    assert strips.latent.shape == (2, 4, 2)
    assert evaluation.density_and_coverage(X, X, np.int64(3)).coverage == 1


def test_like():
    assert like(nn.Linear(2, 2).double()).dtype == torch.float64
    norm = nn.BatchNorm1d(2, affine=False).double()  # it counts batches in a whole number
    assert like(norm).dtype == torch.float64
    assert like(nn.Identity(), torch.zeros(1, dtype=torch.float64)).dtype == torch.float64


def test_models_that_are_compiled(vae):
    compiled = torch.compile(vae, backend="eager")
    torch.testing.assert_close(fitted(hmc(compiled), X), fitted(hmc(vae), X))
    torch.testing.assert_close(
        interpolate(compiled, X[:2], X[2:4], "line"), interpolate(vae, X[:2], X[2:4], "line")
    )
    for call in (lambda m: hmc(m), lambda m: interpolate(m, X, X),
                 lambda m: evaluation.reconstruction_error(m, X)):  # fmt: skip
        with pytest.raises(TypeError, match="model must be a pythae model, got Linear"):
            call(nn.Linear(2, 2))


USES = {
    "hmc": lambda model: fitted(hmc(model), X),
    "posteriors": lambda model: fitted(hmc(model, metric="posteriors", temperature=1.0), X),
    "pullback": lambda model: fitted(motion(model), X),
    "interpolate": lambda model: interpolate(model, X[:2], X[2:4], steps=4).latent,
    "reconstruction_error": lambda model: seeded(evaluation.reconstruction_error, model, X),
    "likelihood": lambda model: seeded(evaluation.negative_log_likelihood, model, X, 2),
}


@pytest.mark.filterwarnings("ignore:Of the", "ignore::RuntimeWarning")
@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
def test_each_module_keeps_its_mode_and_is_used_in_evaluation(use, vae):
    expected = torch.as_tensor(use(vae.eval()))
    vae.train()
    vae.encoder.eval()  # as a user freezes it
    before = [module.training for module in vae.modules()]
    assert True in before and False in before
    torch.testing.assert_close(torch.as_tensor(use(vae)), expected)
    assert [module.training for module in vae.modules()] == before


@pytest.mark.filterwarnings("ignore:Of the")
@pytest.mark.parametrize("name", ["hmc", "posteriors", "pullback"])
def test_what_torch_is_told_around_a_sampler_does_not_matter(name, vae):
    expected = USES[name](vae)
    with torch.inference_mode():
        found = USES[name](vae)
    assert not found.is_inference()
    torch.testing.assert_close(found, expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(USES[name](vae), expected)


class Spoilt(BaseEncoder):
    def forward(self, x):
        return ModelOutput(embedding=torch.full((len(x), 2), torch.nan))


class Nameless(BaseEncoder):
    def forward(self, x):
        return x.flatten(1)[:, :2]


@pytest.mark.parametrize(
    ("encoder", "error", "message"),
    [
        (Spoilt(), ValueError, "encoder of AE gives NaN or infinity"),
        (Nameless(), TypeError, "must return a ModelOutput with embedding, got a Tensor"),
    ],
)
def test_encoders_that_give_no_codes(encoder, error, message):
    model = AE(AEConfig(input_dim=(1, 2, 2), latent_dim=2), encoder, Repeated())
    for call in (lambda: hmc(model).fit(X), lambda: interpolate(model, X, X, "line")):
        with pytest.raises(error, match=message):
            call()
