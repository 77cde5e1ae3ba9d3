"""The large products beside the kernels, and the one setting that torch has for all of them."""

import threading

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

from fastrnn.kernels.gpu import products

MATMUL = torch.backends.cuda.matmul


def settings():
    return MATMUL.fp32_precision, MATMUL.allow_tf32, torch.get_float32_matmul_precision()


@pytest.mark.parametrize("allowed", [False, True])
def test_products_are_as_exact_as_cudnns(monkeypatch, allowed):
    """float32 products follow the flag of cuDNN's recurrent layers, and the setting comes back."""
    before = settings()
    monkeypatch.setattr(torch.backends.cudnn.rnn, "fp32_precision", "tf32" if allowed else "ieee")
    with products.as_cudnn_would(torch.float32, products.tf32()):
        assert settings() == (("tf32", True, "high") if allowed else ("ieee", False, "highest"))
    assert settings() == before
    with products.as_cudnn_would(torch.float16, products.tf32()):
        assert settings() == before


def test_threads_that_overlap():
    """The first to come leaves first: the other's products stay as exact, and in the end the
    setting is what it was.
    """
    before, wanted = settings(), ("tf32", True, "high")
    first_in, second_in, first_out = (threading.Event() for _ in range(3))
    seen = []

    def first():
        with products.as_cudnn_would(torch.float32, True):
            first_in.set()
            assert second_in.wait(60)
        first_out.set()

    def second():
        assert first_in.wait(60)
        with products.as_cudnn_would(torch.float32, True):
            second_in.set()
            assert first_out.wait(60)
            seen.append(settings())

    threads = [threading.Thread(target=run) for run in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [wanted]
    assert settings() == before != wanted


def test_after_an_error_the_setting_comes_back():
    before = settings()
    with pytest.raises(ZeroDivisionError), products.as_cudnn_would(torch.float32, True):
        raise ZeroDivisionError
    assert settings() == before
    assert not products._within
