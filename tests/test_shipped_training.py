"""What trained the captioner that ships: its network in PyTorch, rewards and search, held against capexport's own."""

import numpy as np
import pytest
import safetensors.numpy

from capexport.shipped import shipped_bundle, shipped_captioner

torch, learning, network, rewards = (
    pytest.importorskip(name, reason="PyTorch is not installed: it is no part of the test set-up")
    for name in ("torch", "learning", "network", "rewards")
)


@pytest.fixture(scope="module")
def arrays():
    return safetensors.numpy.load_file(shipped_captioner() / "weights.safetensors")


@pytest.fixture(scope="module")
def weights(arrays):
    return {name: network.to_torch(name, array, torch.device("cpu")) for name, array in arrays.items()}


@pytest.fixture(scope="module")
def vectors():
    with np.load(shipped_bundle("onnx", "dynamic-int8") / "parity.npz") as found:
        return [{key: found[f"{k}.{key}"] for key in ("pixels", "tokens", "logits")} for k in range(3)]


def test_weights_come_back_as_they_were(arrays, weights):
    for name, array in arrays.items():
        np.testing.assert_array_equal(network.to_array(name, weights[name]), array.astype(np.float32))


def test_new_weights_are_of_the_captioners_names_and_shapes(arrays):
    rng = np.random.default_rng(0)
    made = network.new_encoder(rng) | network.new_decoder(rng, 5000)
    assert {name: a.shape for name, a in made.items()} == {
        name: a.shape for name, a in arrays.items() if name != "output_layer.bias"
    }


@torch.no_grad()
def test_it_says_what_keras_says_all_at_once_and_token_by_token(weights, vectors):
    for vector in vectors:
        cross = network.cross_of(weights, network.encode(weights, torch.tensor(vector["pixels"])[None].float())[0])
        tokens = torch.tensor(np.concatenate([[3], vector["tokens"]]))[None, None]  # [START] is token 3
        logits = network.logits_of(weights, cross, tokens[..., :-1])[0, 0]
        stepper = network.Stepper(weights, cross, 1, len(vector["tokens"]))
        stepped = torch.cat([stepper(tokens[0, :, t]) for t in range(len(vector["tokens"]))])
        allowed = vector["logits"] > -1e6
        for found in (logits, stepped):
            np.testing.assert_allclose(found.numpy()[allowed], vector["logits"][allowed], atol=1e-4)
        greedy = learning.sampled(weights, cross, 1, 20, 3, 4, draw=False)[0, 0, 1:]
        searched = learning.searched([weights], [cross], 1, 20, 3, 4, 0.7)[0]
        for found in (greedy, searched):
            assert found[: len(vector["tokens"])].tolist() == vector["tokens"].tolist()
            assert not found[len(vector["tokens"]) :].any()


def test_rewards_are_those_of_the_cider_stage():
    from capexport.captioner.cider import Cider

    rng = np.random.default_rng(0)

    def captions(count, most):
        return [rng.integers(1, 9, rng.integers(1, most)).tolist() for _ in range(count)]

    def padded(groups, count, length):
        ids = torch.zeros(len(groups), count, length, dtype=torch.long)
        for place in ((p, c) for p, group in enumerate(groups) for c in range(len(group))):
            ids[place][: len(groups[place[0]][place[1]])] = torch.tensor(groups[place[0]][place[1]])
        return ids

    references = [captions(rng.integers(1, 6), 12) for _ in range(40)]
    candidates = [captions(3, 13) for _ in range(40)]
    slow = Cider(references)
    expected = [[slow.score(photo, words) for words in group] for photo, group in enumerate(candidates)]
    found = rewards.Cider(padded(references, 5, 14))(torch.arange(40), padded(candidates, 3, 13))
    assert np.max(expected) > 1
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_optimizer_is_adamw():
    kernel, gamma = torch.randn(4, 3), torch.randn(3)
    ours = {"a.kernel": kernel.clone(), "a.gamma": gamma.clone(), "b.moving_mean": torch.zeros(3)}
    optimizer = learning.AdamW(ours, average=0.9)
    optimizer.rate.fill_(0.01)
    theirs = [torch.nn.Parameter(one.clone()) for one in (kernel, gamma)]
    groups = [{"params": [theirs[0]], "weight_decay": learning.DECAY}, {"params": [theirs[1]], "weight_decay": 0.0}]
    expected = torch.optim.AdamW(groups, lr=0.01, betas=learning.BETAS, eps=learning.EPSILON)
    average = kernel.clone()
    for step in range(1, 20):
        x = torch.randn(8, 4)
        optimizer.step(((x @ ours["a.kernel"]) * ours["a.gamma"]).square().sum())
        expected.zero_grad()
        ((x @ theirs[0]) * theirs[1]).square().sum().backward()
        torch.nn.utils.clip_grad_norm_(theirs, learning.CLIP)
        expected.step()
        share = min(0.9, step / (10 + step))
        average = share * average + (1 - share) * theirs[0].detach()
    torch.testing.assert_close(ours["a.kernel"], theirs[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours["a.gamma"], theirs[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(optimizer.averaged(ours)["a.kernel"], average, rtol=1e-4, atol=1e-5)


def test_samples_that_are_better_than_the_others_become_likelier():
    logits = torch.zeros(1, 2, 1, 5, requires_grad=True)
    labels = torch.tensor([[[1], [2]]])
    learning.policy_loss(logits, labels, torch.tensor([[1.0, 0.0]])).backward()
    assert logits.grad[0, 0, 0, 1] < 0 < logits.grad[0, 1, 0, 2]
