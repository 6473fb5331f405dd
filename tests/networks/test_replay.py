"""Replay: which calls are recorded (on the CPU, with a recorder that is none), and CUDA graphs against plain calls."""

import pytest
import torch
from torch import nn

from segnet.networks.replay import WARM_UP, Replay
from segnet.networks.segnet import SegNet


class Recorder:
    """Makes recordings that say whose they are and call the function."""

    def __init__(self):
        self.made, self.played, self.beside = [], [], []

    def __call__(self, function, tensors, beside):
        self.made.append(tuple(tensors[0].shape))
        self.beside.append(beside)

        def play(given):
            self.played.append(tuple(given[0].shape))
            return function(*given)

        return play


def replay(most=4, module=None, function=None):
    recorder = Recorder()
    return Replay(function or (lambda x: [2 * x]), most, module=module, record={"cpu": recorder}), recorder


def test_on_a_cpu_it_is_the_function_without_gradients():
    weight = torch.ones(2, requires_grad=True)
    seen = []

    def function(x):
        seen.append(x)
        return [x * weight]

    call, x = Replay(function), torch.randn(3, 2)
    for _ in range(WARM_UP + 2):
        (out,) = call(x)
        assert torch.equal(out, x)
        assert not out.requires_grad
    assert all(given is x for given in seen)


def test_a_form_is_recorded_once_it_is_warm():
    call, recorder = replay()
    for i in range(WARM_UP + 3):
        assert call(torch.full((2,), float(i)))[0].tolist() == [2 * i, 2 * i]
    assert recorder.made == [(2,)]
    assert recorder.played == [(2,)] * 3
    call(torch.zeros(3))  # seen once only: a last batch
    assert recorder.made == [(2,)]


@pytest.mark.parametrize(
    "other",
    [
        torch.zeros(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
        torch.zeros(2, 3, 4, 4, dtype=torch.float64),
        torch.zeros(1, 3, 4, 4),
    ],
)
def test_layout_type_and_shape_are_forms_of_their_own(other):
    call, recorder = replay()
    for x in [torch.zeros(2, 3, 4, 4)] * (WARM_UP + 1) + [other] * WARM_UP:
        call(x)
    assert recorder.played == [(2, 3, 4, 4)]
    call(other)
    assert recorder.made == [(2, 3, 4, 4), tuple(other.shape)]
    assert recorder.beside[0] is None  # the first has memory of its own, the second shares it
    assert recorder.beside[1] is not None


def test_autocast_is_part_of_the_form():
    call, recorder = replay()
    x = torch.zeros(2)
    for _ in range(WARM_UP + 1):
        call(x)
    with torch.autocast("cpu", torch.bfloat16):
        call(x)
    assert len(recorder.played) == 1


def test_the_form_unused_for_longest_is_dropped():
    call, recorder = replay(most=2)
    for size in (1, 2):
        for _ in range(WARM_UP + 1):
            call(torch.zeros(size))
    call(torch.zeros(1))
    call(torch.zeros(3))  # instead of 2
    call(torch.zeros(1))
    assert recorder.played == [(1,), (2,), (1,), (1,)]
    call(torch.zeros(2))
    assert recorder.played == [(1,), (2,), (1,), (1,)]  # it warms up anew
    for _ in range(20):
        for size in range(5):
            call(torch.zeros(size + 1))
    assert recorder.made == [(1,), (2,)]  # five forms in turn for two places: none is worth recording


def test_a_tensor_with_gaps_is_never_recorded():
    call, recorder = replay()
    for _ in range(WARM_UP + 3):
        assert call(torch.arange(6.0).view(2, 3)[:, :2])[0].tolist() == [[0, 2], [6, 8]]
    assert recorder.made == []


@pytest.mark.parametrize("own", [True, False])
def test_results_are_the_callers_own_on_request(own):
    buffer = torch.zeros(2)

    def record(function, tensors, beside):
        return lambda given: [buffer.copy_(function(*given)[0])]

    call = Replay(lambda x: [2 * x], own=own, record={"cpu": record})
    results = [call(torch.full((2,), float(i)))[0] for i in range(WARM_UP + 2)]
    assert (results[-1] is buffer) == (not own)
    assert results[-2].tolist() == ([2 * WARM_UP] * 2 if own else results[-1].tolist())


def test_a_failed_recording_is_told_once_and_the_function_called():
    def record(function, tensors, beside):
        raise RuntimeError("cannot be captured\nand more")

    call = Replay(lambda x: [2 * x], record={"cpu": record})
    for _ in range(WARM_UP):
        call(torch.ones(1))
    with pytest.warns(UserWarning, match="runs slower: cannot be captured$") as said:
        assert call(torch.ones(1))[0].item() == 2
    assert len(said) == 1
    for size in (1, 2):
        for _ in range(WARM_UP + 2):  # a warning would be an error
            assert call(torch.ones(size))[0].tolist() == [2] * size


def test_an_error_of_the_function_is_the_callers():
    def function(x):
        raise ValueError("too small")

    call, _ = replay(function=function)
    for _ in range(WARM_UP):
        with pytest.raises(ValueError, match="too small"):
            call(torch.ones(1))


def test_recordings_outlive_changes_in_place_and_nothing_else():
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout()).eval()
    call, recorder = replay(module=module, function=lambda x: [module(x)])
    x = torch.randn(3, 2)

    def recorded():
        call.check()
        recorder.played.clear()
        for _ in range(WARM_UP):
            call(x)
        return bool(recorder.played)

    assert [recorded(), recorded()] == [False, True]
    with torch.no_grad():
        module[0].weight.mul_(2)
        module[1].running_mean.add_(1)
    assert recorded()
    module[0].weight = nn.Parameter(torch.zeros(2, 2))
    assert [recorded(), recorded()] == [False, True]
    module[2].train()
    assert [recorded(), recorded()] == [False, True]
    call.forget()
    assert not recorded()


