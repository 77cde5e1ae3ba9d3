from setuptools import setup

setup(
    name="fastrnn",
    version="0.1.0",
    description="torch.nn.RNN, LSTM and GRU as fused whole-sequence kernels",
    license="MIT",
    python_requires=">=3.11",
    packages=["fastrnn", "fastrnn.kernels", "fastrnn.kernels.cells", "fastrnn.kernels.cpu"],
    package_dir={"fastrnn.kernels": "kernels"},
    install_requires=["torch>=2.11", "numba>=0.61", "rich"],
)
