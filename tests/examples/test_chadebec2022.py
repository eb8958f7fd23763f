"""The reproduction of Chadebec and Allassonnière: its small form, and the published algorithm by
matrix products."""

import json

import pytest
import torch

MEASURES = ("frechet", "recall", "precision", "density", "coverage", "nearest", "nearest_code")


def all_rows(folder):
    found = json.loads((folder / "chadebec2022.json").read_text(encoding="utf-8"))
    return found["tables"]["digits"], found["last"], found["studies"]


def test_tables_and_how_a_run_goes_on(run, tmp_path):
    script = "reproduce/chadebec2022.py", "--output-dir", tmp_path
    run(*script)
    table, last, studies = all_rows(tmp_path)
    text = (tmp_path / "chadebec2022.md").read_text(encoding="utf-8")

    # What the task asks for is there.
    samplers = {"N(0, I)", "mixture of 10", "mixture, chosen", "MAF"}
    samplers |= {"published algorithm", "ours, paper's setting", "ours, default"}
    for model in ("BetaVAE", "VAE"):
        assert samplers <= {one["sampler"] for one in table if one["model"] == model}
    assert {"AE", "WAE", "RAE", "VAMP", "HVAE", "RHVAE"} <= {one["model"] for one in table}
    assert {one["model"] for one in last} == {"VAMP", "IWAE", "Adversarial_AE", "VAEGAN"}
    assert {len({one["value"] for one in rows}) for rows in studies.values()} == {2, 3}
    header = (
        "| model | sampler | Fréchet ↓ | F8 ↑ | F1/8 ↑ | density | coverage ↑ | nearest | nearest "
        "code | duplicates | acceptance | flat | fit, s | draw, s | rows | notes |"
    )
    assert text.count(header) == 2
    for picture in ("samples_digits.png", "studies.png"):
        assert (tmp_path / picture).stat().st_size > 10_000

    # Every row has its figures; one sampler is left out, and the table says why.
    everything = [*table, *last, *(one for rows in studies.values() for one in rows)]
    assert {one["sampler"] for one in everything if "error" in one} == {"RHVAE sampler"}
    assert "left out: " in text
    for one in everything:
        if "error" in one or one["sampler"] == "(training images)":
            continue
        assert all(one[measure] >= 0 for measure in MEASURES), one
        if one["sampler"] == "(training images, reconstructed)":
            assert one["duplicates"] == 1
        elif one["sampler"] != "published algorithm":  # of whose few moves many are rejected
            assert one["duplicates"] == 0, one
        chains = one["sampler"].startswith(("published", "ours"))
        assert ("acceptance" in one) == chains
        assert ("flat" in one) == (chains and one["sampler"] != "ours, default")
        assert not chains or 0 < one["acceptance"] <= 1
    chosen = [one["note"] for one in table if one["sampler"] == "mixture, chosen"]
    assert set(chosen) <= {"2 components", "4 components"} and chosen[0] in text

    # A second run computes the row whose file is gone, to the same figures, and nothing else.
    def written():
        return {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*.*")}

    before, gone = written(), tmp_path / "rows" / "digits-BetaVAE-0-mixture_of_10-1.json"
    old = json.loads(gone.read_text(encoding="utf-8"))
    gone.unlink()
    out = run(*script)
    after = written()
    assert {path for path in before if before[path] != after[path]} == {gone}
    assert set(after) == set(before)
    assert out.splitlines()[0].startswith("digits-BetaVAE-0, mixture of 10, seed 1: frechet")
    assert out.splitlines()[1].startswith("# A geometric perspective")
    new = json.loads(gone.read_text(encoding="utf-8"))
    assert all(new[measure] == pytest.approx(old[measure], rel=1e-4) for measure in MEASURES)


@pytest.mark.parametrize("deviation", [0.05, 1.0])  # with the first, determinants are capped
def test_published_algorithm_by_products_is_the_published_one(lib, deviation):
    published = lib("published_hmc")
    generator = torch.Generator().manual_seed(0)
    like = {"generator": generator, "dtype": torch.float64}
    centroids = torch.randn(30, 6, **like)
    log_variances = torch.log(deviation**2 * (0.5 + torch.rand(30, 6, **like)))
    plain = published.published_metric(centroids, log_variances, 1.7)
    fast = published.PublishedMetricByProducts(*plain)
    near = centroids + deviation * torch.randn(30, 6, **like)
    z = torch.cat([centroids, near, 3 * torch.randn(50, 6, **like)])
    densities = plain.log_density(z)
    assert (densities == 0.5 * torch.tensor(1e10, dtype=torch.float64).log()).any() == (
        deviation < 1
    )
    torch.testing.assert_close(fast.log_density(z), densities, rtol=1e-9, atol=1e-9)
    gradients = plain.gradient(z)
    torch.testing.assert_close(fast.gradient(z), gradients, rtol=1e-9, atol=1e-9)

    def chains(metric):
        seeded = torch.Generator().manual_seed(1)
        return published.published_samples(metric, near, 40, 5, batch_size=25, generator=seeded)

    torch.testing.assert_close(chains(fast)[0], chains(plain)[0], rtol=1e-7, atol=1e-7)
    assert chains(fast)[1] == chains(plain)[1] > 0
