"""sb3-contrib: RecurrentPPO, which learns to balance a pole, one step of the LSTM at a time."""

from sb3_contrib import RecurrentPPO
from stable_baselines3.common.callbacks import BaseCallback

WHAT = "RecurrentPPO on CartPole, policy and critic LSTMs of 128"


class Losses(BaseCallback):
    """Collects the loss of every update."""

    def __init__(self):
        super().__init__()
        self.losses = []

    def _on_step(self):
        return True

    def _on_rollout_start(self):
        loss = self.logger.name_to_value.get("train/loss")
        if loss is not None:
            self.losses.append(float(loss))


def train(prepare):
    agent = RecurrentPPO(
        "MlpLstmPolicy", "CartPole-v1", seed=1, n_steps=128, batch_size=64, n_epochs=4,
        device="cpu", policy_kwargs={"lstm_hidden_size": 128},
    )  # fmt: skip
    prepare(agent.policy)
    callback = Losses()
    agent.learn(total_timesteps=128 * 4, callback=callback)
    return callback.losses