# -- on a GPU ------------------------------------------------------------------------------------------


@pytest.fixture
def net():
    torch.manual_seed(0)
    return SegNet(2, widths=(8, 16, 16, 16, 16)).cuda().eval().to(memory_format=torch.channels_last)


def plain(net, x, dtype):
    with torch.no_grad(), torch.autocast("cuda", dtype, enabled=dtype is not None):
        return net(x).clone()


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_graphs_have_the_bits_of_the_plain_call_whatever_comes_between(net, dtype):
    call = Replay(lambda x: [net(x)], most=3)
    sizes = [(1, 64, 64), (2, 64, 64), (1, 96, 64), (1, 65, 33)]
    for turn in range(WARM_UP + 3):
        for n, height, width in sizes[: 3 if turn < WARM_UP + 2 else 4]:
            x = torch.randn(n, 3, height, width, device="cuda").contiguous(memory_format=torch.channels_last)
            expected = plain(net, x, dtype)
            with torch.autocast("cuda", dtype, enabled=dtype is not None):
                first, second = call(x)[0], call(x.neg())[0]
            assert torch.equal(first, expected)  # and is not written over by the next call
            assert torch.equal(second, plain(net, x.neg(), dtype))
            assert first.stride() == expected.stride()
    assert call.failed is None
    assert sum(form.recording is not None for form in call._forms.values()) >= 2


@pytest.mark.cuda
def test_graphs_see_weights_changed_in_place_under_autocast(net):
    call = Replay(lambda x: [net(x)], module=net)
    x = torch.randn(1, 3, 64, 64, device="cuda").contiguous(memory_format=torch.channels_last)
    for turn in range(WARM_UP + 3):
        with torch.no_grad():
            for p in net.parameters():
                p.add_(0.01 * turn)
        call.check()
        expected = plain(net, x, torch.bfloat16)
        with torch.autocast("cuda", torch.bfloat16):
            assert torch.equal(call(x)[0], expected)
    held = [p.data for p in net.parameters()]  # so that the weights cannot come back to where they were
    net.cpu().cuda()
    assert all(p.data_ptr() != h.data_ptr() for p, h in zip(net.parameters(), held, strict=True))
    call.check()
    assert not call._forms


@pytest.mark.cuda
def test_graphs_draw_what_the_plain_call_draws():
    dropout = nn.Dropout()
    x = torch.ones(1000, device="cuda")
    call = Replay(lambda x: [dropout(x)])
    torch.manual_seed(1)
    expected = [dropout(x) for _ in range(WARM_UP + 4)]
    torch.manual_seed(1)
    assert all(torch.equal(call(x)[0], e) for e in expected)


@pytest.mark.cuda
def test_what_waits_for_the_gpu_is_not_captured_and_still_computed():
    call, x = Replay(lambda x: [x * x.sum().item()]), torch.ones(2, device="cuda")
    for _ in range(WARM_UP - 1):
        call(x)
    with pytest.warns(UserWarning, match="runs slower: it waits for the GPU"):
        assert call(x)[0].tolist() == [2, 2]
    for _ in range(2):
        assert call(x + 1)[0].tolist() == [8, 8]
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    assert torch.rand(1, device="cuda") < 1  # the random generator is no longer that of a capture
