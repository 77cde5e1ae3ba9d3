"""sb3-contrib: RecurrentPPO, which learns to balance a pole and is not told how fast it falls."""

import gymnasium
import numpy as np
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.env_util import make_vec_env

from .phases import phase

WHAT = "RecurrentPPO on CartPole without velocities, policy and critic LSTMs of 128"


class WithoutVelocities(gymnasium.ObservationWrapper):
    """Of (position, velocity, angle, velocity of the angle) the two that are no velocities."""

    def __init__(self, env):
        super().__init__(env)
        whole = env.observation_space
        self.observation_space = gymnasium.spaces.Box(whole.low[::2], whole.high[::2])

    def observation(self, observation):
        return np.ascontiguousarray(observation[::2])


class Agent(RecurrentPPO):
    """Keeps the loss of every training phase, and has its time taken."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.losses = []

    def train(self):
        with phase("agent.train()"):
            super().train()
        self.losses.append(float(self.logger.name_to_value["train/loss"]))


def train(prepare):
    env = make_vec_env("CartPole-v1", n_envs=8, seed=1, wrapper_class=WithoutVelocities)
    agent = Agent(
        "MlpLstmPolicy", env, seed=1, n_steps=128, batch_size=256, n_epochs=4, device="cpu",
        policy_kwargs={"lstm_hidden_size": 128},
    )  # fmt: skip
    prepare(agent.policy)
    agent.learn(total_timesteps=8 * 128 * 4)
    return agent.losses
