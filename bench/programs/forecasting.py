"""neuralforecast: its LSTM forecaster, fitted by its own trainer (Lightning's)."""

import logging

import numpy as np
import pandas as pd
from neuralforecast import NeuralForecast
from neuralforecast.models import LSTM

WHAT = "LSTM forecaster, 2 layers of 128, windows of 96"
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)


def series(count=16, length=400):
    """Noisy seasons of different lengths, in the frame that neuralforecast takes."""
    draw, t = np.random.default_rng(0), np.arange(length)
    rows = [
        pd.DataFrame(
            {
                "unique_id": f"s{n}",
                "ds": pd.date_range("2020-01-01", periods=length, freq="D"),
                "y": np.sin(2 * np.pi * t / (7 + n)) + 0.1 * draw.standard_normal(length),
            }
        )
        for n in range(count)
    ]
    return pd.concat(rows, ignore_index=True)


def train(prepare):
    model = LSTM(
        h=12, input_size=96, max_steps=20, encoder_n_layers=2, encoder_hidden_size=128,
        scaler_type="standard", random_seed=1, batch_size=16, windows_batch_size=32,
        accelerator="cpu", enable_progress_bar=False, enable_model_summary=False, logger=False,
        enable_checkpointing=False,
    )  # fmt: skip
    prepare(model)
    forecast = NeuralForecast(models=[model], freq="D")
    forecast.fit(series())
    return [float(loss) for _, loss in forecast.models[0].train_trajectories]
