"""The embedded checkpoint: its factor model against dense linear algebra, its network, and the weights that ship."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import torch

import bulkformer_tl as bf
from bulkformer_tl import models
from bulkformer_tl._vocabulary import GeneVocabulary, load_vocabulary, match_genes
from bulkformer_tl.models._mini import MiniConfig, MiniNetwork
from bulkformer_tl.models._neighbour_model import NeighbourModel, pack
from bulkformer_tl.registry import info, locate

G, K = 90, 8


def neighbour_table():
    generator = torch.Generator().manual_seed(2)
    genes = torch.stack([torch.randperm(G, generator=generator)[:7].sort().values for _ in range(G)])
    return genes, torch.randn(G, 7, generator=generator) / 7


@pytest.fixture
def network():
    torch.manual_seed(0)
    packed = pack(*neighbour_table())
    sizes = {"n_genes": G, "n_factors": K, "n_scores": 4, "n_entries": len(packed["codes"])}
    network = MiniNetwork(MiniConfig(**sizes, context=8, n_global=3, heads=2))
    loadings = torch.linalg.qr(torch.randn(G, K)).Q
    network.factors.set_model(torch.rand(G) * 5, loadings, torch.linspace(40, 2, K), 0.1 + torch.rand(G))
    network.neighbours.set_packed(**packed)
    network.neighbour_share.fill_(0.3)
    network.unseen.copy_(0.2 + torch.rand(G))
    edges = torch.randint(0, G, (2, 5 * G), dtype=torch.int32)
    network.set_graph(edges, torch.rand(5 * G).half())
    return network.eval()


@pytest.fixture
def model(network):
    edges, weights = torch.randint(0, G, (2, 5 * G)), torch.rand(5 * G)
    torch.nn.init.normal_(network.head.weight)
    vocabulary = GeneVocabulary(ids=np.array([f"ENSG{i:011d}" for i in range(G)]))
    facts = {"name": "tiny", "family": "mini", "denominator": "vocabulary", "default_pooling": "scores"}
    return models.BulkFormer(network, vocabulary, graph=(edges, weights), **facts)


@pytest.fixture
def samples():
    generator = torch.Generator().manual_seed(1)
    values = torch.rand(3, G, generator=generator) * 8
    observed = torch.rand(3, G, generator=generator) > torch.tensor([[0.1], [0.5], [0.95]])
    return values, observed


@pytest.fixture(scope="module")
def shipped():
    return models.load("bulkformer-mini", device="cpu")


def dense_posterior(factors, values, observed):
    """Condition the joint normal distribution of all genes on the observed ones, in float64."""
    mean, noise = factors.mean.double(), factors.noise.double()
    signal = factors.loadings.double() @ torch.diag(factors.variances.double()) @ factors.loadings.double().T
    gain = torch.linalg.solve(signal[observed][:, observed] + torch.diag(noise[observed]), signal[observed]).T
    posterior = mean + gain @ (values.double() - mean)[observed]
    return posterior, torch.diag(signal - gain @ signal[observed])


def dense_neighbours(neighbours):
    """Unpack the entries one by one into a matrix (G, G), float64."""
    matrix = torch.zeros(len(neighbours.counts), len(neighbours.counts), dtype=torch.float64)
    entry = 0
    for gene, count in enumerate(neighbours.counts.tolist()):
        column = 0
        for _ in range(count):
            column += int(neighbours.steps[entry])
            matrix[gene, column] += float(neighbours.codes[entry]) * float(neighbours.scale[gene])
            entry += 1
    return matrix


def test_loadings_are_rounded_to_eight_bits(network):
    torch.manual_seed(0)
    exact = torch.randn(G, K)
    network.factors.set_model(torch.zeros(G), exact, torch.ones(K), torch.ones(G))
    assert network.factors.codes.dtype == torch.int8
    step = exact.abs().amax(dim=0) / 127
    assert ((network.factors.loadings - exact).abs() <= 0.5001 * step).all()


def test_factors_equal_dense_conditioning(network, samples):
    values, observed = samples
    for i in range(len(values)):
        mean, spread, _ = network.factors.posterior(values[i], observed[i])
        expected, variance = dense_posterior(network.factors, values[i], observed[i])
        torch.testing.assert_close(mean.double(), expected, rtol=1e-4, atol=1e-4)
        hidden = ~observed[i]
        torch.testing.assert_close(spread[hidden].double(), variance[hidden], rtol=1e-3, atol=1e-4)
        assert (spread[observed[i]] == 0).all()


@pytest.mark.parametrize("first", ["scores", "posterior"])
def test_a_pattern_that_was_solved_before_gives_the_same_numbers(network, samples, first):
    values, observed = samples
    fresh = [network.factors.posterior(row, observed[1]) for row in values if not network.factors.forget()]
    network.factors.forget()
    getattr(network.factors, first)(values[2], observed[1])
    for row, expected in zip(values, fresh, strict=True):
        for found, part in zip(network.factors.posterior(row, observed[1]), expected, strict=True):
            assert torch.equal(found, part)


@pytest.mark.parametrize("size", [90, 2000])
def test_neighbours_equal_a_dense_product(size):
    generator = torch.Generator().manual_seed(size)
    genes = torch.stack([torch.randperm(size, generator=generator)[:6].sort().values for _ in range(size)])
    weights = torch.randn(size, 6, generator=generator)
    packed = pack(genes, weights)
    model = NeighbourModel(size, len(packed["codes"]))
    model.set_packed(**packed)
    dense = dense_neighbours(model)
    exact = torch.zeros(size, size).scatter_(1, genes, weights)
    assert ((dense - exact).abs() <= 0.5001 * weights.abs().amax(dim=1, keepdim=True) / 127).all()
    deviations = torch.randn(3, size, generator=generator)
    torch.testing.assert_close(model(deviations).double(), deviations.double() @ dense.T, rtol=1e-4, atol=1e-4)
    # sums over entries, as devices without CSR do them
    columns, filled = model._unpacked()
    rows = torch.repeat_interleave(torch.arange(size), model.counts.long())
    summed = torch.zeros(3, size).index_add_(1, rows, deviations[:, columns] * filled)
    torch.testing.assert_close(model(deviations), summed, rtol=1e-4, atol=1e-4)


def test_linear_models_are_mixed(network, samples):
    values, observed = samples
    with torch.inference_mode():
        mean, spread = network.posterior(values, observed)
    matrix = dense_neighbours(network.neighbours)
    for i in range(len(values)):
        factors, expected_spread, _ = network.factors.posterior(values[i], observed[i])
        complete = torch.where(observed[i], values[i], factors) - network.factors.mean
        neighbours = network.factors.mean + matrix @ complete.double()
        torch.testing.assert_close(mean[i].double(), factors + 0.3 * (neighbours - factors), rtol=1e-4, atol=1e-4)
        assert torch.equal(spread[i], expected_spread)


def test_values_at_hidden_genes_are_never_read(network, samples):
    values, observed = samples
    other = torch.where(observed, values, 1e6)
    torch.testing.assert_close(network(values, observed), network(other, observed), rtol=0, atol=0)


def test_starts_as_the_linear_models(network, samples):
    values, observed = samples
    with torch.inference_mode():
        mean, spread = network.posterior(values, observed)
        hidden = network(values, observed)
        assert torch.equal(network.predict(hidden, values, observed), mean)
        deviation = network.deviation(hidden, values, observed)
    torch.testing.assert_close(deviation, (network.unseen + spread).sqrt())


def test_shrinkage_and_calibration_scale_what_the_encoder_adds(network, samples):
    torch.nn.init.normal_(network.head.weight)
    values, observed = samples
    with torch.inference_mode():
        hidden = network(values, observed)
        full, deviation = network.predict(hidden, values, observed), network.deviation(hidden, values, observed)
        network.shrinkage.fill_(0.5)
        network.calibration.fill_(2.0)
        half, wide = network.predict(hidden, values, observed), network.deviation(hidden, values, observed)
    assert (full - hidden[..., 0]).abs().max() > 0.01
    torch.testing.assert_close(half - hidden[..., 0], 0.5 * (full - hidden[..., 0]))
    torch.testing.assert_close(wide, 2 * deviation)
    assert (deviation > 0).all()


def test_sample_vector_holds_the_posterior_scores(network, samples):
    values, observed = samples
    with torch.inference_mode():
        vector = network.sample_vector(values, observed)
        loadings, noise = network.factors.loadings.double(), network.factors.noise.double()
        for i in range(len(values)):
            seen = loadings[observed[i]] / noise[observed[i], None]
            precision = seen.T @ loadings[observed[i]] + torch.diag(1 / network.factors.variances.double())
            scores = torch.linalg.solve(precision, seen.T @ (values[i].double() - network.factors.mean)[observed[i]])
            torch.testing.assert_close(vector[i].double(), scores[:4], rtol=5e-3, atol=5e-3)


def test_new_weights_replace_what_was_computed_from_the_old_ones(network, samples):
    values, observed = samples
    with torch.no_grad():
        before = network.posterior(values, observed)[0]
        table = network.gene_table()
        state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        state["factors.noise"] *= 10
        state["factors.codes"] = state["factors.codes"].flip(0)
        state["neighbours.codes"] = -state["neighbours.codes"]
        network.load_state_dict(state)
        after = network.posterior(values, observed)[0]
        fresh = MiniNetwork(network.config)
        fresh.load_state_dict(state)
        expected = fresh.posterior(values, observed)[0]
    assert not torch.allclose(before, after, atol=1e-3)
    assert torch.equal(after, expected)
    assert not torch.equal(network.gene_table(), table)


@pytest.mark.parametrize("spare", [0, 5])
def test_an_untrained_network_has_neighbours_that_say_nothing(spare):
    fresh = NeighbourModel(G, 3 * G + spare)
    assert torch.equal(fresh(torch.randn(2, G)), torch.zeros(2, G))


def test_numbers_do_not_depend_on_batch_or_order(model, samples):
    values, observed = samples
    x = torch.where(observed, values, torch.nan).numpy()
    outputs = ("pooled", "genes", "expression", "deviation")
    together = model.encode(x, outputs=outputs)
    reverse = model.encode(x[::-1].copy(), outputs=outputs)
    alone = model.encode(x[1:2], outputs=outputs)
    for name in outputs:
        assert torch.equal(getattr(together, name), getattr(reverse, name).flip(0)), name
        assert torch.equal(getattr(together, name)[1:2], getattr(alone, name)), name
    assert together.pooled.shape == (3, 4)
    assert together.genes.shape == (3, G, model.width)


def test_common_poolings_work_on_gene_vectors(model, samples):
    values, _ = samples
    encoded = model.encode(values, outputs=("pooled", "genes"), pooling="mean")
    torch.testing.assert_close(encoded.pooled, encoded.genes.mean(dim=1))


def test_scores_refuse_a_subset_of_genes(model, samples):
    with pytest.raises(ValueError, match="pooling='scores' of tiny is not a summary of gene vectors"):
        model.encode(samples[0], pool_genes=[1, 2])


def test_shipped_bundle_is_small_and_verified(shipped):
    folder = locate("bulkformer-mini")
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 30e6
    assert shipped.family == "mini"
    assert shipped.denominator == "vocabulary"
    assert shipped.default_pooling == "scores"
    assert "size and SHA-256 of every file of the bundle" in shipped.provenance["verified"]
    known = info("bulkformer-mini")
    assert (known.n_genes, known.width) == (len(shipped.vocabulary), shipped.width)


def test_shipped_factors_are_orthonormal(shipped):
    loadings = shipped.network.factors.loadings.double()
    # eight bits round each of 18,730 numbers of about 0.007 by up to 0.0004
    torch.testing.assert_close(loadings.T @ loadings, torch.eye(loadings.shape[1]).double(), rtol=0, atol=1e-2)
    assert (shipped.network.factors.variances.diff() <= 0).all()


def test_card_lists_every_cohort_and_no_agpl():
    card = (locate("bulkformer-mini") / "README.md").read_text(encoding="utf-8")
    rows = [line for line in card.splitlines() if ".h5ad` |" in line]
    assert len(rows) == 54
    assert not any("AGPL" in row for row in rows)


def hide(values, share, rng):
    hidden = ~np.isnan(values) & (rng.random(values.shape) < share)
    return np.where(hidden, np.nan, values).astype(np.float32), hidden


def errors(model, values, share):
    """RMSE at hidden entries of the model and of the gene mean, and the share of them in the 90 % intervals."""
    shown, hidden = hide(values, share, np.random.default_rng(0))
    encoded = model.encode(shown, outputs=("expression", "deviation"))
    predicted, deviation = encoded.expression.numpy(), encoded.deviation.numpy()
    mean = np.broadcast_to(model.network.factors.mean.numpy(), values.shape)
    rmse = [np.sqrt(np.mean((guess - values)[hidden] ** 2)) for guess in (predicted, mean)]
    return *rmse, np.mean(np.abs(predicted - values)[hidden] < 1.645 * deviation[hidden])


def test_shipped_model_beats_the_gene_mean_on_planted_tissues(shipped):
    adata = bf.datasets.toy(4)
    bf.pp.log_tpm(adata)
    values = match_genes(adata.var_names, shipped.vocabulary).align(
        np.asarray(adata.layers["log_tpm"], dtype=np.float32)
    )
    predicted, mean, _ = errors(shipped, values, 0.15)
    assert predicted < 0.8 * mean


@pytest.mark.parametrize("share", [0.15, 0.9])
def test_shipped_model_on_a_real_cohort(shipped, cohorts, share):
    adata = ad.read_h5ad(cohorts / "hematopoiesis16_counts.h5ad")[:4].copy()
    counts = match_genes(adata.var_names, load_vocabulary()).align(adata.X.astype(np.float64))
    rates = counts / shipped.vocabulary.lengths
    values = np.log1p(1e6 * rates / np.nansum(rates, axis=1, keepdims=True)).astype(np.float32)
    predicted, mean, covered = errors(shipped, values, share)
    assert predicted < 0.7 * mean
    assert covered > 0.8
