"""Coupled oscillators."""

import torch

import fastrnn


class CoRNN(fastrnn.Recurrent):
    """Oscillators, coupled and driven by the input; y is their place and the output, z their speed.

    The second block of rows of weight_ih and bias_ih is not used.

    Args:
        dt, gamma, epsilon: the step in time, the frequency, the damping. Default: 0.042, 2.7, 4.7,
            the authors' for sequential MNIST.

    Formula:
        z' = z + dt (tanh(W x + U y + V z) - gamma y - epsilon z)
        y' = y + dt z'

    Paper: Rusch, Mishra: Coupled Oscillatory Recurrent Neural Network (coRNN), 2020,
        https://arxiv.org/abs/2010.00951
    """

    gates, states = 2, ("y", "z")

    def __init__(self, *sizes, dt=0.042, gamma=2.7, epsilon=4.7, **options):
        super().__init__(*sizes, **options)
        self.dt, self.gamma, self.epsilon = dt, gamma, epsilon

    def step(self, wx, uh, y, z):
        force = torch.tanh(wx[0] + uh(y, 0) + uh(z, 1))
        z = z + self.dt * (force - self.gamma * y - self.epsilon * z)
        return y + self.dt * z, z
